"""Drop the schemas that a pull request's build has made: those of its target, if they are of the kind made for that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.operations.tables import Tables, open_tables
from infrastructure.errors import ConfigError

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

# Only schemas whose name begins so are ever dropped.
PREFIX = "ci_"
_OWN = re.compile(rf"{PREFIX}[a-z0-9]\w*", re.IGNORECASE)


def schemas_of(profile: Profile, there: Sequence[str]) -> list[str]:
    """Return which schemas dbt makes for a target: its own, and its own with a folder's name behind it.

    Raises:
        ConfigError: the target's schema is not one that was made for a pull request.
    """
    settings = profile.connection()
    schema = str(settings.get("schema") or settings.get("dataset") or "")
    if not _OWN.fullmatch(schema):
        raise ConfigError(
            f"Target {profile.target} builds in schema {schema!r}, which is not dropped: only schemas whose name "
            f"begins with {PREFIX} and goes on are, such as {PREFIX}pr_42. "
            "infrastructure/targets.yml says which a target has."
        )
    own = schema.lower()
    return sorted(name for name in set(there) if name.lower() == own or name.lower().startswith(f"{own}_"))


def drop_schemas(profile: Profile, dry_run: bool = False) -> list[str]:
    """Drop the schemas of a pull request's target with all that is in them, and return their names.

    Args:
        dry_run: only say which.

    Raises:
        ConfigError: the target's schema is not one that was made for a pull request, or may not be dropped.
        UpstreamUnavailable: the warehouse does not answer.
    """
    # A target that is not to be touched is refused before anything is connected to.
    schemas_of(profile, ())
    with open_tables(profile) as tables:
        found = schemas_of(profile, [str(row["schema_name"]) for row in tables.rows(_listing(tables, profile))])
        for name in () if dry_run else found:
            tables.execute(f"drop schema if exists {_quoted(tables, name)} cascade")
    return found


def _listing(tables: Tables, profile: Profile) -> str:
    if tables.warehouse == "postgres":
        return "select nspname as schema_name from pg_namespace"
    if tables.warehouse == "duckdb":
        return "select schema_name from information_schema.schemata where catalog_name = current_database()"
    if tables.warehouse == "bigquery":
        settings = profile.connection()
        region = f"`{settings['project']}`.`region-{str(settings.get('location') or 'US').lower()}`"
        return f"select schema_name from {region}.INFORMATION_SCHEMA.SCHEMATA"
    return "select schema_name from information_schema.schemata"


def _quoted(tables: Tables, name: str) -> str:
    return f"`{name}`" if tables.warehouse == "bigquery" else '"' + name.replace('"', '""') + '"'
