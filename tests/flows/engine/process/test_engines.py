"""Every dbt that Tributary runs with: the same project, the same outcomes, whatever dbt it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.ledger.failures import log_of
from flows.engine.ledger.retries import Retries
from flows.engine.process.listing import list_nodes
from flows.engine.run import run_dbt
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.profiles import Profile
from infrastructure.program import find_program
from tests.support.engines import engine_or_skip

PROJECTS = Path(__file__).parents[3] / "projects"
SECRET = "p/ss wörd+with=signs&42"


@dataclass(frozen=True)
class House:
    """A project of its own, a DuckDB file, and the dbt that builds it."""

    folder: Path
    dbt: str
    generation: int

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def run(
        self, verb: str = "build", resume: bool = False, allow_nothing: bool = False, **command: object
    ) -> DbtResult:
        output = {"type": "duckdb", "path": str(self.folder / "w.duckdb"), "schema": "main", "threads": 2}
        profile = Profile("dev", "outcomes", output, {"DBT_ENV_SECRET_KEY": SECRET}, dbt=self.dbt)
        return run_dbt(
            DbtCommand(verb, **command),  # pyright: ignore[reportArgumentType]
            RunContext(read_project(self.project), profile),
            RunOptions(resume=resume, allow_nothing=allow_nothing),
            retries=Retries(limit=1, sleep=lambda _: None),
        )

    def failed(self, verb: str = "build", **command: object) -> DbtRunFailed:
        with pytest.raises(DbtRunFailed) as caught:
            self.run(verb, **command)
        return caught.value


# dbt 2 is the quickest of them and the one that differs most; the others take a minute.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("1.8", "1.10", "1.12")]


@pytest.fixture(scope="module", params=[*SLOW, "2"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    engine = engine_or_skip(request.param)
    if "duckdb" in engine.without:
        pytest.skip(engine.without["duckdb"])
    folder = tmp_path_factory.mktemp("engine")
    shutil.copytree(PROJECTS / "outcomes", folder / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIBUTARY_STATE", str(folder / "state"))
        for variable, value in engine.environment.items():
            patch.setenv(variable, value)
        yield House(folder, engine.program, int(request.param.partition(".")[0]))


def test_every_node_ends_as_it_should_and_what_is_mended_is_resumed(house: House) -> None:
    failed = house.failed()
    assert isinstance(failed.result, DbtResult)
    outcomes = {node.name: node.outcome for node in failed.result.nodes if node.resource_type != "exposure"}
    assert outcomes == {
        "readings": "succeeded",
        "good": "succeeded",
        "not_null_good_id": "succeeded",
        "unique_good_id": "warned",
        "on_inlined": "succeeded",
        "untested_ids": "succeeded",
        "unique_untested_ids_id": "failed",
        "after_failing_test": "skipped",
        "wrong_sql": "failed",
        "after_wrong_sql": "skipped",
        "twice_the_amount": "succeeded",
        "doubled": "succeeded",
        "wrong_expectation": "failed",
        "misjudged": "skipped",
    }
    (wrong,) = [node for node in failed.result.nodes if node.name == "wrong_sql"]
    assert "no_such_column" in wrong.message
    assert "<unknown>" not in wrong.message
    assert "dbt1308" not in wrong.message
    (test,) = [node for node in failed.result.nodes if node.name == "unique_untested_ids_id"]
    assert "1" in test.message, "how many rows it found"

    model = house.project / "models" / "wrong_sql.sql"
    model.write_text("select 1 as id")
    resumed = house.failed(resume=True)
    assert isinstance(resumed.result, DbtResult)
    again = {node.name for node in resumed.result.nodes if node.outcome == "succeeded"}
    assert {"wrong_sql", "after_wrong_sql", "good"} <= again
    assert {node.name for node in resumed.result.of("failed")} == {"unique_untested_ids_id", "wrong_expectation"}


def test_a_selection_means_the_same_nodes(house: House) -> None:
    profile = Profile("dev", "outcomes", {"type": "duckdb", "path": "w.duckdb", "schema": "main"}, {}, dbt=house.dbt)
    found, graph = list_nodes(DbtCommand("build", select="good"), read_project(house.project), profile)
    assert "model.outcomes.good" in found
    assert "model.outcomes.wrong_sql" not in found
    assert graph.nodes["model.outcomes.good"].name == "good"


def test_a_selection_of_nothing_and_a_mistyped_flag_are_mistakes(house: House) -> None:
    assert house.run(select="no_such_model", allow_nothing=True).nodes == ()
    with pytest.raises(ConfigError, match="no_such_model, which matches no node"):
        house.run(select="no_such_model")
    with pytest.raises((ConfigError, DbtRunFailed), match="no-such-flag"):
        house.run(flags=("--no-such-flag",))


def test_a_secret_in_a_drivers_words_is_nowhere_that_anybody_reads(house: House) -> None:
    model = house.project / "models" / "leaky.sql"
    model.write_text(f"select cast('{SECRET}' as integer) as id")
    try:
        failed = house.failed(select="leaky")
    finally:
        model.unlink()
    assert isinstance(failed.result, DbtResult)
    run_path, target_path = failed.result.run_path, failed.result.target_path
    read = [path for path in run_path.rglob("*") if path.is_file()] + [target_path / "run_results.json"]
    assert log_of(run_path) in read
    assert "*****" in str(failed)
    assert SECRET not in str(failed)
    forms = (SECRET.encode(), SECRET.encode("unicode_escape"))
    assert [path.name for path in read if any(form in path.read_bytes() for form in forms)] == []
    assert [path.name for path in read if path.stat().st_mode & 0o077] == []


def test_a_command_that_leaves_nothing_of_its_own_has_failed(house: House, tmp_path: Path) -> None:
    """A dbt that exits with 0 and does nothing, as an alpha of dbt 2 did for a freshness check."""
    lazy = tmp_path / "dbt"
    lazy.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = --version ]; then exec {house.dbt} --version; fi\n'
        'echo \'{"info": {"name": "MainReportVersion", "msg": "Running", "level": "info", "invocation_id": "i",'
        ' "ts": "2026-01-01T00:00:00Z"}, "data": {}}\'\n'
    )
    lazy.chmod(0o755)
    with pytest.raises(DbtRunFailed, match=r"left no run_results\.json of it"):
        House(house.folder, str(lazy), house.generation).run("seed")


def test_a_freshness_check_is_made_or_refused_and_never_passed_over(house: House) -> None:
    program = find_program(house.dbt)
    if program.has_freshness:
        assert house.run("source freshness").nodes == ()
    else:
        with pytest.raises(ConfigError, match="no check of how fresh sources are"):
            house.run("source freshness")


def test_the_rows_are_there(house: House) -> None:
    house.run("run", select="+good")
    with duckdb.connect(str(house.folder / "w.duckdb"), read_only=True) as connection:
        assert connection.execute("select count(*) from main.good").fetchone() != (0,)
