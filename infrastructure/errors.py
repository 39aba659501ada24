"""The errors that a caller can act on, and the exit codes of commands.

    TributaryError
    ├── ConfigError          2   settings, a block or a file is wrong: mend it, never retry
    ├── DbtRunFailed         1   data or SQL failed; 75 where every cause is transient and a retry may succeed
    │   └── RunTimedOut      1   it took longer than its timeout: find what is slow, or raise the timeout
    ├── RunStopped         130   a signal stopped it: run again, with --resume to do the rest
    ├── UpstreamUnavailable 75   a server, a warehouse or a repository did not answer: retry
    ├── DriftError           3   the server changed since the plan was made: plan again
    ├── RefreshUndone        1   the rebuilt tables failed a check: the old ones are restored, see what differs
    ├── AuditFailed          1   an audit found errors in the data: each finding names its key or row
    ├── HealthCheckFailed    1   a health check failed: each check says what to do
    └── PayrollStopped       1   the payments must not be made: the message names every reason

A message says what failed, which one, what was expected and what to do. It never holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from infrastructure.plain_text import plain

MAX_NAMED = 5


class ExitCode(IntEnum):
    """The exit codes of commands: one table for every entry point.

    Attributes:
        meaning: the text in `--help` and docs/reference.md.
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
    UNFORESEEN = 70, "an unexpected error: the message names a file to report"
    TRY_AGAIN = 75, "a server did not answer, or another run holds a lock: try again later"
    STOPPED = 130, "stopped by Ctrl-C, a signal or a no"
    # What a shell says of a program that SIGPIPE ended.
    UNREAD = 141, "the reader closed the output, as `head` does"


class TributaryError(Exception):
    """The root of every error that this project raises on purpose.

    Attributes:
        is_told: whether incidents were opened for it already, so that the flow that fails with it opens none.
        exit_code: of a command that ends with this error.
    """

    is_told: bool = False
    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, *said: object) -> None:
        # A message often repeats text from a database, git or a server.
        super().__init__(*(plain(each) if isinstance(each, str) else each for each in said))


class ConfigError(TributaryError):
    """Say that settings, a block, a file or an argument has to be mended by a person."""

    exit_code = ExitCode.USAGE


class UpstreamUnavailable(TributaryError):
    """Say that something this run depends on did not answer, so that a later try may succeed."""

    exit_code = ExitCode.TRY_AGAIN


class DriftError(TributaryError):
    """Say that the server has changed since a plan was made, so that it has to be made again."""

    exit_code = ExitCode.CHANGES


class DbtRunFailed(TributaryError):
    """Say that a dbt command ended with failed nodes, or failed as a whole.

    Attributes:
        failed: unique ids of the nodes that failed; empty when dbt failed before any node ran.
        skipped: unique ids of the nodes that did not run because of them.
        is_transient: whether every cause is one that a retry can mend.
        result: the outcome of each node, where dbt got as far as running them.
        explanation: what to know and to do about them; see `flows.engine.ledger.explanation`.
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
        self.explanation: Any = None

    @property
    def finished_result(self) -> Any:  # noqa: ANN401  (a DbtResult, which is above this module)
        """Return the result of a dbt command that finished, so that its failed nodes are all that is wrong.

        None for one that crashed or was interrupted: the nodes that did not run may be wrong as well.
        """
        return self.result if self.failed and self.result is not None and self.result.stopped is None else None


class RunTimedOut(DbtRunFailed, TimeoutError):
    """Say that a run was stopped because it took longer than its timeout; Prefect shows it as TimedOut."""


class RunStopped(TributaryError):
    """Say that a person or a supervisor stopped the run with a signal."""

    exit_code = ExitCode.STOPPED


class HealthCheckFailed(TributaryError):
    """Say that a health check failed or could not run.

    Attributes:
        report: what every check found.
    """

    # Each check is an incident of its own.
    is_told = True

    def __init__(self, message: str, report: Any) -> None:  # noqa: ANN401  (its class is one of flows)
        super().__init__(message)
        self.report = report


class RefreshUndone(TributaryError):
    """Say that the tables of a full refresh failed a check, and that the old ones are restored."""

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
    """Say that a payroll can't go on because of the data, a test, a signature or an earlier payment."""


def preview(names: Sequence[str], limit: int = MAX_NAMED) -> str:
    """Join the first few names for a message, and say how many more there are."""
    shown = ", ".join(names[:limit])
    more = len(names) - limit
    return f"{shown} and {more} more" if more > 0 else shown
