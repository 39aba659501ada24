"""What an alert says about a Prefect flow run: its target, its page, the command that starts it again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from flows.alerts.retry_command import of_deployment, of_pipeline

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

PIPELINE = "dbt-full-pipeline"
_SERVER_SECONDS = 3.0

Hook = TypeVar("Hook", bound=Callable[..., None])
_TELLING: list[object] = []


def target_of(flow: Flow[..., Any], flow_run: FlowRun) -> str:
    """Return the target that a flow run works on; "" for a flow that works on none."""
    target = (flow_run.parameters or {}).get("target", _accepted(flow).get("target"))
    return target if isinstance(target, str) else ""


def telling(hook: Hook) -> Hook:
    """Mark a hook that, on the failure of a flow, tells of it."""
    _TELLING.append(hook)
    return hook


def tells_at_its_end(flow: Flow[..., Any]) -> bool:
    """Say whether a flow has been made to tell how it ended."""
    return any(hook in _TELLING for hook in flow.on_failure_hooks)


def is_told_at_the_end(target: str) -> bool:
    """Say whether the flow run that this code is in tells of a target by itself, when it ends."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        return False
    return tells_at_its_end(context.flow) and target_of(context.flow, context.flow_run) == target


def link_to(flow_run: FlowRun) -> str | None:
    """Return the page of a flow run in Prefect's UI; None without a server that has one."""
    from prefect.utilities.urls import url_for

    return url_for("flow-run", obj_id=flow_run.id)


def retry_command(flow: Flow[..., Any], flow_run: FlowRun) -> str | None:
    """Return what to type to run it again on what it left undone; None where only its caller knows."""
    accepted, given = _accepted(flow), dict(flow_run.parameters or {})
    if flow_run.deployment_id is not None:
        name = _deployment_name(flow_run)
        return of_deployment(flow.name, name, accepted, given) if name else None
    return of_pipeline(accepted, given) if flow.name == PIPELINE else None


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
