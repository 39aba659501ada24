"""The table in the warehouse, which the runbook's queries are written for."""

from __future__ import annotations

from datetime import date, timedelta

from flows.history.warehouse_table import add_run, table_schema
from tests.support.history_runs import AT, node, run
from tests.support.raw_data import RawData


def test_the_runbooks_question_is_answered_in_the_warehouse(raw: RawData) -> None:
    add_run(raw.profile, raw.raw_schema, run([node("orders", seconds=2.0), node("orders_ok", kind="test")]))
    later = run([node("orders", seconds=4.0, rows_affected=7)], AT + timedelta(hours=1))
    assert add_run(raw.profile, raw.raw_schema, later) == 1
    add_run(raw.profile, raw.raw_schema, later)
    assert raw.count("dbt_run_history") == 3, "a run that is added again is there once"
    found = raw.read(
        f"select model_name, avg(execution_time_seconds), max(execution_time_seconds), max(run_date) "
        f"from \"{raw.raw_schema}\".dbt_run_history where run_date >= date '2026-01-01' "
        f"and resource_type = 'model' group by model_name"
    )
    assert found == [("orders", 3.0, 4.0, date(2026, 1, 31))]


def test_the_table_is_made_only_when_it_is_wished() -> None:
    assert table_schema({}) is None
    assert table_schema({"TRIBUTARY_HISTORY_SCHEMA": "ops"}) == "ops"
