"""What makes a flow tell when it fails, crashes or is cancelled, and when it is well again."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flows.alerts.flow_runs import link_to, retry_command, target_of, telling, tells_at_its_end
from flows.alerts.incident import Incident, Severity
from flows.alerts.incident_store import book_of
from flows.alerts.notify import Unsent, deliver, write_down
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.reporting import current_reporter
from flows.engine.sinks.last_state import keep_last_state
from infrastructure.errors import ConfigError, DbtRunFailed, PayrollStopped, TributaryError, preview
from infrastructure.plain_text import markdown_code, markdown_text, one_line
from infrastructure.server.automations import TOLD_EVENT, UNSENT_EVENT

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

P = ParamSpec("P")
R = TypeVar("R")


def with_alerts(flow: Flow[P, R]) -> Flow[P, R]:
    """Make a flow tell how it ended; put it above `@flow`.

        @with_alerts
        @flow
        def nightly(target: str = "dev") -> None: ...

    What its dbt nodes came to is told with it, in one message at the end of the run. The target is the flow's
    parameter of that name. What a process that was killed can't tell any more, the server's automations do. And so that
    it tells how it ended, and not how the server was, its last state is asked for again; see `last_state`. A flow that
    tells already stays as it is: told twice, it would wait twice for a destination that is away.
    """
    if tells_at_its_end(flow):
        return flow
    flow.on_running(keep_last_state)
    flow.on_completion(tell_completed)
    flow.on_failure(tell_failed)
    flow.on_crashed(tell_crashed)
    flow.on_cancellation(tell_cancelled)
    return flow


def tell_completed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Say that a flow that failed before is well again."""
    _tell(flow, flow_run, None)


@telling
def tell_failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Say that a flow failed, where incidents do not say it already."""
    error = _exception_of(state)
    if flow_run.deployment_id is None and isinstance(error, ConfigError | PayrollStopped):
        return  # Whoever gave the command has the answer before them; nothing that runs by itself is broken.
    is_told_by_nodes = isinstance(error, DbtRunFailed) and isinstance(error.result, DbtResult)
    is_told = is_told_by_nodes or (isinstance(error, TributaryError) and error.is_told)
    ending = None if is_told else _Ending("error", "failed", str(error or state.message or ""))
    _tell(flow, flow_run, ending, is_ok=False)


def tell_crashed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Say that the process of a flow was ended from outside; the worker calls it where the process could not."""
    _tell(flow, flow_run, _Ending("error", "crashed", state.message or ""), is_ok=False)


def tell_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Say that somebody cancelled a flow, so that what it was to build is not built."""
    _tell(flow, flow_run, _Ending("warning", "was cancelled", state.message or ""), is_ok=False)


@dataclass(frozen=True)
class _Ending:
    """How a flow ended that did not end well."""

    severity: Severity
    verb: str
    text: str


def _tell(flow: Flow[..., Any], flow_run: FlowRun, ending: _Ending | None, is_ok: bool = True) -> None:
    try:
        target = target_of(flow, flow_run)
        # A flow inside a flow leaves it to the outer one to say what its failure means.
        if flow_run.parent_task_run_id is None:
            key = f"flow/{flow.name}"
            opened = [_incident(key, flow, flow_run, target, ending)] if ending else []
            write_down(target, opened, [] if ending else [key])
        unsent = deliver(target)
        if unsent:
            _publish(target, flow_run, unsent)
            _emit(UNSENT_EVENT, flow_run, {"text": _summary(target, unsent)})
        elif not is_ok:
            _emit(TOLD_EVENT, flow_run, {})
    except Exception as exc:  # noqa: BLE001  (a hook that raises would only leave a traceback in the log)
        current_reporter().note(f"Nobody was told how {flow.name} ended: {one_line(str(exc))}")


def _incident(key: str, flow: Flow[..., Any], flow_run: FlowRun, target: str, ending: _Ending) -> Incident:
    return Incident(
        key=key,
        severity=ending.severity,
        title=f"{flow.name} {ending.verb}",
        text=ending.text,
        target=target,
        tags=tuple(flow_run.tags),
        link=link_to(flow_run),
        retry_command=retry_command(flow, flow_run),
    )


def _exception_of(state: State[Any]) -> BaseException | None:
    # Where results are persisted, the exception is inside of a record.
    found = getattr(state.data, "result", state.data)
    return found if isinstance(found, BaseException) else None


def _publish(target: str, flow_run: FlowRun, unsent: Sequence[Unsent]) -> None:
    """Put what could not be sent into the run's report."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate

    lines = "\n".join(f"- {markdown_text(str(entry))}" for entry in unsent)
    head = f"## Alerts of {markdown_code(target)} that were not sent"
    text = f"{head}\n\n{lines}\n\nThey are owed, and sent with the next run."
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
    entries = book_of(target, os.environ).read().incidents.values()
    titles = [entry.incident.title for entry in entries if entry.closed_at is None]
    where = "; ".join(str(entry) for entry in unsent)
    return f"On {target or 'no target'}: {preview(titles)}.\nNot sent to {where}"


def _emit(event: str, flow_run: FlowRun, payload: dict[str, str]) -> None:
    """Let the server know whether people have been told; where not, its automation tells them."""
    from prefect.events import emit_event

    emit_event(event, resource={"prefect.resource.id": f"prefect.flow-run.{flow_run.id}"}, payload=payload)
