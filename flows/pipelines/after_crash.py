"""A flow run whose process was killed and that the server has begun again: it goes on with what it left undone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import LEDGER, State, shared_target
from flows.engine.ledger.ledger import read_ledger
from flows.engine.ledger.resume import fingerprint, name_of_run
from infrastructure.errors import RunStopped
from infrastructure.server.automations import RESUMING, times_resumed

if TYPE_CHECKING:
    from uuid import UUID

# Commands that change tables of the target.
_WRITERS = frozenset({"build", "run", "seed", "snapshot"})


def after_crash(options: RunOptions, command: DbtCommand, run: RunContext) -> RunOptions:
    """Return the options of a command of a flow run; where the server has begun that again, to go on with its own run.

    However it was begun, it goes on only where no other run has written to the target since. Call it while the target
    is held, so that no other run begins to write in between.

    Raises:
        RunStopped: another run has written to the target since, so that what this one left is not known to be missing.
    """
    since = _left_since()
    if since is None:
        return options
    # Another machine may have run while this one waited for the target: a look of a moment ago is too old.
    shared_target(run.state, os.environ, is_run=True)
    own, other = last_runs(run.state, run.run_id, command, since)
    if other is not None:
        raise RunStopped(
            f"The process of this run was killed, and it does not go on by itself: the run of {name_of_run(other)} has "
            f"written to target {run.target} since. Run it again from the start where it is still needed."
        )
    if own is None:
        return options
    run.reporter.note(
        f"The process of this run was killed. It goes on by itself with what the run of {name_of_run(own)} left undone."
    )
    # What was cut off is built by --changed anyway.
    return options if options.changed or options.resume else replace(options, resume=True)


def _left_since() -> datetime | None:
    """Return from when on the flow run that this code runs in has been left alone; None unless it goes on by itself."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    if flow_run is None or not times_resumed(flow_run.tags):
        return None
    return _left_since_by_states(flow_run.id, flow_run.run_count, flow_run.start_time)


# Each command of a flow asks.
@lru_cache(maxsize=8)
def _left_since_by_states(run_id: UUID, run_count: int, started_at: datetime | None) -> datetime | None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        states = sorted(client.read_flow_run_states(run_id), key=lambda state: state.timestamp)
    # A retry, by the flow itself or by a person, has a name of its own.
    # "Resuming" that is followed by "Running" was taken back by the run itself, which lived (`sinks.sign_of_life`).
    begun = [
        it.name
        for it, after in pairwise(states)
        if it.is_scheduled() and not (it.name == RESUMING and after.is_running())
    ]
    if not begun or begun[-1] != RESUMING:
        return None
    # One that a worker had taken, and that was killed with it, has not begun before.
    taken_at = next((state.timestamp for state in states if state.is_pending()), None)
    return taken_at if run_count < 2 and taken_at else started_at


def last_runs(
    state: State, run_id: str, command: DbtCommand, since: datetime | None
) -> tuple[Path | None, Path | None]:
    """Return the last run of this command by a flow run, and the last that another has begun to write with since."""
    for run_path, head in _heads(state):
        if head.get("run_id") == run_id:
            if head["command"] == fingerprint(command):
                return run_path, None
        elif since is not None and head["at"] < since:
            return None, None
        elif head["command"].get("verb") in _WRITERS:
            return None, run_path
    return None, None


def _heads(state: State) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for run_path in reversed(state.runs()):
        if not (ledger := run_path / LEDGER).exists():
            continue
        head = next(read_ledger(ledger), {})
        if head.get("kind") == "run":
            yield run_path, head
