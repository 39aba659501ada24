"""A target on an adapter that has no class of its own, for real: checked, built, failed and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from infrastructure.profiles import Profile, profile_of
from infrastructure.targets.target_file import load_targets
from tests.support.engines import engine_or_skip
from tests.support.processes import free_port
from tests.support.spark_server import spark_server

# dbt of another environment begins cold each time: 13 seconds of a processor.
pytestmark = pytest.mark.slow
SECRET = "geheim-4711"


@pytest.fixture(params=ADAPTERS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Yield the settings of a target on an adapter, with what it connects to running; its password is ANY_PASSWORD."""
    adapter: str = request.param
    engine = engine_or_skip(adapter)
    settings = {"adapter": adapter, "dbt": engine.program, "password_env": "ANY_PASSWORD", "threads": 2}
    if adapter == "spark":
        with spark_server(Path(engine.program).parent, tmp_path / "spark") as port:
            # SASL as with LDAP, which sends the password; a server that asks nobody takes any.
            place = {"method": "thrift", "host": "127.0.0.1", "port": port, "user": "loader", "auth": "CUSTOM"}
            yield settings | place | {"schema": "house"}
    else:
        # The adapter leaves a password alone, so that what happens to a secret is seen without a server.
        places = {"schemas_and_paths": {"main": str(tmp_path / "main.db")}, "schema_directory": str(tmp_path)}
        yield settings | places | {"schema": "main", "database": "database"}


def test_a_target_on_any_adapter_is_checked_built_failed_and_resumed(
    target: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    write = _project_in(tmp_path / "project")
    profile = _profile(tmp_path, target)
    found = check(profile)
    assert found.is_ok, found
    run_of = RunContext(read_project(tmp_path / "project"), profile)

    write("second", "select no_such_column from {{ ref('first') }}")
    with pytest.raises(DbtRunFailed, match="no_such_column") as caught:
        run_dbt(DbtCommand("build"), run_of, RunOptions(retries=0))
    assert isinstance(caught.value.result, DbtResult)
    assert [node.name for node in caught.value.result.of("succeeded")] == ["first"]
    write("second", "select version from {{ ref('first') }}")
    adapter = target["adapter"]
    if adapter != "spark":
        result = run_dbt(DbtCommand("build"), run_of, RunOptions(resume=True))
        assert {node.name for node in result.of("succeeded")} == {"first", "second", "third"}
    # Spark takes ten times as long, so there one command shows both: what is done is found in the warehouse, and left.
    result = run_dbt(DbtCommand("build"), run_of, RunOptions(changed=True))
    assert {node.name for node in result.of("succeeded")} == ({"second", "third"} if adapter == "spark" else set())

    with pytest.raises(ConfigError, match=f"Target any is on {adapter}: what connects to a warehouse without dbt"):
        open_warehouse(profile).__enter__()
    if "port" in target:
        port = free_port()
        away = check(_profile(tmp_path, target | {"port": port}))
        assert away.is_away
        assert away.cause == f"nothing listens at 127.0.0.1:{port}"
    secret = SECRET.encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]


def _profile(folder: Path, settings: dict[str, Any]) -> Profile:
    file, environ = folder / "targets.yml", {"ANY_PASSWORD": SECRET}
    file.write_text(yaml.safe_dump({"default": "any", "profile": "house", "targets": {"any": settings}}))
    return profile_of("any", load_targets(file, environ).find("any"), environ, "house")


def _project_in(folder: Path) -> Callable[[str, str], None]:
    def write(name: str, sql: str) -> None:
        (folder / "models" / f"{name}.sql").write_text("{{ config(materialized='table') }} " + sql)

    (folder / "models").mkdir(parents=True)
    settings = {"name": "house", "profile": "house", "flags": {"send_anonymous_usage_stats": False}}
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(settings))
    write("first", "select 1 as version")
    write("third", "select version from {{ ref('second') }}")
    return write
