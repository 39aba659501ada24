"""What a pull request's build leaves behind is dropped, and nothing else ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.operations.ci_schemas import drop_schemas, schemas_of
from flows.operations.tables import open_tables
from infrastructure.errors import ConfigError
from infrastructure.profiles import Profile


@pytest.fixture(params=["duckdb", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "duckdb":
        return {"type": "duckdb", "path": str(tmp_path / "ci.duckdb")}
    return {"type": "postgres", **request.getfixturevalue("postgres_database")}


def test_only_the_schemas_of_this_pull_request_are_dropped(settings: dict[str, Any]) -> None:
    own = f"ci_pr_{uuid4().hex[:6]}"
    profile = Profile("ci", "tributary", {**settings, "schema": own}, {})
    others = [f"{own}1", f"{own[:-1]}", "raw", "analytics"]
    with open_tables(profile) as tables:
        for schema in (own, f"{own}_marts", *others):
            tables.make_schema(schema)
        tables.execute(f"create table {tables.placed(own, 't')} as select 1 as id")
        tables.execute(f"create view {tables.placed(f'{own}_marts', 'v')} as select * from {tables.placed(own, 't')}")

    assert drop_schemas(profile, dry_run=True) == [own, f"{own}_marts"]
    assert drop_schemas(profile) == [own, f"{own}_marts"]
    assert drop_schemas(profile) == []
    with open_tables(profile) as tables:
        for schema in others:
            tables.execute(f"create table {tables.placed(schema, 'still_there')} (id bigint)")


@pytest.mark.parametrize("schema", ["analytics", "ci", "ci_", "ci__", "raw", "", "public_ci_1", "ci_a; drop", "xci_a"])
def test_a_target_that_is_not_a_pull_requests_is_refused_before_anything_is_touched(schema: str) -> None:
    profile = Profile("prod", "tributary", {"type": "postgres", "schema": schema, "host": "nowhere.invalid"}, {})
    with pytest.raises(ConfigError, match="is not dropped: only schemas whose name begins with ci_"):
        drop_schemas(profile)


def test_names_are_compared_as_a_warehouse_that_folds_case_has_them() -> None:
    profile = Profile("ci", "tributary", {"type": "snowflake", "schema": "ci_pr_4"}, {})
    assert schemas_of(profile, ["CI_PR_4", "CI_PR_4_MARTS", "CI_PR_42", "CI_PR", "PUBLIC"]) == [
        "CI_PR_4",
        "CI_PR_4_MARTS",
    ]
