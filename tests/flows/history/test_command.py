"""`python -m flows history`, as a person or a program uses it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.__main__ import main
from flows.history.query import EXAMPLES
from tests.support.history_runs import AT, node, run, stored


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    store = stored(tmp_path, run([node("a", seconds=1234.5), node("[b]", "failed")]), run([], AT + timedelta(days=1)))
    monkeypatch.setenv("TRIBUTARY_HISTORY", store.url)
    return store.url


def flows(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["history", *arguments])


def test_without_a_question_it_says_what_can_be_asked(history: str) -> None:
    done = flows()
    assert done.exit_code == 0
    assert done.stdout.startswith(f"The history is at {history} (2 files).")
    assert "queue_seconds" in done.stdout


@pytest.mark.parametrize("query", EXAMPLES.values())
def test_every_example_can_be_run(history: str, query: str) -> None:
    assert flows(query).exit_code == 0
    assert query in flows().stdout


def test_an_answer_is_a_table_csv_or_json(history: str) -> None:
    query = "select name, seconds, started_at from nodes order by name"
    assert [line.split() for line in flows(query).stdout.splitlines()][:2] == [
        ["name", "seconds", "started_at"],
        ["[b]", "1.00", "2026-01-31", "12:00:00"],
    ]
    assert flows(query, "--format", "csv").stdout.splitlines()[1:] == [
        "[b],1.0,2026-01-31 12:00:00",
        "a,1234.5,2026-01-31 12:00:00",
    ]
    assert json.loads(flows(query, "--format", "json").stdout)[1] == {
        "name": "a",
        "seconds": 1234.5,
        "started_at": "2026-01-31T12:00:00",
    }


def test_a_wrong_question_is_a_sentence_and_exit_code_2(history: str) -> None:
    done = flows("select nothing")
    assert done.exit_code == 2
    assert "The query failed. Binder Error" in done.stderr
    assert json.loads(flows("select nothing", "--format", "json").stdout)["kind"] == "ConfigError"


def test_files_are_put_together_on_demand(history: str) -> None:
    done = flows("--compact", "--keep-days", "36500")
    assert done.exit_code == 0
    assert "2 files found" in done.stderr
