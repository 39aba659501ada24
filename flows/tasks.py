"""The door for flows of one's own: dbt's commands as Prefect tasks, each on the profile block of a target."""

from flows.pipelines.tasks import build, docs, run, seed, snapshot, source_freshness, test
from infrastructure.profiles import dbt_environment

__all__ = ["build", "dbt_environment", "docs", "run", "seed", "snapshot", "source_freshness", "test"]
