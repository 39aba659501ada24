"""The kinds of dbt: how each is started, what it is told of logs and runs, and how its lines become events."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from flows.engine.context.events import DbtEvent, parse_line
from flows.engine.process.child import BATCHES_VARIABLE, EVENTS_VARIABLE
from flows.engine.process.statement_tags import tag_variables

# Started with -P so that neither the working directory nor a project's folder is searched for modules:
# dbt imports every top-level module named dbt_* that it can find. The child is run as a file for the same reason.
OWN_DBT = (sys.executable, "-P", str(Path(__file__).with_name("child.py")))


class Engine(Protocol):
    """What differs from one kind of dbt to another."""

    def head(self) -> list[str]:
        """Return the words before the verb of a command: the program, and how it is to log."""
        ...

    def without_own_log(self) -> list[str]:
        """Return the flags by which dbt writes no log file of its own."""
        ...

    def run_variables(self, run_id: str, target: str, warehouse: str, batches: Path | None) -> Mapping[str, str]:
        """Return what the child is told of the run that it is part of."""
        ...

    def event(self, line: bytes) -> DbtEvent | None:
        """Return what a line of its output says; None for one that nobody needs."""
        ...


class OwnDbt:
    """dbt 1 of Tributary's own environment: child.py imports it, and writes its events itself."""

    def head(self) -> list[str]:
        # child.py writes the events, whatever a project's flags or the environment say of dbt's own loggers.
        return [
            *OWN_DBT,
            "--log-level",
            "none",
            "--no-quiet",
            "--no-use-colors",
            "--log-format",
            "json",
            "--write-json",
        ]

    def without_own_log(self) -> list[str]:
        return ["--log-level-file", "none"]

    def run_variables(self, run_id: str, target: str, warehouse: str, batches: Path | None) -> Mapping[str, str]:
        told = tag_variables(run_id, target, warehouse)
        return told | {BATCHES_VARIABLE: str(batches)} if batches else told

    def event(self, line: bytes) -> DbtEvent | None:
        return parse_line(line)


def events_variable(file: Path) -> dict[str, str]:
    """Return the variable that names the file in which the child keeps its events."""
    return {EVENTS_VARIABLE: str(file)}
