"""A run whose process is killed, and the one that resumes it, as OpenLineage is told of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.context.project import read_project
from flows.engine.context.state import state_of
from flows.engine.sinks.following import send_the_rest
from flows.engine.sinks.sink import kinds
from tests.support.lineage_receiver import lineage_receiver
from tests.support.processes import wait_until
from tests.support.projects import PROJECTS

# Minutes of work for DuckDB.
LONG = "select count(*) as n from range(20000000000) t(i) where hash(i) % 7 = 3"
RUN = """
import sys
from pathlib import Path
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.run import run_dbt
from tests.support.projects import profile_in

place = RunContext(read_project(Path(sys.argv[1])), profile_in(Path(sys.argv[2])))
run_dbt(DbtCommand("build"), place, RunOptions(resume="resume" in sys.argv))
"""


@pytest.mark.slow
def test_a_killed_run_is_aborted_by_the_run_that_resumes_it_and_no_event_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "bare"
    shutil.copytree(PROJECTS / "bare", project)
    models = project / "models"
    shutil.rmtree(models, ignore_errors=True)
    models.mkdir()
    (models / "first.sql").write_text("select 1 as id")
    second = models / "second.sql"
    second.write_text("{{ config(materialized='table') }} -- {{ ref('first') }}\n" + LONG)
    with lineage_receiver() as receiver:
        environment = os.environ | {"OPENLINEAGE_URL": receiver.url, "TRIBUTARY_STATE": str(tmp_path / "state")}
        words = [sys.executable, "-c", RUN, str(project), str(tmp_path)]
        process = subprocess.Popen(words, env=environment | {"PYTHONPATH": os.getcwd()})
        wait_until(lambda: "model.bare.second" in receiver.of("START"), "the second model has begun")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert {event["eventType"] for event in receiver.events} == {"START"}

        second.write_text(second.read_text().replace(LONG, "select 1 as n"))
        subprocess.run([*words, "resume"], env=environment | {"PYTHONPATH": os.getcwd()}, check=True)
        # A busy machine's run may end before all of its events are taken; what is left is sent as `replay` does it.
        monkeypatch.setenv("OPENLINEAGE_URL", receiver.url)
        state = state_of(read_project(project), "dev", {"TRIBUTARY_STATE": str(tmp_path / "state")})
        for run_path in state.runs():
            send_the_rest(run_path, kinds()["openlineage"], Artifacts(state.target_path))

    told = [(event["eventType"], event["job"]["name"].split(".", 2)[-1]) for event in receiver.events]
    assert sorted(told) == [
        ("ABORT", "dbt-build"),
        ("ABORT", "model.bare.second"),
        ("COMPLETE", "dbt-build"),
        ("COMPLETE", "model.bare.first"),
        ("COMPLETE", "model.bare.second"),
        ("START", "dbt-build"),
        ("START", "dbt-build"),
        ("START", "model.bare.first"),
        ("START", "model.bare.second"),
        ("START", "model.bare.second"),
    ]
    assert len(set(receiver.keys())) == len(told)
    assert receiver.of("ABORT")["dbt-build"]["run"]["runId"] != receiver.of("COMPLETE")["dbt-build"]["run"]["runId"]
