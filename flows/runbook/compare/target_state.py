"""The state of a target at one moment: tables, keys, sources, configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.changed.freshness import ask_for_source_data
from flows.engine.context.command import DbtCommand
from flows.engine.context.state import LEDGER, State, state_of
from flows.runbook.project_tables import read_declared
from flows.warehouses.door import open_warehouse
from flows.warehouses.warehouse import Warehouse
from infrastructure.commands import program
from infrastructure.errors import ConfigError
from infrastructure.private_files import write_whole
from infrastructure.program import find_program
from infrastructure.targets.outputs import is_env_var
from infrastructure.targets.secret_names import is_secret_name

if TYPE_CHECKING:
    from flows.engine.context.project import Project
    from infrastructure.profiles import Profile

# Tables with more rows are compared by figures alone, as their keys would have to be read to this machine.
LARGEST_KEYS = 1_000_000
FORMAT = 1


@dataclass(frozen=True)
class TableState:
    """A table in figures.

    Attributes:
        rows: None for a table that does not exist.
        key: the columns that identify a row, or a snapshot's entity; empty where no test proves them.
        keys: every key once, as text; None where there are none or too many.
    """

    rows: int | None
    columns: Mapping[str, str]
    sums: Mapping[str, str]
    key: tuple[str, ...] = ()
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TargetState:
    """A target at one moment.

    Attributes:
        tables: by name.
        sources: the newest row of each source, ISO 8601; empty where it was not requested.
        configuration: settings, variables and versions by name; no secret.
    """

    target: str
    warehouse: str
    at: str
    tables: Mapping[str, TableState]
    sources: Mapping[str, str]
    configuration: Mapping[str, str]


def state_of_target(project: Project, profile: Profile, select: str | None, freshness: bool) -> TargetState:
    """Read the state of a target, and change nothing.

    Args:
        select: dbt selection of the tables; all when None.
        freshness: include the freshness of the sources.
    """
    declared = read_declared(project, profile, select)
    found: dict[str, TableState] = {}
    with open_warehouse(profile) as tables:
        for node in declared.tables():
            relation = str(node.relation)
            if not tables.exists(relation):
                found[node.name] = TableState(None, {}, {})
                continue
            found[node.name] = _table_state(tables, relation, declared.entity_key(node.unique_id))
    sources: dict[str, str] = {}
    if freshness:
        newest = ask_for_source_data(DbtCommand("build"), project, profile)
        sources = {unique_id.partition(".")[2]: at for unique_id, at in newest.items()}
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return TargetState(profile.target, profile.warehouse, now, found, sources, _configuration(project, profile))


def save(state: TargetState, path: Path) -> None:
    """Write a state to a file, to be compared with later.

    Raises:
        ConfigError: the file can't be written.
    """
    try:
        write_whole(path, orjson.dumps({"format": FORMAT, **asdict(state)}, option=orjson.OPT_INDENT_2))
    except OSError as exc:
        raise ConfigError(f"{path} can't be written: {exc.strerror}.") from exc


def load(path: Path) -> TargetState:
    """Read a state from a file that `save` has written.

    Raises:
        ConfigError: the file is not a saved state.
    """
    try:
        document = cast(dict[str, Any], orjson.loads(path.read_bytes()))
        if document.pop("format") != FORMAT:
            raise KeyError("format")
        tables = {name: _read(entry) for name, entry in document.pop("tables").items()}
        return TargetState(**document, tables=tables)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
        raise ConfigError(
            f"{path} is not a saved state of a target. Write one: {program()} compare --target prod --save {path}"
        ) from exc


def _read(entry: dict[str, Any]) -> TableState:
    keys = entry["keys"]
    return TableState(
        rows=entry["rows"],
        columns=entry["columns"],
        sums=entry["sums"],
        key=tuple(entry["key"]),
        keys=None if keys is None else tuple(keys),
    )


def _table_state(tables: Warehouse, relation: str, key: tuple[str, ...]) -> TableState:
    measured = tables.measure(relation)
    there = {name.lower() for name in measured.columns}
    key = key if all(name.lower() in there for name in key) else ()
    keys: tuple[str, ...] | None = None
    if key and measured.rows <= LARGEST_KEYS:
        names = ", ".join(tables.column(name) for name in key)
        rows = tables.rows(f"select distinct {names} from {relation}")
        keys = tuple(sorted(", ".join(str(value) for value in row.values()) for row in rows))
    columns = {name.lower(): kind.lower() for name, kind in measured.columns.items()}
    sums = {name.lower(): f"{_normalised(total):f}" for name, total in measured.sums.items()}
    return TableState(measured.rows, columns, sums, key, keys)


def _normalised(total: Decimal) -> Decimal:
    # 10.10 on one warehouse is 10.1 on another.
    return total.normalize() + 0


def _configuration(project: Project, profile: Profile) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in sorted(profile.output.items()):
        if is_secret_name(name) or is_env_var(value):
            found[f"profile: {name}"] = "set (secret)"
        else:
            found[f"profile: {name}"] = str(value)
    found |= versions_of(profile)
    state = state_of(project, profile.target, os.environ)
    found |= _of_last_run(state)
    return found


def versions_of(profile: Profile) -> dict[str, str]:
    """Return the version of the target's dbt, and of its adapter where that is in this environment."""
    program = find_program(profile.dbt)
    found = {"installed: dbt-core": program.version}
    if program.path is None:
        adapter = f"dbt-{profile.warehouse}"
        try:
            found[f"installed: {adapter}"] = version(adapter)
        except PackageNotFoundError:
            found[f"installed: {adapter}"] = "not installed"
    return found


def _of_last_run(state: State) -> dict[str, str]:
    """Return the dbt and the variables that the target was last written with."""
    dbt_version = Artifacts(state.target_path).manifest_if_any.dbt_version
    if not dbt_version:
        return {}
    found = {"last run: dbt version": dbt_version}
    for run in reversed(state.runs()):
        try:
            with (run / LEDGER).open("rb") as lines:
                command = orjson.loads(lines.readline())["command"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if command["verb"] in ("build", "run"):
            found |= {f"last run: variable {name}": str(value) for name, value in sorted(command["vars"].items())}
            break
    return found
