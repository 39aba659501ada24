"""Many nodes as a few bars: in a large run, task runs stand inside one of their folder, which the UI opens on a click.

Prefect's UI draws a task run inside the one that its inputs call `__parents__` (3.8.8). What failed stays in front.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath

from flows.engine.artifacts.results import OUTCOMES, NodeResult
from infrastructure.errors import preview

# A run of fewer nodes, tests included, is drawn node by node: its names can be read.
MOST_SINGLE_NODES = 60
# So many failures have a bar of their own beside the folders.
_MOST_IN_FRONT = 20
# What is deeper belongs to these, so that the graph of most projects has some thirty bars.
_DEPTH = 2
# dbt 2 names a file from the project's folder, dbt 1 from that of the models.
_USUAL_ROOTS = ("models", "seeds", "snapshots", "tests")
_SAID = {"failed": "failed", "skipped": "not run", "warned": "warned"}


@dataclass
class Folder:
    """What came of the nodes of one folder so far.

    Attributes:
        started_at: when the first of them began.
        results: by unique id, of those that ended.
        is_shown: whether the server was told that it runs.
    """

    name: str
    started_at: datetime
    results: dict[str, NodeResult] = field(default_factory=dict[str, NodeResult])
    is_shown: bool = False

    @property
    def key(self) -> str:
        """Return what stands for a unique id where its task run is named."""
        return f"folder:{self.name}"

    @property
    def finished_at(self) -> datetime:
        """Return when the last of its nodes ended."""
        return max((node.finished_at for node in self.results.values()), default=self.started_at)

    def label(self) -> str:
        """Return its name and what a person should look at, as in "marts/shop: 1 failed, 3 not run"."""
        counts = Counter(node.outcome for node in self.results.values())
        bad = ", ".join(f"{counts[outcome]} {said}" for outcome, said in _SAID.items() if counts[outcome])
        return f"{self.name}: {bad}" if bad else f"{self.name} ({len(self.results)})"

    def state(self) -> tuple[str, str]:
        """Return type and name of its state: red where a node failed, grey where one did not run."""
        outcomes = {node.outcome for node in self.results.values()}
        if "failed" in outcomes:
            return "FAILED", "Failed"
        if "skipped" in outcomes:
            return "CANCELLED", "Skipped" if outcomes == {"skipped"} else "Partly skipped"
        return "COMPLETED", "Warned" if "warned" in outcomes else "Completed"

    def message(self) -> str:
        """Return how many of its nodes ended how, and which did not end well."""
        parts = list[str]()
        for outcome in reversed(OUTCOMES):
            names = [node.name for node in self.results.values() if node.outcome == outcome]
            named = f" ({preview(names)})" if outcome != "succeeded" else ""
            parts += [f"{len(names)} {_SAID.get(outcome, outcome)}{named}"] if names else []
        return f"{'; '.join(parts)}."


class Folders:
    """The folders of the nodes of one run; in use once that has more nodes than can be drawn one by one.

    Args:
        path_of: the file of a node whose own lines did not name it; empty where that is unknown.
    """

    def __init__(self, path_of: Callable[[str], str]) -> None:
        self._path_of = path_of
        self._paths = dict[str, str]()
        self._in_front = set[str]()
        self.all = dict[str, Folder]()
        self.are_in_use = False

    def learn(self, unique_id: str, path: str, total: int | None) -> None:
        """Take from dbt's lines where a node's file is, and how many nodes the command runs."""
        self._paths[unique_id] = path
        self.are_in_use = self.are_in_use or max(total or 0, len(self._paths)) > MOST_SINGLE_NODES

    def begin(self, unique_id: str, at: datetime) -> None:
        """Take the start of a node."""
        if (name := self._name(unique_id)) and name not in self.all:
            self.all[name] = Folder(name, at)

    def end(self, result: NodeResult, about: str) -> None:
        """Take the end of a node.

        Args:
            about: whose folder it counts in: itself, or the model that it tests.
        """
        self.begin(about, result.started_at)
        if folder := self.all.get(self._name(about)):
            folder.results[result.unique_id] = result
        if result.outcome == "failed" and len(self._in_front) < _MOST_IN_FRONT:
            self._in_front.add(result.unique_id)

    def around(self, unique_id: str, about: str) -> str | None:
        """Return the key of the folder that a node is shown in; None for one that stands by itself."""
        if not self.are_in_use or unique_id in self._in_front:
            return None
        folder = self.all.get(self._name(about))
        return folder.key if folder else None

    def edges(self, parents: Callable[[str], Iterable[str]]) -> dict[str, list[str]]:
        """Return the names of the folders right before each: what they read, less what that reads itself.

        Folders may read each other in circles, in which Prefect's layout does not end: an earlier one comes first.
        """
        before = dict[str, set[str]]()
        for folder in sorted(self.all.values(), key=lambda each: (each.started_at, each.name)):
            read = {self._name(parent) for unique_id in folder.results for parent in parents(unique_id)}
            before[folder.name] = read & before.keys()
        return {name: sorted(read.difference(*(before[each] for each in read))) for name, read in before.items()}

    def _name(self, unique_id: str) -> str:
        folder = folder_of(self._paths.get(unique_id) or self._path_of(unique_id))
        return folder or f"{unique_id.partition('.')[0]}s"


def folder_of(path: str) -> str:
    """Return the folder that a node with this file belongs to, two levels deep; empty for one that is in none."""
    parts = PurePosixPath(path).parts
    below = parts[1:-1] if parts[:1] and parts[0] in _USUAL_ROOTS else parts[:-1]
    return "/".join(below[:_DEPTH])
