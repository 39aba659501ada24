"""The events of a run, for sinks of one's own; see docs/events.md."""

from flows.engine.ledger.stream import (
    NodeEnded,
    NodesPlanned,
    NodesReused,
    NodeStarted,
    RunEnded,
    RunEvent,
    RunStarted,
)

__all__ = ["NodeEnded", "NodeStarted", "NodesPlanned", "NodesReused", "RunEnded", "RunEvent", "RunStarted"]
