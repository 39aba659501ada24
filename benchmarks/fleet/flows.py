"""What the workers of benchmarks.fleet run: each run leaves a mark when its work begins and when it is done."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.alerts.hooks import with_alerts
from flows.pipelines import tasks

MARKS_VARIABLE = "TRIBUTARY_BENCH_MARKS"


@flow
def empty() -> None:
    """Do nothing but leave its marks."""
    _mark("begun")
    _mark("done")


@with_alerts
@flow
def build(target: str, project_dir: str) -> None:
    """Build a dbt project on a target, and leave a mark before and after."""
    _mark("begun")
    # In this flow run itself, which is the one that goes on by itself.
    tasks.build(target, project_dir=project_dir)
    _mark("done")


@with_alerts
@flow
def look() -> None:
    """Do nothing: like each run of a deployment that begins, it looks after those that others left."""


def _mark(kind: str) -> None:
    line = json.dumps({"run": flow_run.get_id(), "kind": kind, "process": os.getpid(), "at": time.time()})
    # One write to a file that is only added to: whole or not at all, whoever else writes.
    file = os.open(Path(os.environ[MARKS_VARIABLE]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)
