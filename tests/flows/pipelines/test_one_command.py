"""One dbt command as a flow on a real Prefect server, and as a command that is typed."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from prefect.states import State

from flows.__main__ import main
from flows.cli.one_command import _server
from flows.engine.context.state import LEDGER
from flows.engine.ledger.ledger import read_ledger
from tests.support.prefect_api import SetUpTarget
from tests.support.projects import PROJECTS
from tests.support.recorded import Recorded


@pytest.fixture(scope="module")
def target(prefect_server: str, set_up_target: SetUpTarget) -> str:
    return set_up_target()


def typed(target: str, *words: str) -> Result:
    """Run a command in this process, on the project of a small shop."""
    return CliRunner().invoke(main, [*words, "--target", target, "--project-dir", str(PROJECTS / "shop")])


def test_a_command_has_task_runs_a_ledger_and_an_end_and_its_output_is_one_document(
    target: str, prefect_server: str
) -> None:
    from flows.pipelines.one_command import dbt_command

    state: State = dbt_command("seed", target, str(PROJECTS / "shop"), return_state=True)
    result = state.result()
    assert {node.name for node in result.nodes} == {"raw_customers", "raw_orders", "raw_payments"}
    assert state.state_details.flow_run_id
    recorded = Recorded(prefect_server, state.state_details.flow_run_id)
    assert {key.rpartition(".")[2] for key in recorded.node_runs(3)} == {"raw_customers", "raw_orders", "raw_payments"}
    entries = list(read_ledger(result.run_path / LEDGER))
    assert entries[0]["command"]["verb"] == "seed" and entries[-1]["is_ok"] is True
    again = typed(target, "seed", "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["counts"]["succeeded"] == 0, "the last run of this came to a good end"


def test_questions_answer_on_stdout_alone_and_hold_nothing(target: str) -> None:
    typed(target, "seed")
    names = typed(target, "ls", "--select", "customers", "--output", "name", "--resource-type", "model")
    assert (names.exit_code, names.stdout) == (0, "customers\n")
    listed = json.loads(typed(target, "ls", "--select", "resource_type:seed", "--json").stdout)
    assert {each["name"] for each in listed} == {"raw_customers", "raw_orders", "raw_payments"}
    rows = typed(target, "show", "--inline", "select count(*) as n from {{ ref('raw_customers') }}", "--json")
    assert json.loads(rows.stdout)[0]["n"] > 0
    sql = typed(target, "compile", "--inline", "select * from {{ ref('raw_customers') }}")
    assert sql.exit_code == 0 and "{{" not in sql.stdout and "raw_customers" in sql.stdout
    mistyped = typed(target, "ls", "--select", "custmers")
    assert mistyped.exit_code == 2 and "Did you mean customers?" in mistyped.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show"], "Give either --select (or --selector), or --inline."),
        (["seed", "--store-failures"], "No such option"),
        (["test", "--empty"], "No such option"),
        (["run-operation", "no_such_macro"], "no_such_macro"),
    ],
)
def test_what_is_mistaken_is_said(target: str, words: list[str], said: str) -> None:
    done = typed(target, *words)
    assert done.exit_code in (1, 2) and said in done.stderr, done.output
    assert "Traceback" not in done.output


def test_the_documentation_is_served_to_this_machine_alone_and_nothing_beside_it(tmp_path: Path) -> None:
    page = tmp_path / "static_index.html"
    page.write_text("<p>tables</p>")
    (tmp_path / "profiles.yml").write_text("secret")
    with _server(page, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        assert host == "127.0.0.1"
        answers = []
        for path in ("/", "/profiles.yml", "/../profiles.yml"):
            connection = HTTPConnection(str(host), port, timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            answers.append((answer.status, answer.read()))
            connection.close()
        server.shutdown()
    assert answers == [(200, b"<p>tables</p>"), (404, b"Not found"), (404, b"Not found")]
