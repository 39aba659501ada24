"""Warehouse keeps its promises on every warehouse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.warehouses.door import open_warehouse
from flows.warehouses.relations import parts_of, with_places
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.profiles import Profile
from infrastructure.workspace import ROOT
from tests.flows.runbook.journey_of_operations import expected_of_operations, operate
from tests.flows.runbook.journey_of_tables import expected, take


@pytest.fixture(params=["duckdb", "postgres"])
def profile(request: pytest.FixtureRequest, tmp_path: Path) -> Profile:
    """Each warehouse in turn."""
    if request.param == "duckdb":
        return Profile("dev", "tributary", {"type": "duckdb", "path": str(tmp_path / "dev.duckdb")}, {})
    database: dict[str, Any] = request.getfixturevalue("postgres_database")
    return Profile("pg", "tributary", {"type": "postgres", "schema": "analytics", **database}, {})


def test_every_promise_is_kept(profile: Profile) -> None:
    assert take(profile, f"journey_{uuid4().hex[:8]}") == expected()


def test_repairs_refreshes_and_audits_do_the_same(profile: Profile) -> None:
    output = {**profile.output, "schema": f"operated_{uuid4().hex[:8]}"}
    assert operate(Profile(profile.target, profile.name, output, {})) == expected_of_operations()


def test_a_copy_keeps_types_and_what_can_not_be_null(profile: Profile) -> None:
    schema = f"copies_{uuid4().hex[:8]}"
    with open_warehouse(profile) as tables:
        tables.make_schema(schema)
        table, copy = tables.placed(schema, "t"), tables.placed(schema, "c")
        tables.execute(f"create table {table} (id bigint not null, amount numeric(9, 3), seen_at timestamp)")
        tables.copy(table, copy)

        assert tables.columns(copy) == tables.columns(table)
        with pytest.raises(ConfigError, match=r"(?i)null"):
            tables.execute(f"insert into {copy} values (?, ?, ?)", [None, 1, None])
        tables.execute(f"create view {tables.placed(schema, 'v')} as select id from {copy}")
        tables.copy(table, tables.placed(schema, "v"))
        assert not tables.is_view(tables.placed(schema, "v"))


def test_copies_and_drops_in_a_transaction_that_fails_are_undone(profile: Profile) -> None:
    schema = f"undone_{uuid4().hex[:8]}"
    with open_warehouse(profile) as tables:
        tables.make_schema(schema)
        old, new = tables.placed(schema, "old"), tables.placed(schema, "new")
        tables.execute(f"create table {old} (id bigint)")
        tables.execute(f"create table {new} (id bigint, name varchar)")
        tables.execute(f"insert into {old} values (?)", [1])
        with pytest.raises(ZeroDivisionError), tables.transaction():
            tables.copy(old, new)
            tables.drop(old)
            raise ZeroDivisionError

        assert list(tables.columns(new)) == ["id", "name"]
        assert tables.rows(f"select * from {old}") == [{"id": 1}]


def test_a_duckdb_file_that_another_holds_is_said_to_be_in_use(tmp_path: Path) -> None:
    path = tmp_path / "dev.duckdb"
    hold = f"import duckdb, sys; held = duckdb.connect({str(path)!r}); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        with (
            pytest.raises(UpstreamUnavailable, match="is in use"),
            open_warehouse(Profile("dev", "tributary", {"type": "duckdb", "path": str(path)}, {})),
        ):
            pass
        other.communicate()


def test_a_warehouse_that_is_none_of_the_four_is_refused() -> None:
    with pytest.raises(ConfigError, match="on redshift"), open_warehouse(Profile("t", "p", {"type": "redshift"}, {})):
        pass


@pytest.mark.parametrize(
    ("relation", "parts"),
    [
        ('"dev"."main"."a b.c"', [("dev", True), ("main", True), ("a b.c", True)]),
        ("ANALYTICS.dev.orders", [("ANALYTICS", False), ("dev", False), ("orders", False)]),
        ("`a-project`.`dev`.`orders`", [("a-project", True), ("dev", True), ("orders", True)]),
        ("`a-project.dev.orders`", [("a-project", True), ("dev", True), ("orders", True)]),
        ('"say ""hello"""', [('say "hello"', True)]),
    ],
)
def test_a_relation_is_taken_apart_as_its_warehouse_reads_it(relation: str, parts: list[tuple[str, bool]]) -> None:
    assert parts_of(relation) == parts


def test_question_marks_in_texts_names_and_comments_are_no_places_of_values() -> None:
    sql = """select '?', 'it''s ?', "a?", `b?` -- ?\n, /* ? */ ? from t where x = ?"""
    assert with_places(sql, ["%s", "%s"]) == sql[: sql.index("*/") + 3] + "%s from t where x = %s"
    assert with_places(r"select '\'?', ?", ["%s"], has_escapes=True) == r"select '\'?', %s"


@pytest.mark.parametrize("places", [[], ["%s", "%s"]])
def test_more_or_fewer_values_than_question_marks_are_refused(places: list[str]) -> None:
    with pytest.raises(ConfigError, match="question marks"):
        with_places("select ?", places)


def test_every_promise_is_kept_on_the_local_snowflake_and_bigquery() -> None:
    if os.environ.get("TRIBUTARY_TEST_WAREHOUSES") not in ("essentials", "everything"):
        pytest.skip("makes environments of their own: TRIBUTARY_TEST_WAREHOUSES=essentials")
    uv = shutil.which("uv") or "uv"
    command = [uv, "run", "--isolated", "--extra", "snowflake", "--extra", "bigquery", "python", "-m"]
    run = subprocess.run([*command, "tests.flows.runbook.journey_of_tables"], cwd=ROOT, capture_output=True, text=True)
    assert json.loads(run.stdout.splitlines()[-1]) == {"snowflake": {}, "bigquery": {}}, run.stderr[-3000:]
