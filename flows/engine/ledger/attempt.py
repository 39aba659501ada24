"""What one dbt child process did and said."""

from __future__ import annotations

from dataclasses import dataclass, field

from flows.engine.context.events import STARTED, DbtEvent, NodeEvent

_EXCEPTIONS = frozenset({"CatchableExceptionOnRun", "GenericExceptionOnRun", "InternalErrorOnRun"})
# Where dbt says why a node failed when its artifact does not, as with sources whose table is missing.
_NODE_ERROR = "RunResultError"
_NODE_ERRORS = _EXCEPTIONS | {_NODE_ERROR, "RunResultErrorNoMessage"}
# A model can have thousands of batches.
_MOST_EXCEPTIONS = 20
# What dbt says about a run as a whole and a person should read.
_NOTES = frozenset({"NoNodesForSelectionCriteria", "NothingToDo"})
_CRASH, _STACK_TRACE = "MainEncounteredError", "MainStackTrace"


@dataclass
class Attempt:
    """What one child process left behind.

    Attributes:
        is_interrupted: by this run, so that its lines alone say what it left.
        begun: names of the nodes that started or were skipped, by unique id.
        running: unique ids of those that have not ended.
        hooks: names of the hooks that have not ended, by unique id; they are no nodes, and count for themselves.
        ended_hooks: unique ids of those that have ended.
        total: how many nodes it was to run; None where dbt has not said.
        selected: unique ids of those nodes; None where dbt does not say.
        proved: unique ids of the nodes that its artifact has a result of.
        said: its last lines that are not dbt's JSON.
        errors: what dbt called an error of the command as a whole.
        node_errors: why nodes failed, by unique id, where the log says so.
        exceptions: what was raised while a node ran; several where it ran in batches.
    """

    exit_code: int = 0
    is_interrupted: bool = False
    invocation_id: str | None = None
    begun: dict[str, str] = field(default_factory=dict[str, str])
    running: set[str] = field(default_factory=set[str])
    hooks: dict[str, str] = field(default_factory=dict[str, str])
    ended_hooks: set[str] = field(default_factory=set[str])
    total: int | None = None
    selected: tuple[str, ...] | None = None
    proved: frozenset[str] = frozenset()
    said: list[str] = field(default_factory=list[str])
    errors: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    node_errors: dict[str, str] = field(default_factory=dict[str, str])
    exceptions: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    @property
    def left_undone(self) -> bool:
        """Return whether nodes that it was to run did not end."""
        return bool(self.running or self.hooks) or not self.has_counted_all

    @property
    def has_counted_all(self) -> bool:
        """Return whether as many nodes have begun as dbt said that there are."""
        return self.total is not None and len(self.begun) >= self.total

    def take_node(self, node: NodeEvent) -> None:
        """Take note that a node or a hook started or ended."""
        if node.is_hook:
            if node.status == STARTED:
                self.hooks[node.unique_id] = node.name
            else:
                self.hooks.pop(node.unique_id, None)
                self.ended_hooks.add(node.unique_id)
            return
        self.begun[node.unique_id] = node.name
        self.total = node.total or self.total
        if node.status == STARTED:
            self.running.add(node.unique_id)
        else:
            self.running.discard(node.unique_id)

    def take_line(self, event: DbtEvent) -> None:
        """Keep what a line says about the command as a whole, or about why a node failed."""
        self.invocation_id = event.invocation_id or self.invocation_id
        if event.unique_id and event.level == "error" and event.name in _NODE_ERRORS:
            self.node_errors[event.unique_id] = event.text
            said = self.exceptions.setdefault(event.unique_id, [])
            if event.name in _EXCEPTIONS and event.text not in said and len(said) < _MOST_EXCEPTIONS:
                said.append(event.text)
        if event.name in _NOTES:
            self.notes.append(event.text)
        elif event.name == _NODE_ERROR and event.level == "error" and not event.unique_id:
            # Of a hook of dbt 1.8, which is no node there.
            self.errors.append(event.text)
        elif event.name == _CRASH or (event.name == _STACK_TRACE and not self.errors):
            # dbt 2 says one after the other what is wrong with a project.
            self.errors.append(event.text)
        elif event.name == "":
            self.said = [*self.said[-20:], event.text]
