"""Begin runs again that were left as they are: the net below the automations of `resume_after_crash`.

An automation acts on events. An event is lost where the server's message broker dies in that very second, and there is
none for a run that a worker took and never began. So runs that begin look after what others left, by the states and the
signs of life that the server keeps in its database. A run that is begun again in this way goes on by the rules of
`flows.pipelines.after_crash`.

Importing this module is cheap: Prefect is imported in the functions that take its client.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import zip_longest
from typing import TYPE_CHECKING

from infrastructure.server.automations import (
    MOST_RESUMES,
    RESUMES_TAG,
    RESUMING,
    SAID_GONE,
    times_resumed,
    will_be_resumed,
)
from infrastructure.server.slots import START_TERMS, holding

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

# The label with which a run that goes on says when it last lived, by the server's clock (`flows.engine.sinks`).
ALIVE = "tributary.alive-at"

_LIMIT, _SIGN = "tributary-left-runs", "tributary_left_runs"
_PAGE = 200
# What a worker writes to a run that it takes.
_WORKER, _KIND, _POOL = "prefect.worker.name", "prefect.worker.type", "prefect.work-pool.name"
_GONE = "The worker that had taken it was gone before it began."
_SILENT = f"It has given no sign of life for minutes{SAID_GONE}"


@dataclass(frozen=True)
class Waits:
    """How long, in seconds, a run is left to those who are there for it.

    Attributes:
        crashed: a crashed run to the automations of `resume_after_crash`, which need half a minute and are late on a
            busy server. One that is begun again twice at once does its work once all the same: see `after_crash`.
        taken: a run that was taken by a worker that gives no heartbeat any more; the server calls a worker gone after
            three of them, which is a minute and a half.
        stuck: a run that was taken and of which nothing was started, whatever its worker says: one that was started
            again under its name knows nothing of it.
        silent: a run that goes on and gives no sign of life any more, which it does every half minute. One that can't
            reach the server for so long has lost its target.
        forgotten: what is older than this is left alone.
    """

    crashed: float = 180.0
    taken: float = 120.0
    stuck: float = 600.0
    silent: float = 180.0
    forgotten: float = 24 * 3600.0


def begin_left_runs_again(client: SyncPrefectClient, waits: Waits | None = None) -> list[str]:
    """Begin runs again that crashed, or whose worker was gone before they began; return their names.

    Runs of deployments with `resume_after_crash` alone, and as often as that says. One that goes on by its state and
    gives no sign of life is called crashed: then its automation begins it again, or the next look, or it says that it
    lives. One request is all of it where nothing crashed within a day and nothing goes on.

    Args:
        client: looks; what is changed is changed by a client of its own.

    Raises:
        httpx.HTTPError: the server does not answer.
        UpstreamUnavailable: it answers too slowly to tell that no other process does the same.
    """
    from prefect.client.orchestration import get_client

    from infrastructure.server.client import Server

    waits = waits or Waits()
    if not _left(client, waits):
        return []
    with get_client(sync_client=True) as own, holding(Server(own), _LIMIT, _SIGN, START_TERMS) as require_held:
        begun: list[str] = []
        # Another process may have begun some of them since.
        for run in _left(own, waits):
            require_held()
            if _begin_again(own, run):
                begun.append(run.name)
        return begun


def _left(client: SyncPrefectClient, waits: Waits) -> list[FlowRun]:
    """Return the runs that were left as they are."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    since = datetime.now(UTC) - timedelta(seconds=waits.forgotten)
    states = (StateType.CRASHED, StateType.PENDING, StateType.RUNNING)
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
            tags=FlowRunFilterTags(any_=[f"{RESUMES_TAG}{times}" for times in range(1, MOST_RESUMES + 1)]),
            expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"after_": since}),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=_PAGE,
    )
    found = [run for run in found if run.state and (not run.state.is_crashed() or _may_go_on(run))]
    if not found:
        return []
    now = _server_time(client)
    return [run for run in found if _is_left(client, run, now, waits)]


def _may_go_on(run: FlowRun) -> bool:
    # Between the two states that `_begin_again` sets, its own process can be killed too.
    return will_be_resumed(run.tags, run.run_count) or bool(run.state and run.state.message == _GONE)


def _is_left(client: SyncPrefectClient, run: FlowRun, now: datetime, waits: Waits) -> bool:
    assert run.state is not None
    age = (now - run.state.timestamp).total_seconds()
    if run.state.is_crashed():
        return age > waits.crashed and _times_begun_again(client, run) < times_resumed(run.tags)
    if run.state.is_running():
        alive_at = run.labels.get(ALIVE)
        # One without was begun by a version that gives none.
        return alive_at is not None and (now - datetime.fromisoformat(str(alive_at))).total_seconds() > waits.silent
    if age <= waits.taken or (run.infrastructure_pid and run.labels.get(_KIND, "process") != "process"):
        # What was started elsewhere than on the worker's own machine can begin without it.
        return False
    pool = run.labels.get(_POOL) or run.work_pool_name
    workers = client.read_workers_for_work_pool(str(pool)) if pool else []
    taken_by = run.labels.get(_WORKER)
    is_gone = bool(taken_by) and not any(it.name == taken_by and it.status == "ONLINE" for it in workers)
    # A pool without any worker is one whose runs Prefect Cloud starts by itself.
    return (is_gone or age > waits.stuck) and bool(workers)


def _begin_again(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Have a run begun again, and return whether the server did so."""
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.states import Crashed, Scheduled

    assert run.state is not None
    if run.state.is_running():
        # It may have come to its end since.
        now = client.read_flow_run(run.id).state
        if now and now.id == run.state.id:
            client.set_flow_run_state(run.id, Crashed(message=_SILENT))
        return False
    what = "No automation began it again"
    if run.state.is_pending():
        what = "It had not begun"
        # On its way it gives back its place among the runs of its deployment, and a person is told where it ends here.
        crashed = client.set_flow_run_state(run.id, Crashed(message=_GONE))
        if crashed.status != SetStateStatus.ACCEPT or _times_begun_again(client, run) >= times_resumed(run.tags):
            return False
    said = f"Its process was gone. {what}: it is begun again."
    resuming = Scheduled(name=RESUMING, message=said, scheduled_time=_server_time(client))
    return client.set_flow_run_state(run.id, resuming).status == SetStateStatus.ACCEPT


def _times_begun_again(client: SyncPrefectClient, run: FlowRun) -> int:
    states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
    # One that is followed by "Running" was taken back by the run itself, which lived.
    return sum(
        state.name == RESUMING and not (after and after.is_running())
        for state, after in zip_longest(states, states[1:])
    )


def _server_time(client: SyncPrefectClient) -> datetime:
    """Return the time by the server's clock, which states have; this machine's can be wrong."""
    return parsedate_to_datetime(client.request("GET", "/health").headers["Date"])
