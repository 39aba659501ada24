"""Which clients of other warehouses the processes of a run on DuckDB import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from infrastructure.workspace import ROOT

CLIENTS = {
    "postgres": ("psycopg2", "dbt.adapters.postgres"),
    "snowflake": ("snowflake.connector", "dbt.adapters.snowflake"),
    "bigquery": ("google.cloud.bigquery", "google.auth", "dbt.adapters.bigquery"),
}
# Python imports a module of this name by itself, in the flow's process and in every child of it.
_SITE = """
import atexit, json, os, sys
def leave():
    with open(os.path.join(os.environ["PYTHON_MODULES_OF_PROCESSES"], f"{os.getpid()}.json"), "w") as file:
        json.dump(sorted(sys.modules), file)
atexit.register(leave)
"""
_RUN = """
import sys
from pathlib import Path
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.run import run_dbt
from flows.pipelines.full import dbt_full_pipeline
from flows.loaders.sample_data import write_sample_data
import infrastructure.connection_check.check
from infrastructure.profiles import Profile
folder = Path(sys.argv[1])
profile = Profile("imports", "small", {"type": "duckdb", "path": str(folder / "data.duckdb"), "schema": "dev"}, {})
write_sample_data(profile, rows=10, seed=1)
result = run_dbt(DbtCommand("build"), RunContext(read_project(folder / "small"), profile))
assert result.counts()["succeeded"] == 1, result
"""


def installed() -> list[str]:
    """Return the warehouses whose clients are in this environment."""
    return [name for name in CLIENTS if find_spec(f"dbt.adapters.{name}") is not None]


def clients_imported(folder: Path) -> dict[str, list[str]]:
    """Load data and run a model on DuckDB in fresh processes; return the other clients that each of them imported.

    Args:
        folder: an empty one, for the database and what the processes leave behind.
    """
    (folder / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
    (folder / "modules").mkdir()
    (folder / "small" / "models").mkdir(parents=True)
    project = "{name: small, profile: small, version: '1.0'}"
    (folder / "small" / "dbt_project.yml").write_text(project, encoding="utf-8")
    (folder / "small" / "models" / "one.sql").write_text("select 1 as one", encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "PYTHON_MODULES_OF_PROCESSES": str(folder / "modules"),
        "TRIBUTARY_STATE": str(folder / "state"),
    }
    command = [sys.executable, "-c", _RUN, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    others = {module for modules in CLIENTS.values() for module in modules}
    found: dict[str, list[str]] = {}
    for file in (folder / "modules").iterdir():
        modules = set(json.loads(file.read_text(encoding="utf-8")))
        kind = "flow" if "flows.pipelines.full" in modules else "dbt" if "dbt.cli.main" in modules else "other"
        found[kind] = sorted(set(found.get(kind, [])) | (others & modules))
    return found
