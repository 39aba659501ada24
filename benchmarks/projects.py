"""dbt projects of a given size to measure on: cheap SQL, so that what is around it shows."""

from __future__ import annotations

import json
from pathlib import Path

# A node in ten is the root of a chain; each model stands on the one a row above it, as in a layered project.
WIDTH = 10
# Of a hundred nodes, so many are models and the rest tests: about what projects in the field have.
MODELS_PERCENT = 40


def write_project(folder: Path, nodes: int, threads: int = 4) -> Path:
    """Write a dbt project of about `nodes` models and tests, with a profile on a DuckDB file, and return its folder."""
    models = max(1, nodes * MODELS_PERCENT // 100)
    tests = nodes - models
    project = folder / "project"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text(
        "name: bench\nversion: '1.0'\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n"
        "models: {bench: {+materialized: table}}\n"
    )
    for number in range(models):
        above = number - WIDTH
        source = f"select id + 1 as id from {{{{ ref('model_{above}') }}}}" if above >= 0 else "select 1 as id"
        (project / "models" / f"model_{number}.sql").write_text(f"{source}\n")
    (project / "models" / "models.yml").write_text(json.dumps(_properties(models, tests)))
    output = {"type": "duckdb", "path": str(folder / "bench.duckdb"), "schema": "main", "threads": threads}
    (folder / "profiles.yml").write_text(json.dumps({"bench": {"target": "dev", "outputs": {"dev": output}}}))
    return project


def _properties(models: int, tests: int) -> dict[str, object]:
    """Spread the tests over the models: not_null first, then unique."""
    entries: list[dict[str, object]] = []
    for number in range(models):
        mine = [kind for place, kind in enumerate(("not_null", "unique")) if number + place * models < tests]
        entries.append({"name": f"model_{number}", "columns": [{"name": "id", "data_tests": mine}]})
    return {"models": entries}


def write_small_project(folder: Path) -> Path:
    """Write a dbt project of three models and two tests."""
    project = folder / "project"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text(
        "name: fleet\nversion: '1.0'\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n"
        "models: {fleet: {+materialized: table}}\n"
    )
    models = {
        "numbers": "select i as id, i % 7 as day from generate_series(1, 10000) as made(i)",
        "days": "select day, count(*) as ids from {{ ref('numbers') }} group by day",
        "total": "select sum(ids) as ids from {{ ref('days') }}",
    }
    for name, sql in models.items():
        (project / "models" / f"{name}.sql").write_text(f"{sql}\n")
    tested = [{"name": "id", "data_tests": ["unique", "not_null"]}]
    (project / "models" / "models.yml").write_text(json.dumps({"models": [{"name": "numbers", "columns": tested}]}))
    return project
