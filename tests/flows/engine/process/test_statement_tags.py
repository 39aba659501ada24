"""Statements say which run, target and node they are of, unless the project says what they say."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import LEDGER
from flows.engine.ledger.ledger import read_ledger
from flows.engine.process.child import COMMENT_VARIABLE, QUERY_TAG_VARIABLE
from flows.engine.process.statement_tags import tag_variables
from flows.engine.run import run_dbt
from infrastructure.profiles import Profile

PROJECT = Path(__file__).parents[3] / "projects" / "tagged"


def said_by_a_run(project: Path, database: dict[str, Any]) -> tuple[str, Path]:
    """Run the project's one model, which keeps the statement that makes it, and return that with the run's folder."""
    profile = Profile("dev", "tributary", {"type": "postgres", **database, "schema": "tagged", "threads": 1}, {})
    result = run_dbt(DbtCommand("run"), RunContext(read_project(project), profile, run_id="0a1b-2c3d"))
    with closing(psycopg2.connect(**database)) as connection, connection.cursor() as cursor:
        cursor.execute("select said from tagged.said")
        return cursor.fetchone()[0], result.run_path


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    return tmp_path


def test_a_statement_says_its_flow_run_target_and_node_and_the_ledger_what_the_warehouse_said(
    own_state: Path, postgres_database: dict[str, Any]
) -> None:
    statement, run_path = said_by_a_run(PROJECT, postgres_database)

    comment = json.loads(statement[statement.index("/*") + 2 : statement.index("*/")])
    assert comment.pop("dbt_version")
    assert comment == {
        "app": "dbt",
        "profile_name": "tagged",
        "target_name": "dev",
        "flow_run_id": "0a1b-2c3d",
        "node_id": "model.tagged.said",
    }
    learned = [entry["nodes"] for entry in read_ledger(run_path / LEDGER) if entry["kind"] == "learned"]
    assert [nodes["model.tagged.said"]["response"]["rows_affected"] for nodes in learned] == [1]


def test_a_projects_own_query_comment_is_left_as_it_is(own_state: Path, postgres_database: dict[str, Any]) -> None:
    theirs = own_state / "theirs"
    shutil.copytree(PROJECT, theirs)
    with (theirs / "dbt_project.yml").open("a") as file:
        file.write("query-comment: paid for by marketing\n")

    statement, _ = said_by_a_run(theirs, postgres_database)

    assert "/* paid for by marketing */" in statement
    assert "flow_run_id" not in statement


def test_only_snowflakes_sessions_carry_a_query_tag() -> None:
    tag = json.loads(tag_variables("0a1b", "prod", "snowflake")[QUERY_TAG_VARIABLE])

    assert tag == {"app": "dbt", "flow_run_id": "0a1b", "target": "prod"}
    assert tag_variables("0a1b", "prod", "bigquery").keys() == {COMMENT_VARIABLE}


def test_a_run_id_cannot_end_the_comment_or_its_template() -> None:
    comment = tag_variables("*/ }} '; drop table x", "prod", "postgres")[COMMENT_VARIABLE]

    assert "flow_run_id='_________drop_table_x'" in comment
