"""What only dbt can read of a project: Jinja in names, folders and variables, flags, and models that print."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.engine.changed.change_plan import plan_changes
from flows.engine.changed.run_memory import memory_for_plan
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.ledger.resume import interrupted_run
from flows.engine.ledger.retries import Retries
from flows.engine.process.listing import list_nodes
from flows.engine.run import run_dbt
from infrastructure.profiles import Profile
from tests.support.in_process import run_dbt_in_process
from tests.support.stores import put_state

FILES = {
    "dbt_project.yml": """
name: odd
version: '1.0'
packages-install-path: "{{ env_var('ODD_PACKAGES', 'nowhere') }}"
model-paths: ["{{ env_var('ODD_MODELS', 'models') }}"]
flags: {send_anonymous_usage_stats: false, write_json: false}
vars: {as_of: "{{ env_var('ODD_DAY', 'monday') }}"}
""",
    "packages.yml": "packages: [{local: ../more}]\n",
    "models/plain.sql": "{% do print('building ' ~ model.name) %}{% do print('[not json') %}select 1 as id",
    "models/dated.sql": "select '{{ var('as_of') }}' as as_of",
    "models/2024.sql": "select 2024 as id",
    "models/grown.sql": """
{{ config(materialized='incremental', unique_key='id') }}
select id from {{ ref('plain') }}
{% if is_incremental() %} where id > {{ since() }} {% endif %}
""",
    "models/dim_v1.sql": "select 1 as id",
    "models/dim_v2.sql": "select 2 as id",
    "models/models.yml": "models: [{name: dim, latest_version: 2, versions: [{v: 1}, {v: 2}]}]\n",
    "macros/since.sql": "{% macro since() %}0{% endmacro %}",
    "analyses/old.sql": "select 'M\xfcller'",
    "seeds/old.csv": "id\n1\n",
    "packages/more/dbt_project.yml": "name: more\nversion: '1.0'\n",
    "packages/more/models/extra.sql": "select 1 as id",
}


class Odd:
    """A project whose files only dbt can read, on a DuckDB file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        output = {"type": "duckdb", "path": str(folder / "odd.duckdb"), "schema": "main", "threads": 1}
        self.profile = Profile("dev", "odd", output, {})
        for name, text in FILES.items():
            path = folder / "project" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="latin-1" if name == "analyses/old.sql" else "utf-8")

    @property
    def project(self) -> Any:
        return read_project(self.folder / "project")

    def build(self, changed: bool = False, **more: Any) -> set[str]:
        command = DbtCommand("build", **more)
        run_of, options = RunContext(self.project, self.profile), RunOptions(changed=changed)
        result = run_dbt(command, run_of, options, retries=Retries(run_limit=0))
        assert not result.of("failed", "skipped")
        return {node.name for node in result.nodes}

    def reasons(self, **more: Any) -> dict[str, str]:
        """Return why a run with --changed would build what it would build."""
        memory = memory_for_plan(DbtCommand("build", **more), self.project, self.profile)
        plan = plan_changes(memory, self.project, self.profile)
        return {
            decision.unique_id.partition(".odd.")[2]: decision.reason
            for decision in plan.decisions
            if decision.is_built
        }

    def read(self, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "odd.duckdb")) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    with pytest.MonkeyPatch.context() as patch:
        run_dbt_in_process(patch)
        folder = tmp_path_factory.mktemp("odd")
        put_state(patch, folder / "state")
        patch.setenv("ODD_PACKAGES", "packages")
        made = Odd(folder)
        # dbt decodes what it reads as UTF-8: a file in Latin-1 is its error, and no traceback of ours.
        (folder / "project" / "analyses" / "old.sql").rename(folder / "old.sql")
        assert made.build() == {"plain", "dated", "2024", "grown", "dim.v1", "dim.v2", "extra", "old"}
        # The incremental model takes its other path from now on.
        made.build(select="grown")
        yield made


def test_a_line_that_a_model_prints_is_no_node(odd: Odd) -> None:
    found, graph = list_nodes(DbtCommand("ls", select="resource_type:model"), odd.project, odd.profile)
    assert len(found) == 7
    assert {graph.nodes[unique_id].name for unique_id in found} >= {"2024", "dim.v1", "dim.v2"}


def test_a_macro_that_a_build_alone_reaches_has_not_changed_for_a_parse(odd: Odd) -> None:
    path = odd.folder / "project" / "models" / "models.yml"
    path.write_text(path.read_text() + "# An edit that no table is made of.\n")
    assert odd.reasons() == {}
    macro = odd.folder / "project" / "macros" / "since.sql"
    macro.write_text("{% macro since() %}1{% endmacro %}")
    assert odd.reasons() == {"grown": "a macro that it uses changed"}
    macro.write_text(FILES["macros/since.sql"])


def test_a_variable_whose_value_looks_up_the_environment_changes_with_it(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_DAY", "tuesday")
    assert odd.reasons() == {"dated": "variable as_of changed"}


def test_a_date_stays_a_date_on_its_way_to_dbt_and_a_run_of_it_is_found_again(odd: Odd) -> None:
    code = "select '{{ var('as_of').year }}' as as_of"
    (odd.folder / "project" / "models" / "dated.sql").write_text(code)
    day = {"as_of": date(2026, 1, 31)}
    odd.build(select="dated", vars=day)
    assert odd.read("select as_of from dated") == [("2026",)]
    memory = memory_for_plan(DbtCommand("build", select="dated", vars=day), odd.project, odd.profile)
    found = interrupted_run(memory.state, memory.command)
    assert found is not None
    assert found.is_whole
    (odd.folder / "project" / "models" / "dated.sql").write_text(FILES["models/dated.sql"])


def test_what_a_run_built_empty_is_built_again(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    odd.build(changed=True)
    with monkeypatch.context() as patch:
        patch.setenv("DBT_EMPTY", "true")
        assert set(odd.reasons(select="grown").values()) == {"changed for every node: dbt's flags in the environment"}
        odd.build(select="plain")
    assert set(odd.reasons()) == {"plain", "grown"}
    odd.build(changed=True)


def test_a_file_that_is_no_utf_8_ends_in_a_sentence(odd: Odd) -> None:
    place = odd.folder / "project" / "analyses"
    (odd.folder / "old.sql").rename(place / "old.sql")
    with pytest.raises(Exception, match="utf-8") as caught:
        odd.build(select="plain")
    assert type(caught.value).__module__ == "infrastructure.errors"
    (place / "old.sql").rename(odd.folder / "old.sql")
