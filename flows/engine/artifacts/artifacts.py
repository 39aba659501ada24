"""What a dbt command has left in its target folder, each file read in one way for all who ask."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import orjson

from flows.engine.artifacts.manifest import Manifest, Node
from flows.engine.artifacts.manifest_file import MANIFEST, WRONG, load_manifest
from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of

RUN_RESULTS, SOURCES, CATALOG = "run_results.json", "sources.json", "catalog.json"
# The artifact that says what a command did; without one of its own, it has failed.
PROOFS = {
    **dict.fromkeys(("build", "run", "test", "seed", "snapshot"), RUN_RESULTS),
    "source freshness": SOURCES,
    "docs generate": CATALOG,
}
_PERIOD_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}

Details = Mapping[str, Mapping[str, Any]]


class Limit(NamedTuple):
    """How old a source may be, such as 2 days."""

    number: int
    period: str

    @property
    def seconds(self) -> float:
        """Return it in seconds."""
        return float(self.number * _PERIOD_SECONDS[self.period])

    def __str__(self) -> str:
        return count_of(self.number, self.period)


class SourceAge(NamedTuple):
    """What a freshness check says of a source table; what it could not find out is None.

    Attributes:
        said: max_loaded_at as dbt writes it.
        max_loaded_at: a day in the year 1 for a table without rows.
    """

    said: str | None
    max_loaded_at: datetime | None
    checked_at: datetime | None
    age_seconds: float | None
    warn_after: Limit | None
    error_after: Limit | None

    @property
    def loaded_at(self) -> datetime | None:
        """Return when its newest row was loaded; None for a table without rows."""
        return self.max_loaded_at if self.max_loaded_at and self.max_loaded_at.year > 1 else None


class ResultsFile(NamedTuple):
    """A run_results.json, or another file of results; empty where it is none.

    Attributes:
        document: all that it holds.
        entries: dbt's own by unique id.
    """

    document: Mapping[str, Any] = MappingProxyType({})
    entries: Details = MappingProxyType({})
    invocation_id: str | None = None
    written_at: datetime | None = None


@dataclass(frozen=True)
class Artifacts:
    """The artifacts in one folder.

    Attributes:
        folder: dbt's target folder.
    """

    folder: Path

    @property
    def manifest(self) -> Manifest:
        """Return the manifest.

        Raises:
            ConfigError: it is missing or is none.
        """
        return load_manifest(self.folder / MANIFEST)

    @property
    def manifest_if_any(self) -> Manifest:
        """Return the manifest; an empty one where there is none that can be read."""
        try:
            return self.manifest
        except ConfigError:
            return Manifest({})

    def proves(self, name: str, invocation_id: str | None) -> bool:
        """Say whether an artifact is of this dbt command."""
        return bool(invocation_id) and _read(self.folder / name).invocation_id == invocation_id

    def run_results(self, invocation_id: str | None) -> Details:
        """Return dbt's own results by unique id; empty when they are missing or of another dbt command."""
        found = _read(self.folder / RUN_RESULTS)
        return found.entries if invocation_id and found.invocation_id == invocation_id else {}

    def compiled_file(self, node: Node | None, since: datetime) -> tuple[Path, str] | None:
        """Return file and content of the SQL that a node was compiled to since a moment; None where there is none."""
        if node is None or not node.path:
            return None
        folder = self.folder / "compiled" / node.unique_id.split(".")[1]
        own = folder / node.path
        # A generic test has a file below that of its description, under a name that dbt may have shortened; with dbt 2
        # it is elsewhere.
        try:
            below = [each for each in own.iterdir() if each.name.startswith(node.name[:30])] if own.is_dir() else []
            below.sort(key=lambda each: each.stem != node.name)
            places = [own, *below, folder / "generic_tests" / f"{node.name}.sql"]
            path = next((each for each in places if each.is_file()), None)
            if path and path.stat().st_mtime >= since.timestamp():
                return path, path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        return None

    def sources(self, since: datetime | None = None, invocation_id: str | None = None) -> dict[str, SourceAge]:
        """Return what a freshness check found, by unique id; empty where there is none that can be read.

        Args:
            since: an earlier check says nothing.
            invocation_id: nor does that of another dbt command.
        """
        found = _read(self.folder / SOURCES)
        is_earlier = since is not None and (found.written_at is None or found.written_at < since)
        return {} if is_earlier or invocation_id not in (None, found.invocation_id) else ages_in(found)


def results_file(content: bytes) -> ResultsFile:
    """Return what a file of results says."""
    try:
        document = cast(Mapping[str, Any], orjson.loads(content))
        metadata: Mapping[str, Any] = document.get("metadata") or {}
        entries = {entry["unique_id"]: entry for entry in document.get("results") or ()}
        return ResultsFile(document, entries, metadata.get("invocation_id"), moment_of(metadata.get("generated_at")))
    except WRONG:
        return ResultsFile()


def _read(path: Path) -> ResultsFile:
    try:
        return results_file(path.read_bytes())
    except OSError:
        return ResultsFile()


def ages_in(found: ResultsFile) -> dict[str, SourceAge]:
    """Return what a sources.json says of each source by unique id."""
    return {unique_id: _age(entry) for unique_id, entry in found.entries.items()}


def carried_over(
    name: str, earlier: Path | None, folder: Path, alive: Container[str], fresh: Details | None = None
) -> bytes | None:
    """Return a file of results with the entries of an earlier one that this one lacks; None where there are none.

    Args:
        earlier, folder: where the two are.
        alive: unique ids; what else there is, is gone from the project.
        fresh: the entries that count of this one; all when None.
    """
    before = _read(earlier / name) if earlier else ResultsFile()
    now = _read(folder / name) if fresh is None or fresh else ResultsFile()
    entries = {**before.entries, **(now.entries if fresh is None else fresh)}
    if not entries:
        return None
    alive_ones = [entry for key, entry in entries.items() if key in alive]
    return orjson.dumps({**before.document, **now.document, "results": alive_ones})


def moment_of(text: object) -> datetime | None:
    """Return a moment of dbt's artifacts; dbt leaves out the zone of some, and means UTC. None for what is none."""
    try:
        moment = datetime.fromisoformat(cast(str, text))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _age(entry: Mapping[str, Any]) -> SourceAge:
    limits: Mapping[str, Any] = entry.get("criteria") or {}
    return SourceAge(
        entry.get("max_loaded_at"),
        moment_of(entry.get("max_loaded_at")),
        moment_of(entry.get("snapshotted_at")),
        entry.get("max_loaded_at_time_ago_in_s"),
        _limit(limits.get("warn_after")),
        _limit(limits.get("error_after")),
    )


def _limit(said: Mapping[str, Any] | None) -> Limit | None:
    return Limit(said["count"], said["period"]) if said and said.get("count") else None
