"""Two dbt projects of one workspace, one of them on a git server, run by a worker."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from prefect.client.orchestration import get_client

from deployments.apply import main
from infrastructure.blocks.documents import BlockChange, BlockDocument
from infrastructure.server.client import connect
from tests.support.git_server import git_server
from tests.support.processes import wait_until
from tests.support.workers import worker_of

TOKEN = "geheim-4711"


def _project(folder: Path, name: str) -> None:
    (folder / "models").mkdir(parents=True)
    settings = {"name": name, "profile": "ours", "flags": {"send_anonymous_usage_stats": False}}
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(settings))
    (folder / "models" / f"{name}_model.sql").write_text("select 1 as id")


@pytest.mark.slow
def test_a_worker_runs_each_project_of_a_workspace_from_its_own_place(
    prefect_server: str, fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _project(tmp_path / "shop", "shop")
    _project(tmp_path / "finance" / "dbt", "finance")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for arguments in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-qm", "one")):
        subprocess.run(["git", *arguments], cwd=tmp_path / "finance", check=True)
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(head, cwd=tmp_path / "finance", check=True, capture_output=True, text=True).stdout.strip()
    document = BlockDocument("secret", fresh, {"value": TOKEN})
    with connect() as server:
        server.save_block(BlockChange(document.slug, "create", document=document))
    own = tmp_path / "ours"
    own.mkdir()
    for name, value in {"TRIBUTARY_WORKSPACE": own, "XDG_CACHE_HOME": tmp_path / "cache"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("TRIBUTARY_STATE", raising=False)
    monkeypatch.setenv("TRIBUTARY_HISTORY", str(tmp_path / "history"))
    with git_server(tmp_path, f"x-access-token:{TOKEN}") as git, worker_of(fresh):
        finance = {"git": f"{git.address}/finance/.git", "folder": "dbt", "credentials_block": f"secret/{fresh}"}
        target = {"warehouse": "duckdb", "path": "ours.duckdb", "schema": "main"}
        flow = "flows.pipelines.full.dbt_full_pipeline"
        files = {
            "tributary.yml": {"projects": {"shop": {"folder": "../shop"}, "finance": finance}},
            "targets.yml": {"profile": "ours", "default": fresh, "targets": {fresh: target}},
            "schedules.yml": {
                "owner": fresh,
                "defaults": {"target": fresh, "work_pool": fresh},
                "work_pools": {fresh: {"type": "process"}},
                "deployments": {
                    f"dbt-full-pipeline/{name}-{fresh}": {
                        "flow": flow,
                        "project": name,
                        # What the worker itself is not given, each of its runs is.
                        "job_variables": {"env": {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}},
                    }
                    for name in ("shop", "finance")
                },
            },
        }
        for name, content in files.items():
            (own / name).write_text(yaml.safe_dump(content))
        # As init writes them.
        (own / ".tributary").mkdir()
        (own / ".tributary" / ".gitignore").write_text("*\n")
        (own / ".gitignore").write_text("*.duckdb\n*.duckdb.wal\n")
        for arguments in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-qm", "one")):
            subprocess.run(["git", *arguments], cwd=own, check=True)
        from infrastructure.setup_profiles import main as setup

        assert CliRunner().invoke(setup, []).exit_code == 0
        applied = CliRunner().invoke(main, ["apply"])
        assert applied.exit_code == 0, applied.output
        with get_client(sync_client=True) as client:
            runs = {
                name: client.create_flow_run_from_deployment(
                    client.read_deployment_by_name(f"dbt-full-pipeline/{name}-{fresh}").id
                ).id
                for name in ("shop", "finance")
            }
            wait_until(
                lambda: all((state := client.read_flow_run(run).state) and state.is_final() for run in runs.values()),
                "both runs have ended",
                seconds=500,
            )
            ended = {name: client.read_flow_run(run) for name, run in runs.items()}
    assert {name: run.state and run.state.type.value for name, run in ended.items()} == dict.fromkeys(runs, "COMPLETED")
    assert {name: run.name for name, run in ended.items()} == {name: f"{name} build {fresh}" for name in runs}

    import duckdb

    with duckdb.connect(str(own / "ours.duckdb"), read_only=True) as connection:
        built = connection.execute("select table_name from information_schema.tables").fetchall()
        found = connection.execute(
            f"select distinct project, commit_hash from read_parquet('{tmp_path}/history/**/*.parquet')"
        ).fetchall()
    status = ["git", "status", "--porcelain"]
    changed = subprocess.run(status, cwd=own, check=True, capture_output=True, text=True).stdout
    assert changed == "", "nothing of the user's is touched"
    assert {name for (name,) in built} >= {"shop_model", "finance_model"}
    assert sorted(found) == [("finance", commit), ("shop", None)]
