"""What a sink is: who else is told what happens in a run. One file each, and one setting, which is its own tool's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.ledger.stream import RunEvent, RunStarted
from infrastructure.workspace import workspace


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
        entry: the function that makes one for a run, as module:function.
        hint: how to set it up; empty for a user's own, which the workspace names.
    """

    name: str
    title: str
    entry: str
    hint: str = ""

    def is_asked(self, environ: Mapping[str, str]) -> bool:
        """Say whether its settings say that it is wanted: its module's `is_asked(environ)`."""
        return not self.hint or bool(import_module(self.entry.partition(":")[0]).is_asked(environ))

    def open(self, artifacts: Artifacts) -> Sink:
        """Return a sink for one run; raises whatever keeps it from being made."""
        if not self.hint and (folder := str(workspace().folder)) not in sys.path:
            # Behind all others, as where its flows are looked for.
            sys.path.append(folder)
        module, _, function = self.entry.partition(":")
        make: OpenSink = getattr(import_module(module), function)
        return make(artifacts)


_OPENLINEAGE = Kind(
    "openlineage",
    "OpenLineage",
    "flows.engine.sinks.open_lineage:open_sink",
    "set OPENLINEAGE_URL, or name a transport in openlineage.yml.",
)


def kinds() -> dict[str, Kind]:
    """Return all kinds of sinks by name, those of the workspace among them.

    Raises:
        ConfigError: the workspace's file can't be read.
    """
    own = {name: Kind(name, f"The sink {name}", entry) for name, entry in workspace().places.sinks.items()}
    return {**own, _OPENLINEAGE.name: _OPENLINEAGE}
