"""The audit on real tables: make amounts wrong and corrections late, then see each of them named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.engine.artifacts.manifest_file import manifest_of
from flows.history.store import HistoryStore
from flows.runbook.audit.checks import Section, accuracy, corrections, integrity, slow_models
from flows.runbook.audit.flow import AuditReport, as_document, as_html, as_markdown
from flows.runbook.audit.settings import Accuracy, SlowModels, load_settings
from flows.runbook.project_tables import ProjectTables, Versions
from flows.warehouses.door import open_warehouse
from flows.warehouses.warehouse import Warehouse
from infrastructure.errors import ConfigError
from infrastructure.profiles import Profile

CHECK = Accuracy(
    name="payments",
    calculated="worked_out",
    recorded="paid",
    key=("concert", "player"),
    amounts=("gross", "net"),
    recorded_when="is_final",
)


@pytest.fixture(params=["duckdb", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Warehouse, str]]:
    """Each warehouse in turn, with a schema of its own."""
    schema = f"audit_{uuid4().hex[:8]}"
    output: dict[str, Any] = {"type": "duckdb", "path": str(tmp_path / "dev.duckdb"), "schema": schema}
    if request.param == "postgres":
        output = {"type": "postgres", **request.getfixturevalue("postgres_database"), "schema": schema}
    with open_warehouse(Profile("t", "tributary", output, {})) as tables:
        tables.make_schema(schema)
        yield tables, schema


def declared_of(**relations: str) -> ProjectTables:
    nodes = {
        f"model.p.{name}": {
            "unique_id": f"model.p.{name}",
            "name": name,
            "resource_type": "model",
            "relation_name": relation,
            "config": {"materialized": "table"},
        }
        for name, relation in relations.items()
    }
    return ProjectTables(manifest_of({"nodes": nodes}), tuple(nodes))


def test_every_amount_that_is_off_by_more_than_a_cent_is_named_exactly(opened: tuple[Warehouse, str]) -> None:
    tables, schema = opened
    ours, theirs = tables.placed(schema, "worked_out"), tables.placed(schema, "paid")
    columns = "concert bigint, player bigint, gross numeric(18, 2), net numeric(18, 2)"
    tables.execute(f"create table {ours} ({columns}, is_final boolean)")
    tables.execute(f"create table {theirs} ({columns})")
    tables.execute(
        f"insert into {ours} values (1, 1, 10.10, 10.10, true), (1, 2, 10.10, 10.10, true), "
        "(1, 3, 10.10, 10.10, true), (1, 4, 10.10, null, true), (2, 5, 9, 9, false), (2, 6, 0.30, 0.30, false)"
    )
    tables.execute(
        f"insert into {theirs} values (1, 1, 10.10, 10.10), (1, 2, 10.11, 10.09), (1, 4, 10.10, 10.10), "
        "(2, 6, 0.30, 0.28), (9, 9, 1, 1)"
    )
    section = accuracy(tables, declared_of(worked_out=ours, paid=theirs), CHECK)

    assert section.outcome == "error"
    assert section.sentence == "4 of 6 rows do not agree with paid."
    assert [dict(row) for row in section.rows] == [
        {"concert": 1, "player": 3, "outcome": "not recorded", "gross": "10.10 ≠ nothing", "net": "10.10 ≠ nothing"},
        {"concert": 1, "player": 4, "outcome": "different", "gross": "10.10", "net": "nothing ≠ 10.10"},
        {"concert": 2, "player": 6, "outcome": "different", "gross": "0.30", "net": "0.30 ≠ 0.28 (+0.02)"},
        {"concert": 9, "player": 9, "outcome": "not calculated", "gross": "nothing ≠ 1.00", "net": "nothing ≠ 1.00"},
    ]
    tables.execute(f"delete from {ours} where player in (3, 4, 6)")
    tables.execute(f"delete from {theirs} where player in (4, 6, 9)")
    assert accuracy(tables, declared_of(worked_out=ours, paid=theirs), CHECK).outcome == "ok"
    assert accuracy(tables, declared_of(worked_out=ours), CHECK).outcome == "not made"
    tables.execute(f"insert into {ours} values (3, 1, 1, 1, null)")
    assert accuracy(tables, declared_of(worked_out=ours, paid=theirs), CHECK).outcome == "error", "it may be due"
    tables.execute(f"delete from {ours}")
    tables.execute(f"delete from {theirs}")
    assert accuracy(tables, declared_of(worked_out=ours, paid=theirs), CHECK).outcome == "not made"


def test_corrections_are_counted_by_month_and_broken_versions_named_by_key(opened: tuple[Warehouse, str]) -> None:
    tables, schema = opened
    relation = tables.placed(schema, "versions")
    versions = Versions("model.p.v", "v", relation, ("id",), "begins", "ends", recorded="entered")
    assert integrity(tables, [], "t").outcome == "not made"
    assert integrity(tables, [versions], "t").outcome == "not made"
    tables.execute(f"create table {relation} (id bigint, begins timestamp, ends timestamp, entered timestamp)")
    nothing = integrity(tables, [versions], "t")
    assert (nothing.outcome, nothing.sentence) == (
        "not made",
        "1 table of versions (v without rows): they have no versions to check.",
    )
    tables.execute(
        f"insert into {relation} values (1, '2026-01-01', null, '2026-01-01'), (2, '2026-01-01', null, '2026-02-03'), "
        "(3, '2026-01-01', null, '2026-03-04')"
    )
    assert integrity(tables, [versions], "t").outcome == "ok"
    unseen = replace(versions, name="w", relation=tables.placed(schema, "nowhere"))
    assert integrity(tables, [versions, unseen], "t").outcome == "warning"
    (section,) = corrections(tables, [versions], 12)
    assert (section.outcome, section.sentence) == ("ok", "2 in 2 months.")
    assert [(row["month"], row["corrections"], row["keys"]) for row in section.rows] == [
        ("2026-03", 1, 1),
        ("2026-02", 1, 1),
    ]
    tables.execute(f"insert into {relation} select 10 + id, begins, ends, '2026-01-20' from {relation}")
    tables.execute(f"insert into {relation} select 20 + id, begins, ends, '2026-01-20' from {relation}")
    tables.execute(f"insert into {relation} values (1, '2026-02-01', null, '2026-02-01')")
    (section,) = corrections(tables, [versions], 12)
    assert section.outcome == "warning"
    assert [row["month"] for row in section.rows if row[""]] == ["2026-01"]
    found = integrity(tables, [versions], "prod")
    assert found.outcome == "error"
    assert {(row["key"], row["fault"]) for row in found.rows} == {
        ("1", "more than one current version"),
        ("1", "a version still holds when the next one begins"),
    }
    assert "scd2-repair --target prod" in found.action


def test_models_that_became_slow_are_named(tmp_path: Path) -> None:
    now = datetime(2026, 3, 31, tzinfo=UTC).replace(tzinfo=None)
    store = HistoryStore(str(tmp_path))
    for number, (days_ago, slow, steady) in enumerate([(50, 10.0, 30.0), (40, 10.0, 30.0), (3, 25.0, 31.0)]):
        at = now - timedelta(days=days_ago)
        run = {"run_id": f"r{number}", "project": "p", "target": "t", "run_started_at": at, "run_outcome": "succeeded"}
        node = {"resource_type": "model", "outcome": "succeeded", "started_at": at}
        store.write(
            [
                {**run, **node, "unique_id": f"model.p.{name}", "name": name, "seconds": seconds}
                for name, seconds in (("slow", slow), ("steady", steady))
            ]
        )
    with store.reading("p", "t") as history:
        section = slow_models(history, SlowModels(), now)
        assert slow_models(history, SlowModels(), now + timedelta(days=400)).outcome == "not made"
    assert section.outcome == "warning"
    assert section.sentence == "1 of 2 models take over 2 times as long as before."
    assert [(row["model"], row["usual seconds"], row["before"], row[""]) for row in section.rows] == [
        ("slow", 25.0, 10.0, "slower"),
        ("steady", 31.0, 30.0, ""),
    ]


def test_the_report_reads_the_same_as_markdown_page_and_document() -> None:
    rows = ({"key": "a|b", "found": "<script>alert(1)</script>", "amount": Decimal("0.10")},)
    section = Section("Integrity", "error", "1 fault.", rows, "Mend it.")
    report = AuditReport("prod", "shop", datetime(2026, 3, 1, tzinfo=UTC), (section,))
    assert "| a\\|b | \\<script\\>alert(1)\\</script\\> | 0.10 |" in as_markdown(report)
    page = as_html(report)
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert as_document(report)["sections"][0]["rows"] == [dict(rows[0])]
    assert report.sentence() == "Audit of shop on target prod: 1 error."


def test_settings_that_are_wrong_are_named(tmp_path: Path) -> None:
    assert load_settings().accuracy[0].tolerance == Decimal("0.01")
    path = tmp_path / "audit.yml"
    path.write_text("months: 0\naccuracy: [{name: x}]")
    with pytest.raises(ConfigError, match=r"(?s)line 1, months: .*line 2, accuracy\.0\.calculated: is required"):
        load_settings(path)
