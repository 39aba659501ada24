"""Find stale sources and what they affect downstream: models and exposures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.events import name_in
from infrastructure.errors import preview
from infrastructure.plain_text import count_of


@dataclass(frozen=True)
class Stale:
    """A source table that is older than its freshness allows, or that could not be checked.

    Attributes:
        source, table: as in `source('supabase', 'payment')`.
        loaded_at: None for a table without rows, or one that could not be read.
        models: names of all models downstream.
        exposures: names of all exposures downstream.
    """

    source: str
    table: str
    loaded_at: datetime | None
    models: Sequence[str]
    exposures: Sequence[str]

    def __str__(self) -> str:
        age = f"is of {self.loaded_at:%Y-%m-%d %H:%M} UTC" if self.loaded_at else "has no rows, or could not be read"
        hurts = f"{count_of(len(self.models), 'model')} {'depends' if len(self.models) == 1 else 'depend'} on it"
        if self.exposures:
            hurts += f", and people read: {preview(self.exposures)}"
        return f"source {self.source}.{self.table} {age}; {hurts}"


def stale_sources(result: DbtResult, manifest: Manifest) -> list[Stale]:
    """Return the source tables that a freshness check found too old or could not read, and what they affect."""
    ages = result.artifacts.sources()
    loaded = {unique_id: age.loaded_at for unique_id, age in ages.items()}
    return [
        stale_of(node.unique_id, loaded.get(node.unique_id), manifest)
        for node in sorted(result.of("failed", "warned"), key=lambda node: node.unique_id)
    ]


def stale_of(unique_id: str, loaded_at: datetime | None, manifest: Manifest) -> Stale:
    """Return what a stale source table affects."""
    source, _, table = name_in(unique_id).partition(".")
    below = [manifest.nodes[each] for each in manifest.downstream([unique_id]) if each in manifest.nodes]
    models = sorted(node.name for node in below if node.resource_type in ("model", "snapshot"))
    exposures = sorted(node.name for node in below if node.resource_type == "exposure")
    return Stale(source, table, loaded_at, tuple(models), tuple(exposures))
