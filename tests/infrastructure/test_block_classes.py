"""Flows of one's own with Prefect's block classes, on blocks that setup saved; and that no run of ours needs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.block_libraries import run_with_libraries
from tests.support.prefect_api import SetUpTarget

pytestmark = pytest.mark.slow

PASSWORD = "POSTGRES_PASSWORD_OF_TEST"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "models").mkdir(parents=True)
    settings = {"name": "house", "profile": "tributary", "flags": {"send_anonymous_usage_stats": False}}
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(settings))
    for name in ("first", "second", "third"):
        (folder / "models" / f"{name}.sql").write_text("{{ config(materialized='table') }} select 1 as version")
    return folder


def test_prefect_dbt_builds_a_target_in_each_documented_way(
    set_up_target: SetUpTarget, postgres_database: dict[str, Any], project: Path, tmp_path: Path
) -> None:
    import psycopg2

    # A server that trusts this machine takes any password.
    password = postgres_database["password"] or "geheim-4711"
    plain = {name: value for name, value in postgres_database.items() if name != "password"}
    settings = plain | {"warehouse": "postgres", "schema": "block_classes", "password_env": PASSWORD}
    target = set_up_target(settings | {"credentials_block": "block-classes"}, {PASSWORD: password})
    profiles = tmp_path / "profiles"
    asked = {"target": target, "project": str(project), "profiles": str(profiles)}

    run = run_with_libraries("tests.infrastructure.use_block_classes", {}, json.dumps(asked))

    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    with psycopg2.connect(**postgres_database) as connection, connection.cursor() as cursor:
        cursor.execute("select table_name from information_schema.tables where table_schema = 'block_classes'")
        assert sorted(name for (name,) in cursor.fetchall()) == ["first", "second", "third"]
    assert "env_var('DBT_ENV_SECRET_" in (profiles / "profiles.yml").read_text().replace("''", "'")
    assert password not in (profiles / "profiles.yml").read_text()


def test_a_run_imports_no_block_class_though_they_be_installed(set_up_target: SetUpTarget, project: Path) -> None:
    asked = {"target": set_up_target(), "project": str(project)}

    run = run_with_libraries("tests.infrastructure.watched_imports", {}, json.dumps(asked))

    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    seen = json.loads(run.stdout.splitlines()[-1])
    assert {"prefect_dbt", "prefect_gcp", "prefect_snowflake", "prefect_sqlalchemy"} <= {*seen["installed"]}
    assert seen["imported"] == []
