"""dbt inside the test's own process: what a child of three seconds does in a tenth, for tests of many builds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from flows.engine.process.engines import OWN_DBT

_SHOWN = ("info", "warn", "error")


class InProcessDbt:
    """Stand in for `DbtProcess`: the same arguments, the same lines, the same exit code, and real dbt."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, descriptors: Sequence[int] = ()
    ) -> None:
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager
        from dbt.cli.main import dbtRunner
        from dbt_common.events.functions import msg_to_json

        self._lines: list[bytes] = []

        def take(event: Any) -> None:
            if event.info.level in _SHOWN:
                self._lines.append(msg_to_json(event).encode())

        before = dict(os.environ)
        os.environ.update(environment)
        try:
            # What the callback takes need not be printed as well.
            arguments = [*argv[len(OWN_DBT) :]]
            arguments[arguments.index("--log-level") + 1] = "none"
            done = dbtRunner(callbacks=[take]).invoke(arguments)
        finally:
            os.environ.clear()
            os.environ.update(before)
            # It would keep the file open, as a process of its own does not.
            DuckDBConnectionManager.close_all_connections()
        self._code = 0 if done.success else 2 if done.exception else 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    is_interrupted = False

    def interrupt(self) -> None:
        """Do nothing: it has ended before anybody could."""

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that dbt would have written."""
        yield from self._lines

    def wait(self) -> int:
        """Return the exit code."""
        return self._code


def run_dbt_in_process(patch: pytest.MonkeyPatch) -> None:
    """Have the engine run dbt in this process, which need not parse dbt's own macros each time."""
    patch.setattr("dbt_common.tests._TEST_CACHING_ENABLED", True)
    patch.setattr("flows.engine.process.door.DbtProcess", InProcessDbt)
