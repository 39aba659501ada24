"""A dbt command as data, and the arguments it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from flows.engine.context.exact_selection import exact_arguments, flags_beside
from infrastructure.errors import ConfigError

TAKES_FULL_REFRESH = frozenset({"build", "run", "seed", "compile", "show"})
_TAKES_SELECTION = frozenset({"build", "run", "test", "seed", "snapshot", "source freshness", "ls", "show", "compile"})


# dbt's own variables that change what a command builds, and from what; since 1.11 also as DBT_ENGINE_….
_MAKES_ANOTHER_TABLE = (
    *("EMPTY", "SAMPLE", "DEFER", "DEFER_STATE", "DEFER_TO_STATE", "FAVOR_STATE", "FAVOR_STATE_MODE", "STATE"),
    *("ARTIFACT_STATE_PATH", "EVENT_TIME_START", "EVENT_TIME_END", "INTROSPECT"),
)
_MAKES_ANOTHER_RUN = (
    *("FULL_REFRESH", "RESOURCE_TYPES", "EXCLUDE_RESOURCE_TYPES", "INDIRECT_SELECTION", "STORE_FAILURES"),
    *("WARN_ERROR", "WARN_ERROR_OPTIONS", "USE_FAST_TEST_EDGES", "INCLUDE_SAVED_QUERY", "EXPORT_SAVED_QUERIES"),
)
# With these dbt fills tables with a part of their rows, and tests look at that part: they are not the real ones.
_ON_A_PART = ("--empty", "--sample")
_OFF = frozenset({"", "0", "false", "f", "no", "n", "off"})


def flags_in(environ: Mapping[str, str], tables_alone: bool = False) -> dict[str, str]:
    """Return the flags that dbt takes from its environment and that change what a run does, by the name of the option.

    Args:
        tables_alone: only those that make what is built another.
    """
    wanted = _MAKES_ANOTHER_TABLE if tables_alone else (*_MAKES_ANOTHER_TABLE, *_MAKES_ANOTHER_RUN)
    found = {name: environ.get(f"DBT_ENGINE_{name}") or environ.get(f"DBT_{name}") or "" for name in wanted}
    return {f"--{name.lower().replace('_', '-')}": value for name, value in found.items() if value.lower() not in _OFF}


def is_on_a_part(flags: Iterable[str], batches_too: bool = False) -> bool:
    """Say whether flags of dbt have it work on a part of the rows, so that a table is not what a build makes of it.

    Args:
        batches_too: count a window of batches of time (`--event-time-start`), in which the other tables are whole.
    """
    prefixes = (*_ON_A_PART, *(["--event-time"] if batches_too else []))
    return any(flag.startswith(prefixes) for flag in flags)


@dataclass(frozen=True)
class DbtCommand:
    """One dbt command, without the place it runs in.

    Attributes:
        verb: as typed after `dbt`, such as "build" or "source freshness".
        select: dbt selection; several words are a union.
        selector: name of a set in selectors.yml; dbt takes it in place of select.
        flags: further arguments, given as they stand.
        nodes: unique ids of all that it is to run, in place of the selection that was asked for; None where dbt finds
            them out by itself.
    """

    verb: str
    select: str | None = None
    exclude: str | None = None
    selector: str | None = None
    full_refresh: bool = False
    vars: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    nodes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.selector and (self.select or self.exclude):
            raise ConfigError(
                f"dbt {self.verb} was given the selector {self.selector!r} and a selection of its own. "
                "Give either --selector or --select/--exclude."
            )
        for option, value in (("--select", self.select), ("--exclude", self.exclude)):
            if any(word.startswith("-") for word in (value or "").split()):
                raise ConfigError(
                    f"{option} was given {value!r}, which reads like an option. Name models, tags or paths."
                )

    @property
    def name(self) -> str:
        """Return the command as people say it, such as "dbt build"."""
        return f"dbt {self.verb}"


@dataclass(frozen=True)
class Place:
    """Where a dbt command runs and what it writes to: all absolute folders.

    Attributes:
        profiles: holds the profiles.yml.
        profile: the name of the profile in there.
    """

    project: Path
    profiles: Path
    profile: str
    target_path: Path
    log_path: Path

    @property
    def selection(self) -> Path:
        """Return the folder that hands dbt the nodes of a command; see `exact_selection.hand_over`."""
        return self.target_path / "selection"


def arguments(command: DbtCommand, place: Place, target: str) -> list[str]:
    """Return the arguments of dbt from the verb on; no secret is ever part of them."""
    argv = [*command.verb.split(), "--project-dir", str(place.project), "--profiles-dir", str(place.profiles)]
    argv += ["--profile", place.profile, "--target", target]
    argv += ["--target-path", str(place.target_path), "--log-path", str(place.log_path)]
    if command.verb in _TAKES_SELECTION:
        argv += selection_arguments(command) if command.nodes is None else exact_arguments(place.selection)
    if command.full_refresh and command.verb in TAKES_FULL_REFRESH:
        argv.append("--full-refresh")
    if command.vars:
        argv += ["--vars", variables_text(command.vars)]
    return [*argv, *command.flags]


def variables_text(variables: Mapping[str, Any]) -> str:
    """Return variables as dbt reads them from a command line: YAML, in which a date stays one."""
    return yaml.safe_dump(
        dict(variables), default_flow_style=True, sort_keys=True, allow_unicode=True, width=10**9
    ).strip()


def selection_arguments(command: DbtCommand) -> list[str]:
    """Return the --select, --exclude and --selector part of a command."""
    argv: list[str] = []
    if command.select:
        argv += ["--select", *command.select.split()]
    if command.exclude:
        argv += ["--exclude", *command.exclude.split()]
    if command.selector:
        argv += ["--selector", command.selector]
    return argv


def only_these(command: DbtCommand, unique_ids: Iterable[str]) -> DbtCommand | None:
    """Return the command for exactly these nodes, without tests that merely hang on them; None when there are none.

    A build of nothing but tests is a `test`: with `build`, dbt 1 runs a unit test only together with its model.
    """
    nodes = tuple(dict.fromkeys(unique_ids))
    if not nodes:
        return None
    is_all_tests = all(unique_id.startswith(("test.", "unit_test.")) for unique_id in nodes)
    verb = "test" if command.verb == "build" and is_all_tests else command.verb
    return replace(command, verb=verb, nodes=nodes, flags=flags_beside(command.flags))
