"""Which sources a run looks at before it builds, on a real project that declares them in odd places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.engine.changed.freshness import sources_to_check
from flows.engine.context.command import DbtCommand
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from infrastructure.profiles import Profile
from tests.support.in_process import run_dbt_in_process
from tests.support.stores import put_state

FRESH = "config: {loaded_at_field: at, freshness: {warn_after: {count: 1, period: day}}}"
FILES = {
    "project/dbt_project.yml": """
name: visits
version: '1.0'
model-paths: ["{{ env_var('VISITS_MODELS', 'models') }}"]
flags: {send_anonymous_usage_stats: false}
""",
    "project/packages.yml": "packages: [{local: ../more}]\n",
    "project/models/stg_visits.sql": "select 1 as id -- {{ source('raw', 'visits') }}",
    "project/models/conversion.sql": "select id from {{ ref('stg_visits') }} -- {{ source('shop', 'orders') }}",
    "project/snapshots/raw.yml": f"sources: [{{name: raw, {FRESH}, tables: [{{name: visits}}]}}]\n",
    "project/macros/shop.yml": f"sources: [{{name: shop, {FRESH}, tables: [{{name: orders}}]}}]\n",
    "more/dbt_project.yml": "name: more\nversion: '1.0'\n",
    "more/models/more.yml": f"sources: [{{name: more, {FRESH}, tables: [{{name: unread}}, {{name: 'odd one'}}]}}]\n",
    "more/models/odd.sql": "select 1 as id -- {{ source('more', 'odd one') }}",
}
BOTH = ("source:visits.raw.visits", "source:visits.shop.orders")


class Visits:
    """A project with a package that is linked to, on a DuckDB file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        output = {"type": "duckdb", "path": str(folder / "visits.duckdb"), "schema": "main", "threads": 1}
        self.profile = Profile("dev", "visits", output, {})
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.folder / "dbt_packages").mkdir()
        (self.folder / "dbt_packages" / "more").symlink_to(folder / "more")

    def build(self) -> None:
        run_of = RunContext(read_project(self.folder), self.profile)
        run_dbt(DbtCommand("build"), run_of, retries=Retries(run_limit=0))

    def checked(self, *asked: Any) -> tuple[str, ...] | None:
        return sources_to_check(DbtCommand("build", *asked), read_project(self.folder), self.profile)


@pytest.fixture
def visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visits]:
    run_dbt_in_process(monkeypatch)
    put_state(monkeypatch, tmp_path / "state")
    yield Visits(tmp_path)


def _start_no_dbt(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object) -> None:
        pytest.fail("dbt was started")

    monkeypatch.setattr("flows.engine.process.door.DbtProcess", started)


def test_all_that_is_built_is_looked_at_wherever_its_sources_are_declared(visits: Visits) -> None:
    assert visits.checked() is None, "all are checked where everything is built"
    assert visits.checked("stg_visits") == BOTH[:1]
    assert visits.checked("stg_visits+") == BOTH, "conversion, which is built too, stands on another one"
    assert visits.checked(None, "conversion odd") == BOTH[:1]
    assert visits.checked("odd") is None, "a source that no selection can name has all checked"
    (visits.folder / "selectors.yml").write_text(
        "selectors: [{name: nightly, default: true, definition: {method: fqn, value: conversion}}]\n"
    )
    assert visits.checked() == BOTH, "a default selector of the project decides what is built"


def test_what_was_found_is_known_until_the_project_changes(visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visits.checked("stg_visits+") == BOTH
    with monkeypatch.context() as patch:
        _start_no_dbt(patch)
        assert visits.checked("stg_visits+") == BOTH
    (visits.folder / "models" / "conversion.sql").write_text("select id from {{ ref('stg_visits') }}")
    assert visits.checked("stg_visits+") == BOTH[:1]


def test_a_project_without_freshness_is_asked_once_and_again_when_its_yaml_changes(
    visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {name: text for name, text in FILES.items() if FRESH in text}
    for name, text in declared.items():
        (visits.folder.parent / name).write_text(text.replace(FRESH, "description: freshness is the word for it"))
    assert visits.checked() is None, "nobody has looked yet"
    visits.build()
    _start_no_dbt(monkeypatch)
    assert visits.checked() == ()
    (visits.folder / "models" / "stg_visits.sql").write_text("select 2 as id -- {{ source('raw', 'visits') }}")
    assert (visits.checked(), visits.checked("conversion")) == ((), ()), "SQL declares no source"
    (visits.folder / "snapshots" / "raw.yml").write_text(declared["project/snapshots/raw.yml"])
    assert visits.checked() is None
