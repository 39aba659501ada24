"""Names in SQL, and the places of values in it, as the four warehouses write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of

_PART = re.compile(r'"((?:[^"]|"")*)"|`([^`]*)`|([^."`]+)')


def quoted(*names: str) -> str:
    """Quote the parts of an SQL identifier and join them with dots."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def parts_of(relation: str) -> list[tuple[str, bool]]:
    """Take a relation apart into its names, and whether each was quoted.

    Raises:
        ConfigError: it is no name of a table with one to three parts.
    """
    found = [
        (quoted.replace('""', '"') or ticked or plain, not plain) for quoted, ticked, plain in _PART.findall(relation)
    ]
    # BigQuery also takes all parts in one pair of ticks.
    if len(found) == 1 and relation.startswith("`"):
        found = [(part, True) for part in found[0][0].split(".")]
    if not 1 <= len(found) <= 3:
        raise ConfigError(f"{relation!r} is no name of a table, such as dbt writes it: database.schema.name.")
    return found


# Quoted names and comments, in which a question mark stands for itself as it does in texts; and question marks.
_ELSEWHERE = r"\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*[\s\S]*?\*/|(\?)"
_PLACES = r"'(?:[^']|'')*'|" + _ELSEWHERE
_PLACES_WITH_ESCAPES = r"'(?:[^'\\]|\\[\s\S]|'')*'|" + _ELSEWHERE


def with_places(sql: str, places: Sequence[str], has_escapes: bool = False) -> str:
    """Put a client's own places of values where the question marks are; none in texts, names and comments.

    Args:
        has_escapes: whether a backslash inside a text takes the meaning from what follows.

    Raises:
        ConfigError: there are more or fewer question marks than places.
    """
    left = list(places)

    def put(match: re.Match[str]) -> str:
        if not match[1]:
            return match[0]
        return left.pop(0) if left else "?!"

    text = re.sub(_PLACES_WITH_ESCAPES if has_escapes else _PLACES, put, sql)
    if left or "?!" in text:
        raise ConfigError(f"{count_of(len(places), 'value')} were given for the question marks of: {sql}")
    return text


def with_percent_places(sql: str, values: Sequence[object], has_escapes: bool = False) -> tuple[str, Sequence[object]]:
    """Return SQL and values as a client takes them whose places are `%s`; without values it takes `%` as it stands."""
    if not values:
        return sql, values
    return with_places(sql.replace("%", "%%"), ["%s"] * len(values), has_escapes), values
