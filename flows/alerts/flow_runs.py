"""What an alert says about a Prefect flow run: its target, its page, the command that runs it again."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from flows.alerts.retry_command import of_deployment, of_pipeline
from flows.engine.context.packages import NO_DEPS_VARIABLE
from infrastructure.commands import given_workspace
from infrastructure.program import PROGRAM_VARIABLE

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

PIPELINE = "dbt-full-pipeline"
_SERVER_SECONDS = 3.0

Hook = TypeVar("Hook", bound=Callable[..., None])
_FAILURE_ALERTS: list[object] = []


def target_of(flow: Flow[..., Any], flow_run: FlowRun) -> str:
    """Return the target of a flow run; "" for a flow without one."""
    target = (flow_run.parameters or {}).get("target", _accepted(flow).get("target"))
    return target if isinstance(target, str) else ""


def failure_alert(hook: Hook) -> Hook:
    """Mark a hook that sends an alert when its flow fails."""
    _FAILURE_ALERTS.append(hook)
    return hook


def has_alerts(flow: Flow[..., Any]) -> bool:
    """Return whether a flow sends alerts when it ends."""
    return any(hook in _FAILURE_ALERTS for hook in flow.on_failure_hooks)


def is_sent_at_flow_end(target: str) -> bool:
    """Return whether the current flow run sends the alerts of a target when it ends."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        return False
    return has_alerts(context.flow) and target_of(context.flow, context.flow_run) == target


def link_to(flow_run: FlowRun) -> str | None:
    """Return the page of a flow run in Prefect's UI; None without a server that has one."""
    from prefect.utilities.urls import url_for

    return url_for("flow-run", obj_id=flow_run.id)


def retry_command(flow: Flow[..., Any], flow_run: FlowRun, without_freshness: bool = False) -> str | None:
    """Return the command that runs the rest of a flow run again; None where only its caller knows it.

    Args:
        without_freshness: run all of it, however old the sources are.
    """
    accepted, given = _accepted(flow), dict(flow_run.parameters or {})
    if without_freshness:
        if "freshness" not in accepted:
            return None
        given = {**given, "freshness": False}
        accepted.pop("resume", None)
    if flow_run.deployment_id is not None:
        name = _deployment_name(flow_run)
        return of_deployment(flow.name, name, accepted, given) if name else None
    return in_the_same_manner(of_pipeline(accepted, given)) if flow.name == PIPELINE else None


def in_the_same_manner(command: str) -> str:
    """Return a command line with what this process was given beside the parameters: a workspace, a dbt, its manner."""
    dbt = os.environ.get(PROGRAM_VARIABLE)
    words = [*given_workspace(), *(("--dbt", shlex.quote(dbt)) if dbt else ())]
    words += ["--no-deps"] if os.environ.get(NO_DEPS_VARIABLE) else []
    return " ".join([command, *words])


def _accepted(flow: Flow[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(flow.fn).parameters.values()
    return {
        parameter.name: None if parameter.default is inspect.Parameter.empty else parameter.default
        for parameter in parameters
    }


def _deployment_name(flow_run: FlowRun) -> str | None:
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True, httpx_settings={"timeout": _SERVER_SECONDS}) as client:
            return client.read_deployment(flow_run.deployment_id).name if flow_run.deployment_id else None
    except Exception:  # noqa: BLE001  (an alert without this command is better than none)
        return None
