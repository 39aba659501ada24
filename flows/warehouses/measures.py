"""The figures by which two tables are compared: rows, columns and sums of exact numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

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


def has_decimals(kind: str) -> bool:
    """Return whether a type has exact numbers with decimals, such as money."""
    found = _EXACT.match(kind)
    return found is not None and found[1] != "0"
