"""Which nodes of two manifests differ in how their text is written, and not in what it says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import orjson

from flows.engine.artifacts.fingerprints import Values
from flows.engine.artifacts.manifest import reach
from flows.engine.artifacts.manifest_fingerprints import config_of, inputs_of, packages_of_dbt
from flows.engine.artifacts.sql_meaning import says_the_same

# Macros that read the text of the node that calls them.
_READS_TEXT = re.compile(r"\b(raw|compiled)_(code|sql)\b")
# Beside its text, what decides what a node's code is.
_BESIDE = ("resource_type", "language", "test_metadata", "column_name", "unrendered_config")


def reworded(
    codes: Mapping[str, str], then: Mapping[str, Any], now: bytes | Mapping[str, Any], values: Values
) -> frozenset[str]:
    """Return those of some nodes whose code, that of the ephemeral models in it included, says what it said then.

    Args:
        codes: the fingerprint of the code that each was built from. Of an ephemeral model the manifest of then can have
            the text of another run than that.
    """
    old = inputs_of(then, values).nodes
    after = orjson.loads(now) if isinstance(now, bytes) else now
    comparison = _Comparison(then, cast(Mapping[str, Any], after))
    proven = (key for key, code in codes.items() if key in old and old[key].parts.code == code)
    return frozenset(key for key in proven if comparison.is_same(key))


class _Comparison:
    def __init__(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        self._then: Mapping[str, Mapping[str, Any]] = then.get("nodes") or {}
        self._now: Mapping[str, Mapping[str, Any]] = now.get("nodes") or {}
        self._macros: Mapping[str, Mapping[str, Any]] = now.get("macros") or {}
        self._adapter = str((now.get("metadata") or {}).get("adapter_type") or "")
        self._internal = packages_of_dbt(self._adapter)
        self._known: dict[str, bool] = {}

    def is_same(self, unique_id: str) -> bool:
        """Say whether a node's code says the same; a circle, which dbt refuses to build, does not."""
        if unique_id not in self._known:
            self._known[unique_id] = False
            self._known[unique_id] = self._is_same(unique_id)
        return self._known[unique_id]

    def _is_same(self, unique_id: str) -> bool:
        then, now = self._then.get(unique_id), self._now.get(unique_id)
        if not then or not now or now.get("language", "sql") != "sql":
            return False
        if any(then.get(name) != now.get(name) for name in _BESIDE) or _before(then) != _before(now):
            return False
        texts = str(then.get("raw_code") or ""), str(now.get("raw_code") or "")
        if texts[0] != texts[1] and (self._is_read(now) or not says_the_same(*texts, self._adapter)):
            return False
        return all(self._is_same_inside(parent) for parent in _before(now))

    def _is_same_inside(self, parent: str) -> bool:
        entries = self._then.get(parent), self._now.get(parent)
        inlined = [entry for entry in entries if entry and _is_ephemeral(entry)]
        if not inlined:
            return True
        return len(inlined) == 2 and config_of(inlined[0]) == config_of(inlined[1]) and self.is_same(parent)

    def _is_read(self, entry: Mapping[str, Any]) -> bool:
        """Say whether a node or a macro that it reaches looks at its text."""

        def called(unique_id: str) -> Iterable[str]:
            return _macros_of(self._macros.get(unique_id) or {})

        reached = (self._macros.get(key) or {} for key in reach(_macros_of(entry), called))
        theirs = (macro for macro in reached if macro.get("package_name") not in self._internal)
        texts = [str(macro.get("macro_sql") or "") for macro in theirs]
        return any(_READS_TEXT.search(text) for text in (*texts, str(entry.get("raw_code") or "")))


def _before(entry: Mapping[str, Any]) -> list[str]:
    return sorted((entry.get("depends_on") or {}).get("nodes") or ())


def _macros_of(entry: Mapping[str, Any]) -> list[str]:
    return [key for key in (entry.get("depends_on") or {}).get("macros") or () if key]


def _is_ephemeral(entry: Mapping[str, Any]) -> bool:
    return (entry.get("config") or {}).get("materialized") == "ephemeral"
