"""What is asked of a run beside its target and its project: built in one place, and handed on whole.

A new option is a field here, a line of help in `flows/cli/options.py`, and a parameter of the flow that shows it in its
form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from flows.engine.context.command import DbtCommand
from infrastructure.errors import ConfigError

# Attempts of a node after its first, for failures that pass by themselves: a lost connection, a lock, a quota.
RETRIES = 2

_RUN_NODES = frozenset({"build", "run", "test", "seed", "snapshot"})


@dataclass(frozen=True)
class RunOptions:
    """What is asked of a run; see `dbt_full_pipeline`, whose parameters they are.

    Attributes:
        indirect_selection: which tests of the selected nodes come along, in dbt's words; "empty" for none but those
            that are selected themselves.
        fail_fast: begin no further node once one has failed.
        threads: nodes that run at a time; as the profile says when None.
        resume_run: the run to go on with, by the name of its folder or the beginning of it; with `resume`, the last one
            of the same selection and variables when None.
        allow_nothing: take a selection that matches no node for what was meant.
    """

    select: str | None = None
    exclude: str | None = None
    selector: str | None = None
    full_refresh: bool = False
    vars: Mapping[str, Any] = field(default_factory=dict[str, Any])
    resume: bool = False
    changed: bool = False
    defer_to: str | None = None
    retries: int = RETRIES
    timeout_seconds: float | None = None
    wait: bool = True
    freshness: bool = True
    docs: bool = False
    indirect_selection: str | None = None
    fail_fast: bool = False
    threads: int | None = None
    allow_nothing: bool = False
    resume_run: str | None = None

    def __post_init__(self) -> None:
        if self.changed and self.resume:
            raise ConfigError(
                "--changed and --resume were both given. --changed builds what failed, was skipped or cut off anyway: "
                "leave --resume out."
            )
        if self.changed and self.defer_to:
            raise ConfigError(
                f"--changed compares with this target's own last run, --defer-to with {self.defer_to}: "
                "give only one of them."
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"A run can't have {self.threads} threads. Give it 1 or more.")

    def command(self, verb: str, flags: Sequence[str] = (), nodes: Sequence[str] | None = None) -> DbtCommand:
        """Return the dbt command that does this.

        Args:
            flags: of the command, beside the options.
            nodes: unique ids of all that it is to run, in place of the selection.
        """
        if self.indirect_selection:
            flags = (*flags, "--indirect-selection", self.indirect_selection)
        exactly = None if nodes is None else tuple(nodes)
        return DbtCommand(
            verb, self.select, self.exclude, self.selector, self.full_refresh, self.vars, tuple(flags), exactly
        )

    def manner(self, verb: str) -> list[str]:
        """Return the flags that say how a command runs, whatever it runs: a resume may have others than its run."""
        if verb not in _RUN_NODES:
            return []
        threads = [] if self.threads is None else ["--threads", str(self.threads)]
        return [*(["--fail-fast"] if self.fail_fast else []), *threads]

    def parameters(self, of: Sequence[str]) -> dict[str, Any]:
        """Return the plain parameters of these names for a flow that is called with them."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name in of}
