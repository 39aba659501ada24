"""The errors a caller can act on, and the codes that commands end with.

    TributaryError
    ├── ConfigError          2   settings, a block or a file is wrong: mend it, never retry
    ├── DbtRunFailed         1   data or SQL failed; 75 where every cause is transient, and a later try may do
    │   └── RunTimedOut      1   it took longer than it was given: look at what is slow, or give it more
    ├── RunStopped         130   somebody stopped it: run again, with --resume to do what is left
    ├── UpstreamUnavailable 75   a server, a warehouse or a repository did not answer: retry
    ├── DriftError           3   what was planned is no longer what is there: plan again
    ├── RefreshUndone        1   what was rebuilt was not as it should be: the old tables are back, look at what differs
    ├── AuditFailed          1   an audit found errors in the data: each finding names its key or row
    ├── HealthCheckFailed    1   the data or its runs are not as they should be: each check says what to do
    └── PayrollStopped       1   money must not be paid like this: the message names every reason

A message says what failed, which one, what was expected and what to do. It never holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from infrastructure.plain_text import plain

MAX_NAMED = 5


class ExitCode(IntEnum):
    """How a command ends: one table for every entry point.

    Attributes:
        meaning: what `--help` and the README say of it.
    """

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "all that was asked for was done, warnings included"
    FAILED = 1, "data or SQL failed, or a check found something wrong"
    USAGE = 2, "usage, settings or files are wrong: mend them first"
    CHANGES = 3, "there are changes, or a plan is out of date"
    # 70 and 75 are EX_SOFTWARE and EX_TEMPFAIL of BSD's sysexits.h.
    UNFORESEEN = 70, "nobody foresaw this: the message names a file to report"
    TRY_AGAIN = 75, "something did not answer or is held by another run: try again later"
    STOPPED = 130, "stopped by Ctrl-C, a signal or a no"
    # What a shell says of a program that SIGPIPE ended.
    UNREAD = 141, "whoever read the output stopped reading, as `head` does"


class TributaryError(Exception):
    """Stand above every error that this project raises on purpose.

    Attributes:
        is_told: whether incidents have been opened for what it says, so that the flow that ends with it adds none.
        exit_code: what a command ends with that ends with it.
    """

    is_told: bool = False
    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, *said: object) -> None:
        # A message often repeats what a database, git or a server said.
        super().__init__(*(plain(each) if isinstance(each, str) else each for each in said))


class ConfigError(TributaryError):
    """Say that settings, a block, a file or an argument has to be mended by a person."""

    exit_code = ExitCode.USAGE


class UpstreamUnavailable(TributaryError):
    """Say that something this run depends on did not answer, so that a later try may succeed."""

    exit_code = ExitCode.TRY_AGAIN


class DriftError(TributaryError):
    """Say that what a plan was made from has changed since, so that it has to be made again."""

    exit_code = ExitCode.CHANGES


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
        if is_transient:
            self.exit_code = ExitCode.TRY_AGAIN
        self.result: Any = None

    @property
    def told_by_nodes(self) -> Any:  # noqa: ANN401  (a DbtResult, which is above this module)
        """Return the result of a dbt that got to its end, so that its failed nodes are all that is wrong.

        None for one that crashed or was cut short, whatever became of the nodes before: the others prove nothing.
        """
        return self.result if self.failed and self.result is not None and self.result.stopped is None else None


class RunTimedOut(DbtRunFailed, TimeoutError):
    """Say that a run was stopped because it took longer than it was given; Prefect shows it as TimedOut."""


class RunStopped(TributaryError):
    """Say that a person or a supervisor stopped the run with a signal."""

    exit_code = ExitCode.STOPPED


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
