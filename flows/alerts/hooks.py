"""Make a flow send an alert when it fails, crashes or is cancelled, and when it succeeds again."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flows.alerts.flow_runs import failure_alert, has_alerts, link_to, retry_command, target_of
from flows.alerts.incident import Incident, Severity
from flows.alerts.incident_store import store_of
from flows.alerts.notify import Unsent, deliver, write_down
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.project import project_folder, read_project
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import state_of
from flows.engine.sinks.last_state import keep_last_state
from flows.engine.sinks.light_flow import lighten
from flows.engine.sinks.stopping import stoppable
from infrastructure.errors import ConfigError, DbtRunFailed, PayrollStopped, TributaryError, preview
from infrastructure.plain_text import markdown_code, markdown_text, one_line
from infrastructure.server.automations import TOLD_EVENT, UNSENT_EVENT, will_be_resumed
from infrastructure.server.away import not_waiting_for_one_away

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

P = ParamSpec("P")
R = TypeVar("R")


def with_alerts(flow: Flow[P, R]) -> Flow[P, R]:
    """Make a flow send alerts about how it ended; put it above `@flow`.

        @with_alerts
        @flow
        def nightly(target: str = "dev") -> None: ...

    One message at the end of the run also names the dbt nodes that failed or warned. The target is the flow's parameter
    of that name. For a process that was killed, the server's automations send the alert. The flow's last state is
    requested again before it is reported; see `last_state`. A stop ends the flow run Cancelled; see `stopping`. What
    takes Prefect long for nothing is left out; see `light_flow`. A flow that has alerts already stays as it is: twice,
    it would wait twice for a destination that does not answer.
    """
    if has_alerts(flow):
        return flow
    if not flow.isasync and not flow.isgenerator:
        flow.fn = stoppable(flow.fn)
    lighten(flow)
    flow.on_running(keep_last_state)
    flow.on_running(look_after_left_runs)
    flow.on_completion(tell_completed)
    flow.on_failure(tell_failed)
    flow.on_crashed(tell_crashed)
    flow.on_cancellation(tell_cancelled)
    return flow


def look_after_left_runs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Begin runs again that were left crashed or not begun, where a run of a deployment begins; see `left_runs`."""
    from prefect.context import SyncClientContext

    from flows.engine.target.server_lease import asking
    from infrastructure.server.left_runs import begin_left_runs_again

    context = SyncClientContext.get()
    if context is None or flow_run.deployment_id is None or flow_run.parent_task_run_id is not None:
        return
    try:
        with asking(once=True):
            begun = begin_left_runs_again(context.client)
    except Exception as exc:  # noqa: BLE001  (it is not this run's own work, and the next run looks again)
        current_reporter().note(
            f"Runs that were left crashed or not begun could not be looked for: {one_line(str(exc))}"
        )
    else:
        for name in begun:
            current_reporter().note(
                f"The process of flow run {name} is gone, and no automation began it again: this run did."
            )


def tell_completed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Close the alert of a flow that failed before."""
    _tell(flow, flow_run, None)


@failure_alert
def tell_failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Send an alert for a flow that failed, unless incidents of its nodes say it already."""
    error = _exception_of(state)
    if flow_run.deployment_id is None and isinstance(error, ConfigError | PayrollStopped):
        return  # The error is on the caller's terminal; nothing that runs on a schedule is broken.
    is_told_by_nodes = isinstance(error, DbtRunFailed) and isinstance(error.result, DbtResult)
    is_told = is_told_by_nodes or (isinstance(error, TributaryError) and error.is_told)
    ending = None if is_told else _Ending("error", "failed", str(error or state.message or ""))
    _tell(flow, flow_run, ending, is_ok=False)


def tell_crashed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Send an alert for a flow whose process was ended from outside; called by the worker if the process can't.

    One that goes on by itself needs no alert yet; when it does not, the server's automation sends it.
    """
    if will_be_resumed(flow_run.tags, flow_run.run_count):
        return
    _tell(flow, flow_run, _Ending("error", "crashed", state.message or ""), is_ok=False)


def tell_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Send an alert for a flow that was cancelled: what it builds is not up to date."""
    _tell(flow, flow_run, _Ending("warning", "was cancelled", state.message or ""), is_ok=False)


@dataclass(frozen=True)
class _Ending:
    """How a flow ended that did not succeed."""

    severity: Severity
    verb: str
    text: str


def _tell(flow: Flow[..., Any], flow_run: FlowRun, ending: _Ending | None, is_ok: bool = True) -> None:
    try:
        with not_waiting_for_one_away():
            target = target_of(flow, flow_run)
            # The outermost flow alone decides what the failure of a flow inside it means.
            if flow_run.parent_task_run_id is None:
                keys = _keys(flow, flow_run, target)
                opened = [_incident(keys[0], flow, flow_run, target, ending)] if ending else []
                write_down(target, opened, [] if ending else keys)
            unsent = deliver(target)
            if unsent:
                _publish(target, flow_run, unsent)
                _emit(UNSENT_EVENT, flow_run, {"text": _summary(target, unsent)})
            elif not is_ok:
                _emit(TOLD_EVENT, flow_run, {})
    except Exception as exc:  # noqa: BLE001  (a hook that raises would only leave a traceback in the log)
        current_reporter().note(f"No alert was sent about how {flow.name} ended: {one_line(str(exc))}")


def _keys(flow: Flow[..., Any], flow_run: FlowRun, target: str) -> list[str]:
    """Return the key of the incidents of a flow, then others that it can have been given before.

    The workspace's own project needs no name. A flow of another one, which can be built on the same target, has its
    project's; or what it was given as, where the project could not be read.
    """
    key, given = f"flow/{flow.name}", (flow_run.parameters or {}).get("project_dir")
    if not isinstance(given, str) or not given:
        return [key]
    keys = [f"{key} of {given}"]
    with suppress(TributaryError):
        keys.insert(0, f"{key} of {state_of(read_project(given), target, os.environ).project}")
        if project_folder(given) == project_folder(None):
            keys.insert(0, key)
    # An earlier version knew no projects here: what it opened is this flow's where the same command does it again.
    earlier = None if key in keys else store_of(target, os.environ).read().incidents.get(key)
    if earlier and (command := earlier.incident.retry_command):
        keys += [key] if command == retry_command(flow, flow_run) else []
    return keys


def _incident(key: str, flow: Flow[..., Any], flow_run: FlowRun, target: str, ending: _Ending) -> Incident:
    return Incident(
        key=key,
        severity=ending.severity,
        title=f"{key.removeprefix('flow/')} {ending.verb}",
        text=ending.text,
        target=target,
        tags=tuple(flow_run.tags),
        link=link_to(flow_run),
        retry_command=retry_command(flow, flow_run),
    )


def _exception_of(state: State[Any]) -> BaseException | None:
    # Where results are persisted, the exception is inside a record.
    found = getattr(state.data, "result", state.data)
    return found if isinstance(found, BaseException) else None


def _publish(target: str, flow_run: FlowRun, unsent: Sequence[Unsent]) -> None:
    """Create an artifact of the flow run that lists the alerts that were not sent."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate

    lines = "\n".join(f"- {markdown_text(str(entry))}" for entry in unsent)
    head = f"## Alerts of {markdown_code(target)} that were not sent"
    text = f"{head}\n\n{lines}\n\nThey are sent with the next run."
    artifact = ArtifactCreate(
        key=re.sub(r"[^a-z0-9]+", "-", f"alerts-{target}".lower()).strip("-"),
        type="markdown",
        description=f"Alerts of {target} that were not sent",
        data=text,
        flow_run_id=flow_run.id,
    )
    with get_client(sync_client=True) as client:
        client.create_artifact(artifact)


def _summary(target: str, unsent: Sequence[Unsent]) -> str:
    entries = store_of(target, os.environ).read().incidents.values()
    titles = [entry.incident.title for entry in entries if entry.closed_at is None]
    where = "; ".join(str(entry) for entry in unsent)
    return f"On {target or 'no target'}: {preview(titles)}.\nNot sent to {where}"


def _emit(event: str, flow_run: FlowRun, payload: dict[str, str]) -> None:
    """Emit an event that says whether alerts were sent; if not, an automation of the server sends one."""
    from prefect.events import emit_event

    emit_event(event, resource={"prefect.resource.id": f"prefect.flow-run.{flow_run.id}"}, payload=payload)
