"""A parse that dbt had kept and that does not fit the project any more: it costs a parse, and no run fails of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand, Place
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import PARSED, State, shared_target, state_of
from flows.engine.process.kept_parse import PARSED_ANEW, KeptParse
from flows.engine.process.listing import list_nodes
from flows.engine.run import run_dbt
from infrastructure.errors import DbtRunFailed
from infrastructure.profiles import Profile
from infrastructure.program import Program
from tests.support.engines import engine_or_skip
from tests.support.stores import Machine

# dbt 1.10 to 1.12 find a test of such a file twice once the macro that both of its models use is edited.
PROPERTIES = """
models:
  - {name: first, columns: [{name: id, data_tests: [not_null]}]}
  - {name: second, columns: [{name: id, data_tests: [not_null]}]}
snapshots:
  - {name: kept, relation: ref('first'), config: {unique_key: id, strategy: check, check_cols: all}}
"""
NODES = ["first", "kept", "not_null_first_id", "not_null_second_id", "second"]


class Shop:
    """A project with such a file."""

    def __init__(self, folder: Path, dbt: str | None = None, properties: str = PROPERTIES) -> None:
        self.folder = folder / "project"
        output = {"type": "duckdb", "path": str(folder / "warehouse.duckdb"), "schema": "main", "threads": 1}
        self.profile = Profile("dev", "shop", output, {}, dbt=dbt)
        self.write("dbt_project.yml", "name: shop\nprofile: shop\nflags: {send_anonymous_usage_stats: false}\n")
        for name in ("first", "second"):
            self.write(f"models/{name}.sql", "select {{ number() }} as id")
        self.write("models/properties.yml", properties)
        self.number(1)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def number(self, number: int) -> None:
        """Edit the macro."""
        self.write("macros/number.sql", f"{{% macro number() %}}{number}{{% endmacro %}}")

    @property
    def state(self) -> State:
        return state_of(read_project(self.folder), "dev", os.environ)

    def damage(self) -> None:
        """Have what dbt keeps say of a model that it is there twice, as no project can."""
        kept = msgpack.unpackb(self.state.parsed.read_bytes())
        kept["nodes"]["model.shop.firsts"] = kept["nodes"]["model.shop.first"] | {"unique_id": "model.shop.firsts"}
        self.state.parsed.write_bytes(msgpack.packb(kept))

    def build(self, changed: bool = False, resume: bool = False) -> DbtResult:
        options = RunOptions(retries=0, changed=changed, resume=resume)
        return run_dbt(DbtCommand("build"), RunContext(read_project(self.folder), self.profile), options)

    def nodes(self) -> list[str]:
        found, _ = list_nodes(DbtCommand("build"), read_project(self.folder), self.profile)
        return sorted(name.split(".")[2] for name in found)


Said = Callable[[], str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return lambda: capsys.readouterr().out


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    return Shop(tmp_path)


def test_a_macro_is_edited_and_what_dbt_kept_finds_a_test_twice(shop: Shop, said: Said) -> None:
    """Every run was red until somebody deleted the file."""
    assert shop.build().counts()["succeeded"] == len(NODES)
    assert shop.nodes() == NODES
    shop.number(2)
    said()

    assert shop.nodes() == NODES, "a question has a parse of its own"
    assert said().count(PARSED_ANEW) == 1
    result = shop.build(changed=True)
    assert result.counts() == {"succeeded": len(NODES), "warned": 0, "failed": 0, "skipped": 0}
    assert PARSED_ANEW in result.notes
    assert "[ERROR]" not in (told := said()), "what is not so is not shown"
    assert told.count(PARSED_ANEW) == 1
    assert shop.nodes() == NODES
    assert PARSED_ANEW not in said(), "what is kept now is whole"


def test_an_error_of_the_project_is_told_once_and_what_dbt_kept_stays(shop: Shop, said: Said) -> None:
    shop.build()
    kept = shop.state.parsed.read_bytes()
    shop.write("models/second.sql", "select {{ 1 as id")
    said()

    with pytest.raises(DbtRunFailed, match=r"expected token 'end of print statement', got 'as'"):
        shop.build()
    assert (told := said()).count("expected token") == 1
    assert PARSED_ANEW not in told
    assert shop.state.parsed.read_bytes() == kept, "once it is mended, little has to be parsed"
    # Of that run nothing is done: a resume of it finds the same, and then all.
    with pytest.raises(DbtRunFailed, match="expected token"):
        shop.build(resume=True)
    assert said().count("expected token") == 1
    shop.write("models/second.sql", "select 2 as id")
    shop.damage()
    assert shop.build(resume=True).counts()["succeeded"] == len(NODES)
    assert said().count(PARSED_ANEW) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1.8", "1.10", "1.11", "1.12"])
def test_every_dbt_1_gets_past_what_it_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    shop = Shop(tmp_path, engine_or_skip(name).program, PROPERTIES.partition("snapshots:")[0])
    shop.build()
    shop.damage()
    said()

    assert shop.build().counts() == {"succeeded": 4, "warned": 0, "failed": 0, "skipped": 0}
    assert said().count(PARSED_ANEW) == 1
    shop.state.parsed.write_bytes(shop.state.parsed.read_bytes()[:1000])
    assert shop.build().counts()["succeeded"] == 4
    assert said().count(PARSED_ANEW) == 0, "what can't be read, dbt leaves out by itself"


@pytest.mark.slow
def test_what_failed_here_does_not_come_back_from_elsewhere(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    url = f"{bucket}/{tmp_path.name}"
    other, one = Machine(url, tmp_path / "other", monkeypatch), Machine(url, tmp_path / "one", monkeypatch)
    shop = Shop(tmp_path)
    shop.build()
    shop.damage()
    shared = shared_target(shop.state, os.environ)
    assert shared is not None
    shared.keep("damaged")

    other.use()
    shop.build()
    assert said().count(PARSED_ANEW) == 1, "it is fetched"
    one.lose()
    one.use()
    shop.build()
    assert PARSED_ANEW not in said()


@pytest.mark.parametrize(
    ("version", "flags", "variable", "is_tried"),
    [
        ("1.11.16", (), "", True),
        ("1.11.16", ("--no-partial-parse",), "", False),
        ("1.11.16", (), "false", False),
        # It leaves the file of a dbt 1 where it is, and keeps none.
        ("2.0.0", (), "", False),
    ],
)
def test_only_what_begins_with_a_kept_parse_is_tried_without_it(
    version: str, flags: tuple[str, ...], variable: str, is_tried: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBT_PARTIAL_PARSE", variable)
    (tmp_path / PARSED).touch()
    (tmp_path / "dbt_project.yml").write_text("name: shop\n")
    place = Place(tmp_path, tmp_path, "shop", tmp_path, tmp_path)

    kept = KeptParse(DbtCommand("build", flags=flags), place, Program(None, version))

    assert kept.may_be_to_blame(2) is is_tried
    assert not kept.may_be_to_blame(0)
    assert not kept.may_be_to_blame(-9), "it was killed, perhaps for its memory"
