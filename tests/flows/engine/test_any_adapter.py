"""A target on an adapter that has no class of its own, for real: checked, built, failed and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.engines import ADAPTERS
from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.run import run_dbt
from flows.warehouses.door import open_warehouse
from infrastructure.connection_check.check import check
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.profiles import profile_of
from infrastructure.targets.target_file import load_targets
from tests.support.engines import engine_or_skip

# dbt of another environment begins cold each time: 13 seconds of a processor.
pytestmark = pytest.mark.slow
SECRET = "geheim-4711"


def _settings_of(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    places = {"schemas_and_paths": {"main": str(folder / "main.db")}, "schema_directory": str(folder)}
    # The adapter leaves a password alone, so that what happens to a secret is seen without a server.
    return {"schema": "main", "database": "database", "password_env": "ANY_PASSWORD", **places}, {
        "ANY_PASSWORD": SECRET
    }


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_target_on_any_adapter_is_checked_built_failed_and_resumed(
    adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    engine = engine_or_skip(adapter)
    write = _project_in(tmp_path / "project")
    settings, environ = _settings_of(tmp_path)
    entry = settings | {"adapter": adapter, "dbt": engine.program}
    file = tmp_path / "targets.yml"
    file.write_text(yaml.safe_dump({"default": "any", "profile": "house", "targets": {"any": entry}}))
    profile = profile_of("any", load_targets(file, environ).find("any"), environ, "house")
    found = check(profile)
    assert found.is_ok, found
    run_of = RunContext(read_project(tmp_path / "project"), profile)

    write("second", "select no_such_column from {{ ref('first') }}")
    with pytest.raises(DbtRunFailed) as caught:
        run_dbt(DbtCommand("build"), run_of, RunOptions())
    assert isinstance(caught.value.result, DbtResult)
    assert [node.name for node in caught.value.result.of("succeeded")] == ["first"]
    write("second", "select version from {{ ref('first') }}")
    result = run_dbt(DbtCommand("build"), run_of, RunOptions(resume=True))
    assert {node.name for node in result.of("succeeded")} >= {"second", "third"}

    with pytest.raises(ConfigError, match=f"Target any is on {adapter}: what connects to a warehouse without dbt"):
        open_warehouse(profile).__enter__()
    secret = SECRET.encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]


def _project_in(folder: Path) -> Callable[[str, str], None]:
    def write(name: str, sql: str) -> None:
        (folder / "models" / f"{name}.sql").write_text("{{ config(materialized='table') }} " + sql)

    (folder / "models").mkdir(parents=True)
    settings = {"name": "house", "profile": "house", "flags": {"send_anonymous_usage_stats": False}}
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(settings))
    write("first", "select 1 as version")
    write("third", "select version from {{ ref('second') }}")
    return write
