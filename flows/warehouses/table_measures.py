"""What is compared of two tables: rows, columns, sums of exact numbers, and the keys of their rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.warehouses.tables import Tables

_EXACT = re.compile(r"(?:decimal|numeric|number|bignumeric)(?:\(\s*\d+\s*,\s*(\d+)\s*\))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Measured:
    """A table in figures.

    Attributes:
        columns: type by name.
        sums: of each column of exact numbers with decimals; 0 for one without values.
    """

    rows: int
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    sums: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])


def measure(tables: Tables, relation: str) -> Measured:
    """Return the figures of a table."""
    columns = tables.columns(relation)
    exact = [name for name, kind in columns.items() if has_decimals(kind)]
    sums = "".join(f", sum({tables.column(name)}) as sum_{place}" for place, name in enumerate(exact))
    (row,) = tables.rows(f"select count(*) as counted{sums} from {relation}")
    found = {name: Decimal(str(row[f"sum_{place}"] or 0)) for place, name in enumerate(exact)}
    return Measured(int(row["counted"]), columns, found)


def has_decimals(kind: str) -> bool:
    """Say whether a type holds exact numbers with decimals, such as money."""
    found = _EXACT.match(kind)
    return found is not None and found[1] != "0"


def missing_keys(tables: Tables, key: Sequence[str], of: str, in_: str) -> int:
    """Return how many keys of one table are not in another of the same warehouse."""
    names = [tables.column(name) for name in key]
    same = " and ".join(f"n.{name} = o.{name}" for name in names)
    (row,) = tables.rows(
        f"select count(*) as counted from {of} as o where not exists (select 1 from {in_} as n where {same})"
    )
    return int(row["counted"])
