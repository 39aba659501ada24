"""Leave out what Prefect does around a flow run that takes long and is of no use to these flows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from prefect import Flow

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN = (str, int, float, bool, type(None))


def lighten(flow: Flow[P, R]) -> None:
    """Have the runs of a flow begin sooner; for `with_alerts`."""
    flow.serialize_parameters = partial(_serialized, flow)  # type: ignore[method-assign]


def let_heartbeats_be() -> None:
    """Have a flow run that begins end without its thread of heartbeats, which looks up once a second.

    Prefect waits for that thread after the last state, half a second on average (3.8.8, 2026-11-28), and not in flows
    that are `async`. It has been told to end, and is no reason for the process to go on.
    """
    from prefect import flow_engine

    heartbeats = getattr(flow_engine, "_send_heartbeats", None)
    if heartbeats is not None and not isinstance(heartbeats, partial):
        cast(Any, flow_engine)._send_heartbeats = partial(heartbeats, join_on_exit=False)


def _serialized(flow: Flow[..., Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON has them; those that are so already need no FastAPI, whose import takes 0.3 s."""
    if all(map(_is_json, parameters.values())):
        return dict(parameters)
    return cast(Any, type(flow)).serialize_parameters(flow, parameters)


def _is_json(value: object) -> bool:
    if type(value) is dict:
        entries = cast("dict[object, object]", value)
        return all(type(key) is str and _is_json(entry) for key, entry in entries.items())
    if type(value) is list:
        return all(map(_is_json, cast("list[object]", value)))
    return type(value) in _PLAIN
