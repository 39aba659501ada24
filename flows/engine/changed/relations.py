"""Find which relations of a project are in the warehouse: a table that was dropped has to be built again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from flows.engine.context.command import DbtCommand
from flows.engine.context.events import DbtEvent
from flows.engine.context.project import Project
from flows.engine.process.door import Dbt
from flows.warehouses.door import open_warehouse
from infrastructure.errors import TributaryError

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

# Database, schema and name.
Relation = tuple[str, ...]

_QUERIES = {
    "duckdb": "select table_schema as schema, table_name as name from information_schema.tables",
    # information_schema leaves materialized views out, and what the user may not read.
    "postgres": (
        "select n.nspname as schema, c.relname as name from pg_catalog.pg_class c "
        "join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'v', 'm', 'p', 'f')"
    ),
}


def missing_relations(wanted: Iterable[Relation], project: Project, profile: Profile) -> set[Relation]:
    """Return those of the wanted relations that the warehouse does not have.

    A DuckDB file and PostgreSQL are asked directly, in a tenth of a second; dbt's own process starts in three.

    Raises:
        TributaryError: the warehouse could not be asked.
    """
    places = set(wanted)
    if not places:
        return set()
    there = _in_database(profile, places)
    if there is None:
        return _missing_by_dbt(places, project, profile)
    return {place for place in places if tuple(part.lower() for part in place) not in there}


def _in_database(profile: Profile, places: set[Relation]) -> set[Relation] | None:
    """Return what is in the one database of the places, in lower case; None where it can't be asked quickly."""
    query = _QUERIES.get(profile.warehouse)
    path = Path(str(profile.output.get("path") or ""))
    if query is None or (profile.warehouse == "duckdb" and not path.is_absolute()):
        return None
    database = (
        path.stem
        if profile.warehouse == "duckdb"
        else str(profile.output.get("dbname") or profile.output.get("database") or "")
    )
    if {name.lower() for name, *_ in places} != {database.lower()}:
        return None
    if profile.warehouse == "duckdb" and not path.exists():
        return set()
    try:
        with open_warehouse(profile, read_only=True) as warehouse:
            found = warehouse.rows(query)
    except TributaryError:
        return None
    return {(database.lower(), str(row["schema"]).lower(), str(row["name"]).lower()) for row in found}


def _missing_by_dbt(places: set[Relation], project: Project, profile: Profile) -> set[Relation]:
    found: set[Relation] = set()

    def take(event: DbtEvent) -> None:
        if event.name == "PrintEvent" and event.text.startswith("["):
            # Models may print too, while they are parsed.
            with contextlib.suppress(ValueError):
                found.add(tuple(orjson.loads(event.text)))

    # The adapter lists a schema once and keeps it. While it parses, dbt finds no relation at all.
    listed = orjson.dumps(sorted(places)).decode()
    query = (
        f"{{% for place in {listed} if execute %}}"
        "{% if adapter.get_relation(place[0], place[1], place[2]) is none %}{% do print(tojson(place)) %}{% endif %}"
        "{% endfor %}"
    )
    command = DbtCommand("compile", flags=("--no-populate-cache", "--print", "--inline", query))
    Dbt(project, profile).ask(command, take)
    return found & places
