"""Mark the schemas of a pull request's build before it builds in them, and drop them by that mark afterwards.

A name proves nothing: `ci_feature_x` may be where the build of `ci_feature` puts its folder `x`, or another's schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.engine.artifacts.manifest import DATA_TYPES, Manifest
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import Project
from flows.engine.context.reporting import current_reporter
from flows.engine.process.listing import list_nodes
from flows.warehouses.door import open_warehouse
from flows.warehouses.warehouse import Warehouse
from infrastructure.errors import ConfigError, preview
from infrastructure.workspace import targets_file

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

# Only schemas whose names begin with this are ever marked or dropped, whatever mark they have.
PREFIX = "ci_"
# The table that marks a schema: its one row names the own schema of the target that was built.
MARK = "tributary_made_for"
_OWN = re.compile(rf"{PREFIX}[a-z0-9]\w*", re.IGNORECASE)
_WRITE = frozenset({"build", "run", "seed", "snapshot", "test"})
_STORE_FAILURES = "--store-failures"


@dataclass(frozen=True)
class Dropped:
    """What `drop_schemas` did, or would do.

    Attributes:
        schemas: those that were dropped.
        left: schemas with the target's name that no build of it created.
    """

    schemas: list[str]
    left: list[str]


def own_schema(profile: Profile) -> str | None:
    """Return the schema of a pull request's target, in lower case; None for any other target."""
    schema = _schema(profile)
    return schema.lower() if _OWN.fullmatch(schema) else None


def claim_schemas(command: DbtCommand, project: Project, profile: Profile) -> None:
    """Create and mark the schemas that a command will build in; do nothing on other targets.

    A schema that existed before, without a mark, stays without one: another user owns it, and it is never dropped.

    Raises:
        ConfigError: another pull request builds in one of them.
    """
    own = own_schema(profile)
    if own is None or command.verb not in _WRITE:
        return
    selected, manifest = list_nodes(command, project, profile)
    claim(profile, built_in(manifest, selected, _STORE_FAILURES in command.flags))


def claim(profile: Profile, wanted: Mapping[str, str]) -> None:
    """Create and mark schemas for the target of a pull request; see `claim_schemas` and `built_in`."""
    own = own_schema(profile)
    with open_warehouse(profile) as tables:
        found = _marks(tables, profile)
        there = {name.lower() for name in _schemas(tables, profile)}
        others = [f"{name} (made for {found[name]})" for name in wanted if found.get(name, own) != own]
        if others:
            raise ConfigError(
                f"Target {profile.target} would build in {preview(others)}: two pull requests would write to the same "
                f"tables. Give this one another schema than {own}; {targets_file()} says where it is named."
            )
        for name, as_written in wanted.items():
            if name not in there:
                _make(tables, as_written, own)
        if strange := [name for name in wanted if name in there and name not in found]:
            current_reporter().note(
                f"{preview(strange)} existed before this build and has no mark of one: drop-schema will keep it."
            )


def built_in(manifest: Manifest, selected: Iterable[str], stores_failures: bool = False) -> dict[str, str]:
    """Return the schemas in which these nodes of a manifest are built: by name in lower case, the name as written.

    Those that are never dropped are left out.
    """
    found: dict[str, str] = {}
    for node in (manifest.nodes[each] for each in selected if each in manifest.nodes):
        is_built = node.resource_type in DATA_TYPES and not node.is_ephemeral
        is_stored = node.resource_type == "test" and (stores_failures or node.stores_failures)
        if (is_built or is_stored) and _OWN.fullmatch(node.schema):
            found[node.schema.lower()] = node.schema
    return found


def drop_schemas(profile: Profile, dry_run: bool = False) -> Dropped:
    """Drop the schemas that the builds of a pull request's target created, with everything in them.

    Args:
        dry_run: only return which.

    Raises:
        ConfigError: the target's schema is not one that is made for a pull request, one may not be dropped, or
            something elsewhere reads what is in them.
        UpstreamUnavailable: the warehouse does not answer.
    """
    own = own_schema(profile)
    if own is None:
        raise ConfigError(
            f"Target {profile.target} builds in schema {_schema(profile)!r}, which is not dropped: only schemas whose "
            f"name begins with {PREFIX} and goes on are, such as {PREFIX}pr_42. "
            f"{targets_file()} says which a target has."
        )
    with open_warehouse(profile) as tables:
        made_for = _marks(tables, profile)
        there = _schemas(tables, profile)
        found = [name for name in there if made_for.get(name.lower()) == own and _OWN.fullmatch(name)]
        # Its own goes last, so that an interrupted drop can be repeated.
        found.sort(key=lambda name: (name.lower() == own, name))
        left = sorted(name for name in there if name.lower() == own and name not in found)
        if found and not dry_run:
            _require_unread(tables, found)
            for name in found:
                tables.execute(f"drop schema if exists {_quoted(tables, name)} cascade")
    return Dropped(found, left)


def _schema(profile: Profile) -> str:
    return str(profile.output.get("schema") or profile.output.get("dataset") or "")


def _make(tables: Warehouse, schema: str, own: str | None) -> None:
    # One transaction where possible: a schema that a kill leaves without its mark would never be dropped.
    with tables.transaction() if tables.has_transactional_ddl else nullcontext():
        tables.make_schema(schema)
        # `own` is letters, digits and underscores; see _OWN.
        tables.execute(f"create table {tables.placed(schema, MARK)} as select '{own}' as made_for")


def _marks(tables: Warehouse, profile: Profile) -> dict[str, str]:
    """Return the owner of each schema with a mark, by its name in lower case."""
    catalog = {
        "duckdb": "select table_schema as schema_name from information_schema.tables "
        "where table_catalog = current_database() and lower(table_name) = ?",
        # information_schema leaves out what the user may not read, and then its mark can't be read either.
        "bigquery": f"select table_schema as schema_name from {_region(profile)}.INFORMATION_SCHEMA.TABLES "
        "where lower(table_name) = ?",
    }.get(
        tables.kind,
        "select table_schema as schema_name from information_schema.tables where lower(table_name) = ?",
    )
    found: dict[str, str] = {}
    for row in tables.rows(catalog, [MARK]):
        name = str(row["schema_name"])
        if _OWN.fullmatch(name):
            mark = f"{_quoted(tables, name)}.{_quoted(tables, MARK.upper() if tables.kind == 'snowflake' else MARK)}"
            made_for = {str(mark_row["made_for"]) for mark_row in tables.rows(f"select made_for from {mark}")}
            found[name.lower()] = made_for.pop() if len(made_for) == 1 else "an unknown target"
    return found


def _schemas(tables: Warehouse, profile: Profile) -> list[str]:
    query = {
        "postgres": "select nspname as schema_name from pg_namespace",
        "duckdb": "select schema_name from information_schema.schemata where catalog_name = current_database()",
        "bigquery": f"select schema_name from {_region(profile)}.INFORMATION_SCHEMA.SCHEMATA",
    }.get(tables.kind, "select schema_name from information_schema.schemata")
    return sorted({str(row["schema_name"]) for row in tables.rows(query)})


def _region(profile: Profile) -> str:
    return f"`{profile.output.get('project')}`.`region-{str(profile.output.get('location') or 'US').lower()}`"


def _require_unread(tables: Warehouse, schemas: Sequence[str]) -> None:
    """Raise an error where `cascade` would reach other schemas: PostgreSQL also drops views that read from these."""
    if tables.kind != "postgres":
        return
    places = ", ".join("?" for _ in schemas)
    rows = tables.rows(
        "select distinct view_schema.nspname || '.' || view.relname as name from pg_depend d "
        "join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid "
        "join pg_class view on view.oid = r.ev_class "
        "join pg_namespace view_schema on view_schema.oid = view.relnamespace "
        "join pg_class read on d.refclassid = 'pg_class'::regclass and read.oid = d.refobjid "
        "join pg_namespace read_schema on read_schema.oid = read.relnamespace "
        f"where read_schema.nspname in ({places}) and view_schema.nspname not in ({places}) order by 1",
        [*schemas, *schemas],
    )
    if rows:
        raise ConfigError(
            f"{preview(list(schemas))} can't be dropped: {preview([str(row['name']) for row in rows])} reads from "
            "there and would go too. Drop or change what reads first, then run this again."
        )


def _quoted(tables: Warehouse, name: str) -> str:
    return f"`{name}`" if tables.kind == "bigquery" else '"' + name.replace('"', '""') + '"'
