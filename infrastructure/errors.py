"""The errors a caller can act on.

    TributaryError
    ├── ConfigError          settings, a block or a file is wrong: mend it, never retry
    ├── DbtRunFailed         data or SQL failed: retried only where every cause is transient
    │   └── RunTimedOut      it took longer than it was given: look at what is slow, or give it more
    ├── RunStopped           somebody stopped it: run again, with --resume to do what is left
    ├── UpstreamUnavailable  a server, a warehouse or a repository did not answer: retry
    ├── DriftError           what was planned is no longer what is there: plan again
    ├── RefreshUndone        what was rebuilt was not as it should be: the old tables are back, look at what differs
    ├── AuditFailed          an audit found errors in the data: each finding names its key or row
    ├── HealthCheckFailed    the data or its runs are not as they should be: each check says what to do
    └── PayrollStopped       money must not be paid like this: the message names every reason

A message says what failed, which one, what was expected and what to do. It never holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_NAMED = 5


class TributaryError(Exception):
    """Stand above every error that this project raises on purpose.

    Attributes:
        is_told: whether incidents have been opened for what it says, so that the flow that ends with it adds none.
    """

    is_told: bool = False


class ConfigError(TributaryError):
    """Say that settings, a block, a file or an argument has to be mended by a person."""


class UpstreamUnavailable(TributaryError):
    """Say that something this run depends on did not answer, so that a later try may succeed."""


class DriftError(TributaryError):
    """Say that what a plan was made from has changed since, so that it has to be made again."""


class DbtRunFailed(TributaryError):
    """Say that a dbt command ended with failed nodes, or failed as a whole.

    Attributes:
        failed: unique ids of the nodes that failed; empty when dbt failed before any node ran.
        skipped: unique ids of the nodes that did not run because of them.
        is_transient: whether every cause is one that a retry can mend.
        result: what came of each node, where dbt got as far as running them.
    """

    def __init__(
        self,
        message: str,
        *,
        failed: Sequence[str] = (),
        skipped: Sequence[str] = (),
        is_transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.failed = tuple(failed)
        self.skipped = tuple(skipped)
        self.is_transient = is_transient
        self.result: Any = None


class RunTimedOut(DbtRunFailed, TimeoutError):
    """Say that a run was stopped because it took longer than it was given; Prefect shows it as TimedOut."""


class RunStopped(TributaryError):
    """Say that a person or a supervisor stopped the run with a signal."""


class HealthCheckFailed(TributaryError):
    """Say that something is not as it should be, or could not be looked at.

    Attributes:
        report: what every check found.
    """

    # Each check is an incident of its own.
    is_told = True

    def __init__(self, message: str, report: Any) -> None:  # noqa: ANN401  (its class is one of flows)
        super().__init__(message)
        self.report = report


class RefreshUndone(TributaryError):
    """Say that a full refresh gave other tables than is allowed, and that the old ones are back."""

    # It is an incident of its own.
    is_told = True


class AuditFailed(TributaryError):
    """Say that an audit found errors.

    Attributes:
        report: all that was found.
    """

    def __init__(self, message: str, report: Any) -> None:  # noqa: ANN401  (its class is one of flows)
        super().__init__(message)
        self.report = report


class PayrollStopped(TributaryError):
    """Say that a payroll can't go on: the data, a test, a signature or an earlier payment stands against it."""


def preview(names: Sequence[str], limit: int = MAX_NAMED) -> str:
    """Join the first few names for a message, and say how many more there are."""
    shown = ", ".join(names[:limit])
    more = len(names) - limit
    return f"{shown} and {more} more" if more > 0 else shown
