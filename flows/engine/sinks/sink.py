"""What a sink is: who else is told what happens in a run. One file each, and one setting, which is its own tool's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.ledger.stream import RunEvent, RunStarted


class Sink(Protocol):
    """Take the events of a run, one after the other."""

    def take(self, run: RunStarted, event: RunEvent) -> None:
        """Send an event of a run, or raise what says why it was not taken; it comes again then.

        Args:
            run: how the run began, which another process may have sent.
        """
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


# Makes a sink for one run, in the thread that uses it; the artifacts are those of the run's project and target.
OpenSink = Callable[[Artifacts], Sink]


@dataclass(frozen=True)
class Kind:
    """A kind of sink.

    Attributes:
        name: what people call it, as in `events replay --to openlineage`.
        title: its name in a sentence.
        module: has `is_asked(environ)` and `open_sink(artifacts)`.
        hint: how to set it up.
    """

    name: str
    title: str
    module: str
    hint: str

    def is_asked(self, environ: Mapping[str, str]) -> bool:
        """Say whether its settings say that it is wanted."""
        return bool(import_module(self.module).is_asked(environ))

    def open(self, artifacts: Artifacts) -> Sink:
        """Return a sink for one run; raises whatever keeps it from being made."""
        sink: Sink = import_module(self.module).open_sink(artifacts)
        return sink


_KINDS = (
    Kind(
        "openlineage",
        "OpenLineage",
        "flows.engine.sinks.open_lineage",
        "set OPENLINEAGE_URL, or name a transport in openlineage.yml.",
    ),
)
KINDS = {kind.name: kind for kind in _KINDS}
