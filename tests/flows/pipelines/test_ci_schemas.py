"""What a pull request's build leaves behind is dropped, and nothing else ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.run import run_dbt
from flows.pipelines.ci_schemas import MARK, built_in, claim, claim_schemas, drop_schemas
from flows.warehouses.door import open_warehouse
from infrastructure.errors import ConfigError
from infrastructure.profiles import Profile


@pytest.fixture(params=["duckdb", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "duckdb":
        return {"type": "duckdb", "path": str(tmp_path / "ci.duckdb")}
    return {"type": "postgres", **request.getfixturevalue("postgres_database")}


def claimed(settings: dict[str, Any], own: str, *schemas: str) -> Profile:
    """Return a target whose build has claimed its own schema and these."""
    profile = Profile("ci", "tributary", {**settings, "schema": own}, {})
    claim(profile, {name.lower(): name for name in (own, *schemas)})
    return profile


def test_the_schema_of_another_branch_is_not_dropped_whatever_its_name_begins_with(settings: dict[str, Any]) -> None:
    """`ci_feature_x` went with `ci_feature`."""
    own = f"ci_feature_{uuid4().hex[:6]}"
    branch = claimed(settings, own, f"{own}_marts")
    other = claimed(settings, f"{own}_x", f"{own}_x_marts")
    with open_warehouse(branch) as tables:
        for schema in ("raw", "analytics", f"{own}_by_hand"):
            tables.make_schema(schema)
        tables.execute(f"create table {tables.placed(own, 't')} as select 1 as id")
        tables.execute(f"create view {tables.placed(f'{own}_marts', 'v')} as select * from {tables.placed(own, 't')}")

    assert drop_schemas(branch, dry_run=True).schemas == [f"{own}_marts", own]
    assert drop_schemas(branch).schemas == [f"{own}_marts", own]
    assert drop_schemas(branch).schemas == []
    with open_warehouse(branch) as tables:
        for schema in (f"{own}_x", f"{own}_x_marts", "raw", "analytics", f"{own}_by_hand"):
            tables.execute(f"create table {tables.placed(schema, 'still_there')} (id bigint)")
    assert drop_schemas(other).schemas == [f"{own}_x_marts", f"{own}_x"]


def test_a_schema_that_was_there_before_the_build_stays(settings: dict[str, Any]) -> None:
    own = f"ci_pr_{uuid4().hex[:6]}"
    with open_warehouse(Profile("ci", "tributary", {**settings, "schema": own}, {})) as tables:
        tables.make_schema(own)
    profile = claimed(settings, own, f"{own}_marts")
    found = drop_schemas(profile)
    assert (found.schemas, found.left) == ([f"{own}_marts"], [own])


def test_two_pull_requests_never_build_in_one_schema(settings: dict[str, Any]) -> None:
    own = f"ci_pr_{uuid4().hex[:6]}"
    claimed(settings, own, f"{own}_marts")
    claimed(settings, own, f"{own}_marts", f"{own}_more")
    with pytest.raises(ConfigError, match=rf"would build in {own}_marts \(made for {own}\): two pull requests"):
        claimed(settings, f"{own}_marts")


def test_a_view_elsewhere_that_reads_a_pull_requests_tables_does_not_go_with_them(settings: dict[str, Any]) -> None:
    if settings["type"] == "duckdb":
        pytest.skip("a view of DuckDB stays, whatever it reads")
    own = f"ci_pr_{uuid4().hex[:6]}"
    profile = claimed(settings, own)
    with open_warehouse(profile) as tables:
        tables.make_schema("analytics")
        tables.execute(f"create table {tables.placed(own, 't')} as select 1 as id")
        tables.execute(f"create view {tables.placed('analytics', 'v')} as select * from {tables.placed(own, 't')}")
    with pytest.raises(ConfigError, match=rf"{own} can't be dropped: analytics\.v reads from there"):
        drop_schemas(profile)
    with open_warehouse(profile) as tables:
        assert tables.rows(f"select id from {tables.placed('analytics', 'v')}") == [{"id": 1}]
        tables.drop(tables.placed("analytics", "v"))
    assert drop_schemas(profile).schemas == [own]


@pytest.mark.parametrize("schema", ["analytics", "ci", "ci_", "ci__", "raw", "", "public_ci_1", "ci_a; drop", "xci_a"])
def test_a_target_that_is_not_a_pull_requests_is_refused_before_anything_is_touched(schema: str) -> None:
    profile = Profile("prod", "tributary", {"type": "postgres", "schema": schema, "host": "nowhere.invalid"}, {})
    with pytest.raises(ConfigError, match="is not dropped: only schemas whose name begins with ci_"):
        drop_schemas(profile)
    # Nor is anything claimed for it: nothing is asked, of dbt or of the warehouse.
    claim_schemas(DbtCommand("build"), read_project(), profile)


def test_only_what_is_built_in_schemas_of_a_pull_request_is_claimed() -> None:
    def node(schema: str, kind: str = "model", **config: object) -> dict[str, object]:
        return {"name": "n", "resource_type": kind, "schema": schema, "config": config}

    nodes = {
        "a": node("ci_pr_4", materialized="view"),
        "b": node("CI_PR_4_marts", materialized="table"),
        "c": node("ci_pr_4_notes", materialized="ephemeral"),
        "d": node("analytics", materialized="table"),
        "e": node("ci_pr_4_audit", "test", materialized="test"),
        "f": node("ci_pr_4_kept", "test", materialized="test", store_failures=True),
        "g": node("ci_pr_4_unselected", materialized="table"),
    }
    manifest = manifest_of({"nodes": nodes})
    wanted = {"ci_pr_4": "ci_pr_4", "ci_pr_4_marts": "CI_PR_4_marts", "ci_pr_4_kept": "ci_pr_4_kept"}
    assert built_in(manifest, [*"abcdef", "source.x"]) == wanted
    assert built_in(manifest, [*"abcdef"], stores_failures=True) == wanted | {"ci_pr_4_audit": "ci_pr_4_audit"}


def test_what_dbt_builds_is_what_was_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    models = tmp_path / "project" / "models"
    models.mkdir(parents=True)
    (models.parent / "dbt_project.yml").write_text(
        "name: branch\nversion: '1.0'\nflags: {send_anonymous_usage_stats: false}\nmodels: {+materialized: table}\n"
    )
    (models / "a.sql").write_text("select 1 as id")
    (models / "b.sql").write_text("{{ config(schema='x') }} select * from {{ ref('a') }}")
    output = {"type": "duckdb", "path": str(tmp_path / "w.duckdb"), "schema": "ci_feature", "threads": 1}
    project, profile = read_project(models.parent), Profile("ci", "branch", output, {})
    claim_schemas(DbtCommand("build"), project, profile)
    run_dbt(DbtCommand("build"), RunContext(project, profile))
    with open_warehouse(profile) as tables:
        rows = tables.rows("select table_schema || '.' || table_name as name from information_schema.tables order by 1")
        assert [row["name"] for row in rows] == [
            "ci_feature.a", f"ci_feature.{MARK}", "ci_feature_x.b", f"ci_feature_x.{MARK}"
        ]  # fmt: skip
    assert drop_schemas(profile).schemas == ["ci_feature_x", "ci_feature"]
