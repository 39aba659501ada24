"""A dbt project that uses what can change under a run, on two plots: one built whole, one by `--changed`."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from infrastructure.errors import DbtRunFailed
from infrastructure.profiles import Profile
from tests.support.stores import put_state

PROJECT = """
name: garden
version: '1.0'
profile: garden
flags: {send_anonymous_usage_stats: false}
vars: {shade: 1}
models:
  garden: {+materialized: table}
"""
FILES = {
    "models/sources.yml": """
sources:
  - name: raw
    schema: raw
    tables:
      - name: events
        config:
          loaded_at_field: loaded_at
          freshness: {warn_after: {count: 1000, period: day}}
      - name: visits
""",
    "models/tests.yml": """
models:
  - name: joined
    columns: [{name: id, data_tests: [not_null]}]
  - name: kept
    columns: [{name: id, data_tests: [unique, not_null]}]
unit_tests:
  - name: adds_the_shade
    model: shaded
    given: [{input: ref('colours'), rows: [{id: 1, weight: 2}]}]
    overrides: {vars: {shade: 5}}
    expect: {rows: [{id: 1, weight: 7}]}
""",
    "macros/grow.sql": "{% macro grow(x) %}({{ x }} * {{ factor() }}){% endmacro %}\n"
    "{% macro factor() %}{{ var('factor', 2) }} + 0{% endmacro %}",
    "macros/water.sql": "{% macro water() %}3 + 0{% endmacro %}",
    # A table that dbt makes by a macro of the project in place of its own.
    "macros/own.sql": "{% macro duckdb__create_table_as(temporary, relation, compiled_code, language='sql') -%}\n"
    "create {{ 'temporary' if temporary }} table {{ relation.include(database=not temporary) }} as "
    "(select *, 1 + 0 as made_by from ({{ compiled_code }}) as made);\n{%- endmacro %}",
    "seeds/colours.csv": "id,weight\n1,10\n2,20\n3,30\n",
    "snapshots/snap.yml": "snapshots:\n  - name: snap\n    relation: ref('events')\n"
    "    config: {unique_key: id, strategy: timestamp, updated_at: loaded_at}\n",
    "models/events.sql": "select id, amount + 0 as amount, loaded_at from {{ source('raw', 'events') }}",
    "models/visits.sql": "{{ config(materialized='view') }}\n"
    "select id, seen + 0 as seen from {{ source('raw', 'visits') }}",
    "models/shaded.sql": "select id, weight + {{ var('shade') }} + 0 as weight from {{ ref('colours') }}",
    "models/inside.sql": "{{ config(materialized='ephemeral') }}\n"
    "select id, {{ grow('weight') }} + 0 as weight from {{ ref('colours') }}",
    "models/joined.sql": "select e.id, e.amount + coalesce(i.weight, 0) + 0 as total\n"
    "from {{ ref('events') }} as e left join {{ ref('inside') }} as i on i.id = e.id % 3",
    "models/kept.sql": "{{ config(materialized='incremental', unique_key='id') }}\n"
    "select id, amount + 0 as amount, loaded_at from {{ ref('events') }}\n"
    "{% if is_incremental() %}"
    "where loaded_at > (select coalesce(max(loaded_at), '1900-01-01') from {{ this }})"
    "{% endif %}",
    "models/ruled.sql": "select id, '{{ env_var('GARDEN_RULE', 'none') }}' as rule, total + 0 as total\n"
    "from {{ ref('joined') }}",
    "models/hooked.sql": "{{ config(post_hook='update {{ this }} set weight = weight + {{ water() }}') }}\n"
    "select id, weight + 0 as weight from {{ ref('shaded') }}",
    "models/last.sql": "select k.id, k.amount + r.total + 0 as value, v.seen\nfrom {{ ref('kept') }} as k\n"
    "join {{ ref('ruled') }} as r on r.id = k.id left join {{ ref('visits') }} as v on v.id = k.id",
}
# Files with a `+ 0` that an edit can turn into another number.
EDITABLE = [name for name, text in FILES.items() if "+ 0" in text]
TABLES = ["events", "shaded", "joined", "kept", "ruled", "hooked", "last", "colours", "snap"]


class Garden:
    """The project, and what was built of it on both plots."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._patch = patch
        self.project = folder / "project"
        self.vars: dict[str, Any] = {}
        self._moment = 0
        self._failed = {"whole": False, "changed": False}

    def plant(self) -> None:
        """Write the project and its raw data anew, with nothing built."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for name, text in {**FILES, "dbt_project.yml": PROJECT}.items():
            self.write(name, text)
        self.vars = {}
        self._moment = 0
        self.environment(None)
        self.sql("create schema raw")
        self.sql("create table raw.events (id integer, amount integer, loaded_at timestamp)")
        self.sql("create table raw.visits (id integer, seen integer)")
        self.load(3)
        self.sql("insert into raw.visits values (1, 1), (2, 2)")

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def edit(self, name: str, number: int) -> None:
        """Make a file compute something else."""
        self.write(name, FILES[name].replace("+ 0", f"+ {number}"))

    def environment(self, rule: str | None) -> None:
        """Set the environment variable that a model looks up."""
        if rule is None:
            self._patch.delenv("GARDEN_RULE", raising=False)
        else:
            self._patch.setenv("GARDEN_RULE", rule)

    def load(self, rows: int) -> None:
        """Load rows into the source that says when it was loaded."""
        self._moment += 1
        values = ", ".join(
            f"({self._moment * 10 + row}, {row}, timestamp '2026-01-01' + interval {self._moment} hour)"
            for row in range(rows)
        )
        self.sql(f"insert into raw.events values {values}")

    def sql(self, statement: str) -> None:
        """Do the same to both warehouses."""
        for plot in ("whole", "changed"):
            with duckdb.connect(str(self.warehouse(plot))) as connection:
                connection.execute(statement)

    def warehouse(self, plot: str) -> Path:
        """Return the DuckDB file of a plot."""
        folder = self._folder / plot
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "garden.duckdb"

    def build(self, plot: str, **command: Any) -> DbtResult | None:
        """Build a plot; None when nodes failed."""
        put_state(self._patch, self._folder / plot / "state")
        output = {"type": "duckdb", "path": str(self.warehouse(plot)), "schema": "main", "threads": 1}
        is_changed = plot == "changed" and not command
        self._failed[plot] = True
        with suppress(DbtRunFailed):
            result = run_dbt(
                DbtCommand("build", vars=self.vars, **command),
                RunContext(read_project(self.project), Profile("dev", "garden", output, {})),
                RunOptions(changed=is_changed),
                retries=Retries(run_limit=0),
            )
            self._failed[plot] = False
            return result
        return None

    def build_both(self, **command: Any) -> None:
        """Build both plots; a command other than all is the same on both."""
        for plot in ("whole", "changed"):
            self.build(plot, **command)
        assert self._failed["whole"] == self._failed["changed"]

    def contents(self, plot: str) -> dict[str, list[str]]:
        """Return the rows of every table and view that the project has, in an order of their own."""
        found: dict[str, list[str]] = {}
        with duckdb.connect(str(self.warehouse(plot)), read_only=True) as connection:
            names = connection.execute(
                "select table_name from information_schema.tables where table_schema = 'main' order by 1"
            ).fetchall()
            for (name,) in names:
                if (self.project / f"models/{name}.sql").exists() or name in ("colours", "snap"):
                    # What dbt writes of its own clock is no data.
                    rows = connection.execute(
                        f"select * exclude ({_OWN}) from {name}" if name == "snap" else f"from {name}"
                    )
                    found[name] = [
                        str([column[0] for column in rows.description or ()]),
                        *sorted(map(repr, rows.fetchall())),
                    ]
        return found


_OWN = "dbt_scd_id"
