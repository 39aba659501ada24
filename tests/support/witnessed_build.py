"""A project whose models write down that they ran, and a build of it that is killed in the middle.

It is also the program that is killed: a build as a flow runs it, of the folder that is its argument.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import LEDGER, State, state_of
from flows.engine.run import run_dbt
from flows.engine.target.file_lock import one_writer
from infrastructure.profiles import Profile
from infrastructure.workspace import ROOT
from tests.support.processes import wait_until
from tests.support.stores import put_state, state_variables

MODELS = {
    "first": "select 1 as id",
    "second": "select id from {{ ref('first') }}",
    # Endless until it is told otherwise, by a variable that is no part of the command.
    "endless": "select count(*) as id from range({{ env_var('ROWS') }}) as source(n), {{ ref('second') }} "
    "where sqrt(n) * sqrt(n + 1) >= 0",
    "last": "select id from {{ ref('endless') }}",
}
TESTS = "models: [{name: second, columns: [{name: id, data_tests: [not_null]}]}]\n"


def build(folder: Path, resume: bool = False) -> DbtResult:
    output = {"type": "duckdb", "path": str(folder / "warehouse.duckdb"), "schema": "main", "threads": 2}
    project = read_project(folder / "project")
    profile = Profile("dev", "witnessed", output, {})
    return run_dbt(DbtCommand("build"), RunContext(project, profile), RunOptions(resume=resume, retries=0))


def write_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a project whose models write down, in their own transaction, that they ran; return the folder around it."""
    models = tmp_path / "project" / "models"
    models.mkdir(parents=True)
    for name, sql in MODELS.items():
        (models / f"{name}.sql").write_text(sql)
    (models / "models.yml").write_text(TESTS)
    (models.parent / "dbt_project.yml").write_text(
        "name: witnessed\nversion: '1.0'\nprofile: witnessed\nflags: {send_anonymous_usage_stats: false}\n"
        "models: {witnessed: {+materialized: table, +pre-hook: \"insert into witness values ('{{ this.name }}')\"}}\n"
    )
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("create table witness (name varchar)")
    put_state(monkeypatch, tmp_path / "state")
    monkeypatch.setenv("ROWS", "1000000000000")
    # No flow and no server here: the runs of one machine keep apart by the file alone.
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr("flows.engine.target.file_lock._is_shared_server", lambda: False)
    return tmp_path


def ran(folder: Path) -> dict[str, int]:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        return dict(connection.execute("select name, count(*) from witness group by name").fetchall())


def state_in(folder: Path) -> State:
    return state_of(read_project(folder / "project"), "dev", state_variables(folder / "state"))


def ledger_in(folder: Path) -> str:
    runs = state_in(folder).runs()
    return (runs[-1] / LEDGER).read_text() if runs and (runs[-1] / LEDGER).exists() else ""


def kill_in_the_middle(folder: Path, victim: str, told: Callable[[Path], str] = ledger_in) -> None:
    """Start a build, and kill the flow process or its dbt while the endless model runs.

    Args:
        told: returns the ledger that shows how far it is.
    """
    import psutil

    program = [sys.executable, "-m", "tests.support.witnessed_build", str(folder)]
    process = subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE)
    children: list[psutil.Process] = []

    def is_in_the_middle() -> bool:
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        ledger = told(folder)
        # The model and the test before it have ended, and it has started.
        return ledger.count('"pass"') == 1 and '"name":"endless"' in ledger

    wait_until(is_in_the_middle, "the build reaches the model that does not end")
    # dbt, and where this system has it the process that dbt was forked from, which nobody misses.
    children = psutil.Process(process.pid).children()
    assert children
    for target in {"flow": [process], "dbt": children, "both": [process, *children]}[victim]:
        target.send_signal(signal.SIGKILL)
    process.communicate()
    # Nobody can stop it any more; it has to go by itself, and until then the target is not free.
    psutil.wait_procs(children, timeout=30)
    assert not [child for child in children if psutil.pid_exists(child.pid)]


if __name__ == "__main__":
    with one_writer("dev", holder="the run that will be killed"):
        build(Path(sys.argv[1]))
