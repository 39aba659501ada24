"""Which relations of a project are in the warehouse: a table that somebody dropped has to be built again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from flows.engine.context.command import DbtCommand
from flows.engine.context.events import DbtEvent
from flows.engine.context.project import Project
from flows.engine.process.door import Dbt

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

# Database, schema and name.
Relation = tuple[str, ...]


def missing_relations(wanted: Iterable[Relation], project: Project, profile: Profile) -> set[Relation]:
    """Return those of the wanted relations that the warehouse does not have.

    A DuckDB file and PostgreSQL are asked directly, in a tenth of a second; dbt's own process starts in three.

    Raises:
        TributaryError: the warehouse could not be asked.
    """
    places = set(wanted)
    if not places:
        return set()
    quick = {"duckdb": _in_duckdb_file, "postgres": _in_postgres}.get(profile.warehouse)
    there = quick(profile, places) if quick else None
    if there is None:
        return _missing_by_dbt(places, project, profile)
    return {place for place in places if tuple(part.lower() for part in place) not in there}


def _in_duckdb_file(profile: Profile, places: set[Relation]) -> set[Relation] | None:
    """Return what is in the file, in lower case; None where that is not all, or the file can't be opened."""
    import duckdb

    path = Path(str(profile.output.get("path") or ""))
    if not path.is_absolute() or _databases(places) != {path.stem.lower()}:
        return None
    if not path.exists():
        return set()
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            rows = connection.execute("select table_schema, table_name from information_schema.tables").fetchall()
    except duckdb.Error:
        return None
    return {(path.stem.lower(), schema.lower(), name.lower()) for schema, name in rows}


def _in_postgres(profile: Profile, places: set[Relation]) -> set[Relation] | None:
    import psycopg2

    from flows.warehouses.raw_postgres import CONNECT_TIMEOUT_SECONDS, LIBPQ_NAMES

    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
    options |= {
        LIBPQ_NAMES[name]: value for name, value in profile.connection().items() if name in LIBPQ_NAMES and value
    }
    database = str(options.get("dbname") or "").lower()
    if _databases(places) != {database}:
        return None
    try:
        connection = psycopg2.connect(**options)
    except psycopg2.Error:
        return None
    try:
        with connection.cursor() as cursor:
            # information_schema leaves materialized views out, and what the user may not read.
            cursor.execute(
                "select n.nspname, c.relname from pg_catalog.pg_class c "
                "join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'v', 'm', 'p', 'f')"
            )
            return {(database, schema.lower(), name.lower()) for schema, name in cursor.fetchall()}
    except psycopg2.Error:
        return None
    finally:
        connection.close()


def _databases(places: set[Relation]) -> set[str]:
    return {database.lower() for database, *_ in places}


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
