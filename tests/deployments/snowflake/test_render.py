"""What is rendered for Snowflake follows the DAG, stops at failing tests, and is SQL that Snowflake's grammar has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deployments.snowflake.__main__ import main
from deployments.snowflake.script import TaskPlace, create, drop, quoted
from deployments.snowflake.task_graph import DbtObject, Task, TaskGraph, node_by_node, whole, within_limits
from flows.engine.artifacts.compiled import compiled_in
from flows.engine.artifacts.manifest_file import manifest_of
from infrastructure.errors import ConfigError

PLACE = TaskPlace(
    "ANALYTICS", "TRIBUTARY", "TRANSFORMING", "5 MINUTE", "TRIBUTARY", "@code.git.repo/branches/main/dbt", "ON_CALL"
)
DBT = DbtObject(PLACE.name("TRIBUTARY"), "prod-snowflake")


TOTALS = "select sum(price) as total from analytics.shop.orders"


def node(name: str, kind: str, parents: list[str], code: str, **config: Any) -> dict[str, Any]:
    return {
        "name": name,
        "resource_type": kind,
        "fqn": ["shop", name],
        "depends_on": {"nodes": parents},
        "config": {"materialized": "test" if kind == "test" else "table", **config},
        "compiled_code": code,
        "database": "analytics",
        "relation_name": f"analytics.shop.{name}",
        "language": "sql",
    }


MANIFEST: dict[str, Any] = {
    "metadata": {"adapter_type": "snowflake"},
    "sources": {
        "source.shop.raw.orders": {
            "name": "orders",
            "resource_type": "source",
            "fqn": ["shop", "raw", "orders"],
            "relation_name": "analytics.raw.orders",
        },
        "source.shop.raw.nobody": {
            "name": "nobody",
            "resource_type": "source",
            "fqn": ["shop", "raw", "nobody"],
            "relation_name": "analytics.raw.nobody",
        },
    },
    "nodes": {
        "model.shop.stg": node(
            "stg", "model", ["source.shop.raw.orders"], "select id, price from analytics.raw.orders",
            materialized="view",
        ),
        "model.shop.eph": node("eph", "model", ["model.shop.stg"], "", materialized="ephemeral"),
        "model.shop.orders": node("orders", "model", ["model.shop.eph"], "select * from analytics.shop.stg"),
        "model.shop.history": node(
            "history", "model", ["model.shop.orders"], "select 1 as id", materialized="incremental"
        ),
        "seed.shop.rates": node("rates", "seed", [], "", materialized="seed"),
        "model.shop.totals": node(
            "totals", "model", ["model.shop.orders", "seed.shop.rates"], TOTALS
        ),
        "test.shop.unique_orders": node(
            "unique_orders", "test", ["model.shop.orders"],
            "select id from analytics.shop.orders group by id having count(*) > 1",
        ),
        "test.shop.few_orders": node(
            "few_orders", "test", ["model.shop.orders"], "select id from analytics.shop.orders", error_if="> 1000"
        ),
        "test.shop.totals_fit": node(
            "totals_fit", "test", ["model.shop.totals", "model.shop.orders"], "select 1 as x where 1 = 0"
        ),
        "test.shop.warned": node("warned", "test", ["model.shop.stg"], "select 1 as x", severity="warn"),
    },
}  # fmt: skip


def rendered() -> TaskGraph:
    return node_by_node(manifest_of(MANIFEST), compiled_in(MANIFEST), DBT)


def test_a_task_waits_for_what_its_node_stands_on_and_for_the_tests_of_it() -> None:
    after = {task.name: task.after for task in rendered().tasks}
    orders, tests = "model.shop.orders", "tests of model.shop.orders"
    assert after == {
        "model.shop.stg": (),
        orders: ("model.shop.stg",),
        # dbt runs one command at a time inside Snowflake, so the second of its tasks waits for the first.
        "seed.shop.rates": (),
        "model.shop.history": (orders, tests, "seed.shop.rates"),
        "model.shop.totals": (orders, "seed.shop.rates", tests),
        tests: (orders,),
        "tests of model.shop.orders, model.shop.totals": (orders, "model.shop.totals"),
    }


def test_what_dbt_does_more_for_is_run_by_dbt_and_what_has_no_task_is_named() -> None:
    bodies = {task.name: task.body for task in rendered().tasks}
    run = 'EXECUTE DBT PROJECT "ANALYTICS"."TRIBUTARY"."TRIBUTARY" ARGS = '
    assert bodies["model.shop.history"] == run + "'run --select \"fqn:shop.[h]istory\" --target prod-snowflake'"
    assert bodies["seed.shop.rates"] == run + "'seed --select \"fqn:shop.[r]ates\" --target prod-snowflake'"
    assert bodies["model.shop.orders"].startswith("CREATE OR REPLACE TRANSIENT TABLE analytics.shop.orders AS (")
    assert rendered().left_out == {
        "model.shop.eph": "is compiled into what reads it",
        "test.shop.warned": "is a warning, which stops nothing",
    }
    assert rendered().sources == {"source.shop.raw.orders": "analytics.raw.orders"}
    assert [task.body for task in whole(manifest_of(MANIFEST), DBT).tasks] == [run + "'build --target prod-snowflake'"]


def test_a_node_that_a_selection_cannot_name_is_named() -> None:
    odd = json.loads(json.dumps(MANIFEST))
    odd["nodes"]["model.shop.history"]["fqn"] = ["shop", "Finance & Sales", "history"]
    with pytest.raises(ConfigError, match=r"model\.shop\.history can't have its own task: .*--how dbt"):
        node_by_node(manifest_of(odd), compiled_in(odd), DBT)


def test_a_model_without_compiled_sql_is_named() -> None:
    bare = json.loads(json.dumps(MANIFEST))
    bare["nodes"]["model.shop.orders"]["compiled_code"] = None
    with pytest.raises(ConfigError, match=r"no compiled SQL of 1 node: model\.shop\.orders\. .*--how dbt"):
        node_by_node(manifest_of(bare), compiled_in(bare), DBT)


def test_a_graph_stays_within_what_a_task_may_have_before_and_after_it() -> None:
    roots = [Task(f"r{number}", "SELECT 1") for number in range(250)]
    joined = Task("all of them", "SELECT 1", tuple(task.name for task in roots))
    below = [Task(f"b{number}", "SELECT 1", ("all of them",)) for number in range(201)]
    found = {task.name: task for task in within_limits([*roots, joined, *below])}
    children: dict[str, int] = {}
    for task in found.values():
        assert len(task.after) <= 100
        for name in task.after or ("the root",):
            children[name] = children.get(name, 0) + 1
    assert max(children.values()) <= 100

    def reaches(name: str, wanted: str) -> bool:
        return name == wanted or any(reaches(before, wanted) for before in found[name].after if before in found)

    assert all(reaches("b200", root.name) for root in roots)
    with pytest.raises(ConfigError, match="has 1,001 tasks, and Snowflake allows 1,000"):
        within_limits([Task(f"t{number}", "SELECT 1", ("t0",) if number else ()) for number in range(990)])


def test_names_are_quoted_so_that_they_mean_what_dbt_means() -> None:
    assert [quoted(name) for name in ("analytics", "my db", '"exact"', 'a"b')] == [
        '"ANALYTICS"',
        '"my db"',
        '"exact"',
        '"a""b"',
    ]


NAME = r'(?:"(?:[^"]|"")+"\.){2}"(?:[^"]|"")+"'
TEXT = r"'(?:[^'\\]|''|\\.)*'"
# The clauses of each kind of statement that sqlglot takes for a mere command, in the order of Snowflake's reference.
GRAMMAR = {
    "stream": rf"CREATE STREAM IF NOT EXISTS {NAME} ON TABLE \S+(?: (?:APPEND_ONLY|SHOW_INITIAL_ROWS) = TRUE)*|"
    rf"CREATE STREAM IF NOT EXISTS {NAME} ON TABLE {NAME} APPEND_ONLY = TRUE",
    "project": rf"CREATE DBT PROJECT IF NOT EXISTS {NAME} FROM {TEXT}",
    "execute": rf"EXECUTE DBT PROJECT {NAME} ARGS = {TEXT}",
    "alter": rf"ALTER TASK IF EXISTS {NAME} (?:SUSPEND|RESUME)",
    "drop": rf"DROP (?:TASK|STREAM) IF EXISTS {NAME}",
    "task": rf"CREATE OR REPLACE TASK {NAME}\s+WAREHOUSE = \"[^\"]+\""
    rf"(?:\s+SCHEDULE = {TEXT}\s+ALLOW_OVERLAPPING_EXECUTION = FALSE)?\s+USER_TASK_TIMEOUT_MS = \d+"
    rf"(?:\s+SUSPEND_TASK_AFTER_NUM_FAILURES = \d+)?(?:\s+ERROR_INTEGRATION = \"[^\"]+\")?(?:\s+COMMENT = {TEXT})?"
    rf"(?:\s+AFTER {NAME}(?:, {NAME})*)?"
    rf"(?:\s+WHEN SYSTEM\$STREAM_HAS_DATA\({TEXT}\)(?:\s+OR SYSTEM\$STREAM_HAS_DATA\({TEXT}\))*)?"
    r"\s+AS\s+(?P<body>[\s\S]+)",
}  # fmt: skip


def statements(how: str) -> Iterator[str]:
    found = rendered() if how == "sql" else whole(manifest_of(MANIFEST), DBT)
    yield from create(found, PLACE)
    yield from drop(found, PLACE)


@pytest.mark.parametrize("how", ["dbt", "sql"])
def test_every_statement_is_one_of_snowflakes(how: str) -> None:
    sqlglot = pytest.importorskip("sqlglot")

    def check(statement: str) -> str:
        for kind, pattern in GRAMMAR.items():
            if match := re.fullmatch(pattern, statement):
                return f"{kind}, {check(match['body'])}" if kind == "task" else kind
        parsed = sqlglot.parse_one(statement, read="snowflake", error_level=sqlglot.ErrorLevel.RAISE)
        assert not isinstance(parsed, sqlglot.exp.Command), statement
        return type(parsed).__name__.lower()

    kinds = {check(statement) for statement in statements(how)}
    assert {"stream", "project", "task, insert", "task, execute", "alter", "drop", "create", "select"} <= kinds
    assert ({"task, create", "task, select"} <= kinds) is (how == "sql")


def test_the_root_starts_for_new_rows_and_for_what_is_still_to_be_done() -> None:
    (root,) = (
        text
        for text in statements("dbt")
        if text.startswith('CREATE OR REPLACE TASK "ANALYTICS"."TRIBUTARY"."TRIBUTARY"\n')
    )
    assert root.partition("WHEN ")[2] == (
        """SYSTEM$STREAM_HAS_DATA('"ANALYTICS"."TRIBUTARY"."changes of shop.raw.orders"')\n"""
        """  OR SYSTEM$STREAM_HAS_DATA('"ANALYTICS"."TRIBUTARY"."tributary pending stream"')\nAS\n"""
        """INSERT INTO "ANALYTICS"."TRIBUTARY"."tributary pending" (source, changes, noticed_at)\n"""
        """SELECT 'shop.raw.orders', COUNT(*), CURRENT_TIMESTAMP() """
        """FROM "ANALYTICS"."TRIBUTARY"."changes of shop.raw.orders" HAVING COUNT(*) > 0"""
    )  # fmt: skip


def test_the_command_writes_a_script_and_refuses_the_manifest_of_another_warehouse(tmp_path: Path) -> None:
    manifest, script = tmp_path / "manifest.json", tmp_path / "tasks.sql"
    manifest.write_text(json.dumps(MANIFEST))
    words = ["render", "--target", "prod", "--manifest", str(manifest), "--how", "sql"]
    done = CliRunner().invoke(main, [*words, "--output", str(script)])
    assert (done.exit_code, done.output) == (0, f"{script}: 9 tasks, 1 stream on sources.\n")
    assert "--   test.shop.warned is a warning, which stops nothing\n" in script.read_text()
    manifest.write_text(json.dumps(MANIFEST | {"metadata": {"adapter_type": "duckdb"}}))
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "is a manifest for duckdb" in done.output


def test_the_local_snowflake_runs_what_the_tasks_run(tmp_path: Path) -> None:
    connector = pytest.importorskip("snowflake.connector", reason="needs: uv sync --extra snowflake")
    from tests.support.warehouses.servers import snowflake_server

    with snowflake_server(tmp_path / "server.log") as output:
        names = ("account", "host", "port", "protocol", "user", "password", "role")
        quiet = {"CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED": False}
        login = {name: output[name] for name in names}
        cursor = connector.connect(**login, session_parameters=quiet).cursor()
        for statement in (
            "create database if not exists analytics",
            "create schema if not exists analytics.raw",
            "create schema if not exists analytics.shop",
            "create table analytics.raw.orders as select 1 as id, 2.5 as price union all select 2, 3.5",
        ):
            cursor.execute(statement)
        bodies = {task.name: task.body for task in rendered().tasks if not task.body.startswith("EXECUTE DBT")}
        for name, body in bodies.items():
            assert cursor.execute(body), name
        assert cursor.execute("select total from analytics.shop.totals").fetchall() == [(6,)]
        assert cursor.execute(bodies["tests of model.shop.orders"]).fetchall() == [(0,)]
        # A test that fails is an error of the task, whose text says which it was and how many rows it found.
        cursor.execute("insert into analytics.shop.orders values (1, 9.5)")
        with pytest.raises(connector.errors.ProgrammingError, match=r"tests failed: unique_orders \(1\)"):
            cursor.execute(bodies["tests of model.shop.orders"])
