"""The kinds of dbt: how each is started, its settings for logs and runs, and how its lines become events."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from flows.engine.context.command import Place
from flows.engine.context.events import FAILED, DbtEvent, parse_line
from flows.engine.process.child import BATCHES_VARIABLE, EVENTS_VARIABLE, HOOKS_VARIABLE
from flows.engine.process.relay import WRITTEN_VARIABLE
from flows.engine.process.statement_tags import tag_variables
from infrastructure.program import Program

# Started with -P so that neither the working directory nor a project's folder is searched for modules:
# dbt imports every top-level module named dbt_* that it can find. The child is run as a file for the same reason.
OWN_DBT = (sys.executable, "-P", str(Path(__file__).with_name("child.py")))
# Without what a user or a site adds to Python: the relay needs none of it, and starts in a third of the time.
_RELAY = (sys.executable, "-I", "-S", str(Path(__file__).with_name("relay.py")))

# An error or a warning of dbt 2: its level, its name and its number, its text, and the places in dbt it came by.
_LABEL = re.compile(r"^\[(?:error|warning)\] \[(\w+) \(dbt\d+\)\]:? ?")
_BACKTRACE = re.compile(r"\n\s+0: .*\Z", re.DOTALL)
_PLACE_OF_A_HOOK = re.compile(r"\n\(in <RUN_OPERATION>.*\Z", re.DOTALL)
_FIRST_LINE = "MainReportVersion"
# What it calls the outcome of a node, which stands in its status.
_SAYS_NOTHING = frozenset({"Error", "Warn", "Pass", "Succeeded", "Skipped due to upstream failure"})
# What dbt 1 calls the same.
_WARNINGS = {"NoNodesForSelectionCriteria": "NoNodesForSelectionCriteria", "NoNodesSelected": "NothingToDo"}


Results = Mapping[str, Mapping[str, Any]]


class Engine(Protocol):
    """What differs from one kind of dbt to another."""

    def head(self) -> list[str]:
        """Return the words before the verb of a command: the program, and how it is to log."""
        ...

    def without_own_log(self) -> list[str]:
        """Return the flags by which dbt writes no log file of its own."""
        ...

    def variables(self, place: Place) -> Mapping[str, str]:
        """Return the further environment variables of every child."""
        ...

    def run_variables(self, run_id: str, target: str, warehouse: str, batches: Path | None) -> Mapping[str, str]:
        """Return the child's environment variables about its run."""
        ...

    def without_hooks(self) -> Mapping[str, str]:
        """Return the variables that keep a freshness check from running on-run hooks; empty where nothing does."""
        ...

    def event(self, line: bytes) -> DbtEvent | None:
        """Return the event of an output line, in the form of dbt 1; None for a line that is not needed."""
        ...

    def results(self, found: Results) -> Results:
        """Return the entries of run_results.json by unique id, in the words of dbt 1."""
        ...


class OwnDbt:
    """dbt 1 of Tributary's own environment: child.py imports it, and writes its events itself."""

    def __init__(self, program: Program) -> None:
        self._program = program

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

    def variables(self, place: Place) -> Mapping[str, str]:
        return _variables(self._program, place)

    def run_variables(self, run_id: str, target: str, warehouse: str, batches: Path | None) -> Mapping[str, str]:
        told = tag_variables(run_id, target, warehouse)
        return told | {BATCHES_VARIABLE: str(batches)} if batches else told

    def without_hooks(self) -> Mapping[str, str]:
        return {HOOKS_VARIABLE: "true"}

    def event(self, line: bytes) -> DbtEvent | None:
        return parse_line(line)

    def results(self, found: Results) -> Results:
        return found


class DbtElsewhere:
    """dbt 1 of another environment: a program, behind the relay."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def head(self) -> list[str]:
        return [
            *_RELAY,
            str(self._program.path),
            "--log-level",
            "info",
            "--log-format",
            "json",
            "--write-json",
            *self._plainly(),
        ]

    def _plainly(self) -> list[str]:
        return ["--no-quiet", "--no-use-colors"]

    def without_own_log(self) -> list[str]:
        return ["--log-level-file", "none"]

    def variables(self, place: Place) -> Mapping[str, str]:
        return _variables(self._program, place)

    def run_variables(self, run_id: str, target: str, warehouse: str, batches: Path | None) -> Mapping[str, str]:
        # What these say can be told only to a dbt that imports something of ours.
        return {}

    def without_hooks(self) -> Mapping[str, str]:
        return {}

    def event(self, line: bytes) -> DbtEvent | None:
        return parse_line(line)

    def results(self, found: Results) -> Results:
        return found


class Dbt2(DbtElsewhere):
    """dbt 2, wherever it is."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        # Why a hook failed is said later, in an error that names no node.
        self._failed_hook: str | None = None

    def _plainly(self) -> list[str]:
        return ["--no-quiet"]

    def without_own_log(self) -> list[str]:
        return ["--log-level-file", "off"]

    def event(self, line: bytes) -> DbtEvent | None:
        event = parse_line(line)
        if event is None:
            return None
        if event.name == _FIRST_LINE:
            self._failed_hook = None
        if event.node and event.node.materialized == "ephemeral":
            # dbt 1 has no line for what is never built.
            return replace(event, node=None)
        if event.node and event.node.is_hook and event.node.status in FAILED:
            self._failed_hook = event.node.unique_id
        label = _LABEL.match(event.text)
        if event.name != "Generic" or not label:
            return event
        text = _BACKTRACE.sub("", event.text[label.end() :]).strip()
        if event.level != "error":
            return replace(event, name=_WARNINGS.get(label[1], event.name), text=text)
        unique_id = event.unique_id
        if unique_id is None and self._failed_hook:
            unique_id, self._failed_hook = self._failed_hook, None
            text = _PLACE_OF_A_HOOK.sub("", text)
        name = "RunResultError" if unique_id else "MainEncounteredError"
        return replace(event, name=name, text=text, unique_id=unique_id)

    def results(self, found: Results) -> Results:
        return {key: _said_as_dbt_1(key, entry) for key, entry in found.items() if not _never_runs(entry)}


def _never_runs(entry: Mapping[str, Any]) -> bool:
    """Say whether dbt 1 has no such result: of an ephemeral model that nothing kept back, or after a failed hook.

    After that, dbt 2.0.0-alpha.4 says of every node, whether it ran or not, that it could not be compiled.
    """
    if entry.get("message") == "Compilation Error":
        return not entry.get("execution_time")
    return entry.get("status") == "skipped" and entry.get("message") == "Skipped"


def _said_as_dbt_1(unique_id: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a result with a message that says something, and without times that dbt 2 does not tell apart."""
    message, status = entry.get("message"), entry.get("status")
    if message in _SAYS_NOTHING:
        message = None
    if message is None and unique_id.startswith("unit_test.") and status in ("fail", "error"):
        message = "The rows that came out are not those that the unit test expects."
    elif message is None and status in ("fail", "warn") and entry.get("failures") is not None:
        message = f"Got {entry['failures']:,} results, configured to {status} if there are any."
    return {**entry, "message": message, "timing": []}


def engine_of(program: Program) -> Engine:
    """Return the kind of dbt that a program is."""
    if program.path is None:
        return OwnDbt(program)
    return Dbt2(program) if program.generation == 2 else DbtElsewhere(program)


def _variables(program: Program, place: Place) -> dict[str, str]:
    """Say where dbt writes, and keep it from advice of its own, of which it keeps a record in the user's home."""
    # dbt 2.0.0-alpha.4 refuses a variable of this prefix that it does not know.
    is_hinting = program.has_user_settings and program.generation == 1
    hints = {"DBT_ENGINE_HINTS_ENABLED": "false"} if is_hinting else {}
    return {WRITTEN_VARIABLE: f"{place.target_path}{os.pathsep}{place.log_path}", **hints}


def events_variable(file: Path) -> dict[str, str]:
    """Return the variable that names the file in which the child keeps its events."""
    return {EVENTS_VARIABLE: str(file)}
