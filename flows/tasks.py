"""The door for flows of one's own: dbt's commands as Prefect tasks, each on the profile block of a target."""

from flows.pipelines.tasks import build, docs, run, seed, snapshot, source_freshness, test

__all__ = ["build", "docs", "run", "seed", "snapshot", "source_freshness", "test"]
