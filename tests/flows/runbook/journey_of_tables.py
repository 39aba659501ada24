"""What `Warehouse` promises, tried on one warehouse: the same steps everywhere.

`uv run --isolated --extra snowflake --extra bigquery python -m tests.flows.runbook.journey_of_tables` takes the
local Snowflake and BigQuery through it, which the suite does where TRIBUTARY_TEST_WAREHOUSES asks for it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from flows.warehouses.door import open_warehouse
from flows.warehouses.warehouse import Warehouse
from infrastructure.errors import ConfigError
from infrastructure.profiles import Profile
from tests.flows.runbook.journey_of_operations import expected_of_operations, operate

ODD = 'it\'s 100 % a ? \\ `b` "c"'
MOMENT = datetime(2026, 2, 28, 23, 59, 59, 123456)


def take(profile: Profile, schema: str) -> dict[str, Any]:
    """Take the steps in a schema of its own, and return what was seen at each."""
    with open_warehouse(profile) as tables:
        tables.make_schema(schema)
        tables.make_schema(schema)
        things = tables.placed(schema, "things")
        copy = tables.placed(schema, "copied_things")
        try:
            return _steps(tables, schema, things, copy)
        finally:
            for relation in (tables.placed(schema, "seen_things"), copy, things):
                tables.drop(relation)


def _steps(tables: Warehouse, schema: str, things: str, copy: str) -> dict[str, Any]:
    seen: dict[str, Any] = {"before": [tables.exists(things), tables.columns(things)]}
    columns = {"id": "integer", "name": "text", "is_good": "boolean", "seen_at": "timestamp"}
    declared = ", ".join(f"{tables.column(name)} {tables.type_of(kind)}" for name, kind in columns.items())
    exact = "numeric" if tables.kind == "bigquery" else "numeric(18, 2)"
    tables.execute(f"create table {things} ({declared}, amount {exact}, held_on date)")
    insert = f"insert into {things} values (?, ?, ?, ?, ?, ?)"
    tables.execute(insert, [1, ODD, True, MOMENT, Decimal("-12.30"), date(2026, 2, 28)])
    seen["inserted"] = tables.execute(insert, [2, None, None, None, None, None])
    seen["rows"] = tables.rows(f"select * from {things} order by id")
    seen["found"] = tables.rows(
        f"select id as ID, '?' as mark from {things} -- a ? in a comment\n"
        "where name = ? and seen_at = ? and amount < ? and is_good = ? and held_on = ?",
        [ODD, MOMENT, Decimal("0.01"), True, date(2026, 2, 28)],
    )
    seen["columns"] = list(tables.columns(things))
    tables.copy(things, copy)
    tables.copy(things, copy)
    seen["copied"] = tables.rows(f"select * from {copy} order by id") == seen["rows"]
    seen["updated"] = tables.execute(f"update {things} set name = ? where id > ?", ["new", 0])
    _failing_change(tables, things)
    seen["kept"] = tables.rows(f"select distinct name from {things}")
    with tables.transaction(), tables.transaction():
        tables.execute(f"delete from {things} where id = ?", [1])
        seen["inside"] = tables.rows(f"select count(*) as counted from {things}")
    seen["after"] = tables.rows(f"select count(*) as counted from {things}")
    view = tables.placed(schema, "seen_things")
    tables.execute(f"create view {view} as select id from {things}")
    seen["view"] = [tables.exists(view), tables.is_view(view), tables.is_view(things), tables.is_view(f"{copy}")]
    # What stands on a table goes on standing when its rows are replaced by those of a table with the same columns.
    tables.copy(copy, things)
    seen["restored"] = [tables.rows(f"select * from {things} order by id") == seen["rows"]]
    seen["restored"].append(tables.rows(f"select count(*) as counted from {view}"))
    tables.drop(view)
    tables.drop(view)
    seen["dropped"] = tables.exists(view)
    try:
        tables.rows("select * from no_such_schema.no_such_table")
    except ConfigError as error:
        seen["refused"] = str(error).count("\n")
    return seen


def _failing_change(tables: Warehouse, things: str) -> None:
    try:
        with tables.transaction():
            tables.execute(f"update {things} set name = ? where id > ?", ["never", 0])
            raise ZeroDivisionError
    except ZeroDivisionError:
        return


def expected() -> dict[str, Any]:
    """Return what has to be seen."""
    full = {
        "id": 1,
        "name": ODD,
        "is_good": True,
        "seen_at": MOMENT,
        "amount": Decimal("-12.30"),
        "held_on": date(2026, 2, 28),
    }
    return {
        "before": [False, {}],
        "inserted": 1,
        "rows": [full, {**dict.fromkeys(full), "id": 2}],
        "found": [{"id": 1, "mark": "?"}],
        "columns": list(full),
        "copied": True,
        "updated": 2,
        "kept": [{"name": "new"}],
        "inside": [{"counted": 1}],
        "after": [{"counted": 1}],
        "view": [True, True, False, False],
        "restored": [True, [{"counted": 2}]],
        "dropped": False,
        "refused": 0,
    }


def main() -> None:
    """Take the local Snowflake and BigQuery through, and print how each differs from what is promised."""
    from tests.support.warehouses.servers import bigquery_server, snowflake_server

    differing: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="tributary-tables-") as folder:
        for name, server in (("snowflake", snowflake_server), ("bigquery", bigquery_server)):
            with server(Path(folder) / f"{name}.log") as output:
                try:
                    profile = Profile(name, "tributary", output, {})
                    seen = take(profile, "journey") | operate(profile)
                except Exception as error:  # noqa: BLE001  (the other has its say)
                    differing[name] = f"{type(error).__name__}: {error}"
                    continue
                promised = expected() | expected_of_operations()
                differing[name] = {key: seen.get(key) for key in promised if seen.get(key) != promised[key]}
    print(json.dumps(differing, default=str))
    sys.exit(any(differing.values()))


if __name__ == "__main__":
    main()
