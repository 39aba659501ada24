"""Tell an error of a project from one that only dbt's kept parse of it has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flows.engine.artifacts.manifest_file import MANIFEST
from flows.engine.context.command import DbtCommand, Place
from flows.engine.context.events import SELECTED, DbtEvent, is_of_an_interrupt
from flows.engine.context.project_files import project_settings
from flows.engine.context.state import PARSED

if TYPE_CHECKING:
    from infrastructure.program import Program

# What is said of a command that went on once the project was parsed without what was kept.
PARSED_ANEW = "dbt failed on what it had kept of its last parse of the project; it has parsed the whole project anew."
_ANEW = "--no-partial-parse"
_VARIABLES = ("DBT_ENGINE_PARTIAL_PARSE", "DBT_PARTIAL_PARSE")
_OFF = frozenset({"0", "false", "f", "no", "n", "off"})
# With this line dbt says that it parses the whole project, for whatever reason.
_PARSES_ALL = "UnableToPartialParse"
# What dbt says of an error that is its own and no user's.
_STACK_TRACE, _INTERNAL = "MainStackTrace", "Internal Error"


class KeptParse:
    """Watch one command that may begin with what dbt kept of its last parse.

    dbt parses again what changed and keeps the rest, and some changes make the two not fit: dbt 1.12 finds each test of
    a properties file twice once a macro that they use is edited. Such an error stays until the kept parse is gone, and
    so nothing is read out of its text: it is of the kept parse where a parse of the whole project does not have it.

    Attributes:
        held: errors that are not shown yet, as the parse of the whole project has its own to show.
    """

    def __init__(self, command: DbtCommand, place: Place, program: Program) -> None:
        self._manifest = place.target_path / MANIFEST
        self._before = self._stamp()
        self._is_in_use = (
            program.generation == 1
            and (place.target_path / PARSED).exists()
            and _ANEW not in command.flags
            and not any(os.environ.get(name, "").lower() in _OFF for name in _VARIABLES)
            and _flag(place) is not False
        )
        self._is_of_dbt = False
        self.held: list[DbtEvent] = []

    def shown(self, event: DbtEvent) -> Sequence[DbtEvent]:
        """Take a line of the command, and return what of its lines can be shown now."""
        if event.node or event.name in (SELECTED, _PARSES_ALL) or is_of_an_interrupt(event):
            self._is_in_use = False
        if not self._is_in_use:
            return (*self._no_longer_held(), event)
        if event.level != "error" and event.name:
            return (event,)
        self._is_of_dbt = self._is_of_dbt or event.name == _STACK_TRACE or _INTERNAL in event.text
        self.held.append(event)
        return ()

    def may_be_to_blame(self, exit_code: int) -> bool:
        """Say whether the command failed in its parse, or on what that made of the project, before anything began."""
        is_parsed = self._stamp() != self._before
        return self._is_in_use and exit_code > 0 and (self._is_of_dbt or not is_parsed)

    def _no_longer_held(self) -> list[DbtEvent]:
        held, self.held = self.held, []
        return held

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._manifest.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def parsed_anew(command: DbtCommand) -> DbtCommand:
    """Return a command that parses the whole project; what dbt has kept stays until that has ended well."""
    return replace(command, flags=(*command.flags, _ANEW))


def _flag(place: Place) -> object:
    flags = project_settings(place.project).get("flags")
    return flags.get("partial_parse") if isinstance(flags, dict) else None
