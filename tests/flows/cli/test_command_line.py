"""The command line, as a person or a program uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.__main__ import COMMANDS
from infrastructure.profiles import load_profile
from infrastructure.workspace import ROOT
from tests.support.generated_repository import GeneratedRepository
from tests.support.prefect_api import SetUpTarget

PROJECTS = Path(__file__).parents[2] / "projects"


def flows(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m flows`; whatever happens, nobody sees a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "flows", *arguments], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def project(name: str) -> list[str]:
    return ["--project-dir", str(PROJECTS / name)]


@pytest.fixture(scope="module")
def target(set_up_target: SetUpTarget) -> str:
    return set_up_target()


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_says_what_a_command_does_and_gives_examples(command: list[str]) -> None:
    done = flows(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: python -m flows {' '.join(command)}".rstrip())
    assert "Examples:" in done.stdout or not command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runn"], "No such command 'runn'"),
        (["run", "--selct", "a"], "--selct"),
        (["run", "--vars", "{a: ["], "--vars is not valid YAML"),
        (["run", "--vars", "a"], "--vars has to be a mapping, not 'a'. Write it as '{name: value}'"),
        (["run", "--project-dir", "no/such"], "Give the folder of a dbt project with --project-dir"),
        (["run", "--project-dir", "tests"], "tests is not a dbt project: it has no dbt_project.yml"),
        (["run", "--no-deps", *project("packaged")], "Install them with: uv run dbt deps --project-dir"),
        (["plan", "--select", "a", "--selector", "b"], "Give either --selector or --select/--exclude"),
        (["plan", "--select", "--full"], "--full"),
        (["sample-data", "--rows", "0"], "0 is not in the range x>=1"),
        (["transform"], "Give either --source, once or several times, or --everything."),
        (["transform", "--source", "google_ads", "--everything"], "Give either --source"),
        (["fast-transform"], "Missing option '--source'"),
    ],
)
def test_a_mistake_ends_with_2_and_a_sentence(arguments: list[str], message: str) -> None:
    done = flows(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_a_program_ends_when_its_work_is_over_and_takes_nothing_apart() -> None:
    """What asked to be called at the end is called, threads are waited for, and what is in memory is left alone."""
    script = (
        "import atexit, sys, threading, time, flows.__main__ as program\n"
        "class Large:\n    def __del__(self): print('taken apart')\n"
        "large = Large()\n"
        "def main(**_):\n"
        "    atexit.register(print, 'called')\n"
        "    threading.Thread(target=lambda: (time.sleep(0.1), print('waited for'))).start()\n"
        "    sys.exit(75)\n"
        "program.main = main\n"
        "program.as_a_program()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split("\n"), done.stderr) == (75, ["waited for", "called", ""], "")


@pytest.mark.parametrize("command", [["plan", *project("shop")], ["ingest-git"]])
def test_a_mistyped_target_ends_with_2_and_the_one_that_was_meant(prefect_server: str, command: list[str]) -> None:
    done = flows(*command, "--target", "devv")
    assert done.returncode == 2
    assert "'devv'" in done.stderr
    assert "Did you mean `dev`?" in done.stderr


def test_a_target_that_needs_secrets_says_which(prefect_server: str) -> None:
    done = flows("run", *project("shop"), "--target", "postgres")
    assert done.returncode == 2
    assert "POSTGRES_PASSWORD" in done.stderr
    assert "python -m flows setup --target postgres" in done.stderr


def test_a_wrong_setting_is_json_too_where_a_program_reads(prefect_server: str) -> None:
    done = flows("run", *project("shop"), "--target", "devv", "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["kind"] == "ConfigError"
    assert "'devv'" in document["error"]
    assert "Did you mean `dev`?" in document["error"]


def test_a_project_of_the_usual_shape_runs_twice_and_says_what_a_person_wants_to_know(
    prefect_server: str, target: str
) -> None:
    first = flows("run", "--target", target, *project("shop"))
    second = flows("run", "--target", target, *project("shop"), "--json")

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert f"dbt build on {target}: 14 succeeded" in first.stdout
    for word in ("seeds", "models", "tests", "slowest", "Your data is in", "Log: ", "\nNext\n"):
        assert word in first.stdout
    assert "\x1b" not in first.stdout
    document = json.loads(second.stdout)
    assert document["counts"] == {"succeeded": 14, "warned": 0, "failed": 0, "skipped": 0}
    assert [command["command"] for command in document["commands"]] == ["dbt build"]
    path = load_profile(target).output["path"]
    with closing(duckdb.connect(path, read_only=True)) as connection:
        assert connection.execute("select count(*), sum(lifetime_value) from customers").fetchone() == (
            4,
            Decimal("41.00"),
        )


def test_a_failing_node_ends_with_1_names_it_and_says_why(prefect_server: str, target: str) -> None:
    done = flows("run", "--target", target, *project("outcomes"), "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["kind"] == "DbtRunFailed"
    assert document["counts"] == {"succeeded": 8, "warned": 1, "failed": 3, "skipped": 3}
    (command,) = document["commands"]
    messages = {node["unique_id"]: node["message"] for node in command["nodes"]}
    assert "no_such_column" in messages["model.outcomes.wrong_sql"]
    assert Path(command["log"]).exists()


def test_a_selection_of_nothing_is_a_mistake_unless_it_is_meant(prefect_server: str, target: str) -> None:
    arguments = ["run", "--target", target, *project("shop"), "--select", "ordres"]
    done = flows(*arguments)
    assert done.returncode == 2
    assert "ordres, which matches no node" in done.stderr
    assert "Did you mean orders?" in done.stderr
    assert flows(*arguments, "--allow-nothing").returncode == 0


def test_a_plan_is_a_table_for_people_and_a_document_for_programs() -> None:
    arguments = ["plan", *project("shop"), "--select", "+orders"]
    shown, document = flows(*arguments), flows(*arguments, "--json")
    assert shown.returncode == document.returncode == 0, shown.stderr + document.stderr
    assert "Nothing was executed." in shown.stdout
    nodes: dict[str, dict[str, Any]] = {node["name"]: node for node in json.loads(document.stdout)["nodes"]}
    assert nodes["orders"]["action"] == "rebuild the table"
    assert nodes["raw_orders"]["reason"] == "upstream of orders"
    assert nodes["raw_orders"]["step"] < nodes["stg_orders"]["step"] < nodes["orders"]["step"]
    assert "customers" not in nodes
    assert len([line for line in shown.stdout.splitlines() if line[:1].isdigit()]) == len(nodes) + 1


@pytest.mark.slow
def test_what_did_not_change_is_not_built_again_and_a_plan_says_why(prefect_server: str, set_up_target: Any) -> None:
    arguments = ["--target", set_up_target(), *project("shop"), "--select", "+stg_orders", "--changed"]
    first, second = flows("run", *arguments, "--json"), flows("run", *arguments)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert json.loads(first.stdout)["counts"]["succeeded"] == 2
    assert "Nothing to build: all 2 nodes are as code and data would make them." in second.stderr + second.stdout
    planned = json.loads(flows("plan", *arguments, "--json").stdout)
    assert {node["name"]: (node["action"], node["step"]) for node in planned["nodes"]} == {
        "raw_orders": ("nothing: it is reused", 0),
        "stg_orders": ("nothing: it is reused", 0),
    }
    assert all(node["reason"].startswith("nothing changed since 20") for node in planned["nodes"])


def test_ways_of_leaving_nodes_out_that_contradict_each_other_are_refused() -> None:
    for arguments in (["run", "--changed", "--resume"], ["plan", "--changed", "--defer-to", "prod"]):
        done = flows(*arguments, *project("shop"), *(["--no-data"] if arguments[0] == "run" else []))
        assert done.returncode == 2
        assert "--changed" in done.stderr


def test_loaders_give_one_document_to_a_program(prefect_server: str, target: str, tmp_path: Path) -> None:
    repository = GeneratedRepository.new(tmp_path / "made")
    repository.write("a.txt", "one\n")
    repository.commit("Begin")
    ingested = flows("ingest-git", "--target", target, "--repo", str(repository.folder), "--json")
    written = flows("sample-data", "--target", target, "--rows", "500", "--json")
    assert ingested.returncode == written.returncode == 0, ingested.stderr + written.stderr
    assert [found["name"] for found in json.loads(ingested.stdout)["repositories"]] == ["made"]
    assert sum(json.loads(written.stdout)["tables"].values()) >= 400


def test_a_repository_that_is_not_there_ends_with_2(prefect_server: str, target: str, tmp_path: Path) -> None:
    done = flows("ingest-git", "--target", target, "--repo", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "nowhere" in done.stderr
