"""Whose a node is, what must not be shown of it, and which incidents a result comes to."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.alerts.failing_rows import mask_rows, why_hidden
from flows.alerts.nodes import closed_keys, incidents_of, key_of, passed, renamed_keys
from flows.alerts.routes import FailingRowsSettings
from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.artifacts.results import DbtResult, FailingRows, NodeResult
from flows.engine.ledger.explanation import age_sentence

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
SETTINGS = FailingRowsSettings(masked_columns=("*token*",))


def entry(unique_id: str, *parents: str, meta: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    kind, _, name = unique_id.partition(".")
    columns = {name: {"config": {"meta": meta}} for name, meta in fields.pop("columns", {}).items()}
    config = {"meta": meta or {}, "group": fields.pop("group", None)}
    return {
        "unique_id": unique_id,
        "resource_type": kind,
        "name": name.split(".")[-1],
        "depends_on": {"nodes": list(parents)},
        "config": config,
        "columns": columns,
        **fields,
    }


def manifest(*entries: dict[str, Any]) -> Manifest:
    return manifest_of(
        {
            "metadata": {"project_name": "shop"},
            "groups": {"group.shop.finance": {"name": "finance", "owner": {"name": "Finance"}}},
            "nodes": {found["unique_id"]: found for found in entries if found["resource_type"] != "exposure"},
            "exposures": {found["unique_id"]: found for found in entries if found["resource_type"] == "exposure"},
        }
    )


SOURCE = entry("source.shop.crm.people", meta={"owner": "CRM"}, columns={"phone": {"contains_personal_data": True}})
PEOPLE = entry(
    "model.shop.people", "source.shop.crm.people", group="finance", tags=["gold"], columns={"id": {}, "phone": {}}
)
ORDERS = entry("model.shop.orders", "model.shop.people", columns={"id": {}})
BOARD = entry("exposure.shop.board", "model.shop.orders", label="The board", owner={"name": "Board", "email": "b@x"})
UNIQUE = entry("test.shop.unique_people_id", "model.shop.people", attached_node="model.shop.people", column_name="id")
PHONE = entry("test.shop.unique_people_phone", "model.shop.people", column_name="phone")
CRITICAL = entry("test.shop.orders_add_up", "model.shop.orders", meta={"critical": True})
SHOP = manifest(SOURCE, PEOPLE, ORDERS, BOARD, UNIQUE, PHONE, CRITICAL)


@pytest.mark.parametrize(
    ("unique_id", "owners"),
    [
        ("source.shop.crm.people", ("CRM",)),
        ("model.shop.people", ("Finance",)),
        ("test.shop.unique_people_id", ("Finance",)),
        ("model.shop.orders", ("Board",)),
        ("model.shop.unknown", ()),
    ],
)
def test_an_owner_is_in_meta_or_a_group_else_it_is_who_reads_it(unique_id: str, owners: tuple[str, ...]) -> None:
    assert SHOP.owners(unique_id) == owners


def test_a_test_has_the_tags_and_the_readers_of_what_it_tests() -> None:
    assert SHOP.tags("test.shop.unique_people_id") == ("gold",)
    assert SHOP.affects("test.shop.unique_people_id") == ("The board",)


def test_a_manifest_that_is_missing_or_broken_is_an_empty_one(tmp_path: Path) -> None:
    assert Artifacts(tmp_path).manifest_if_any.owners("model.shop.people") == ()
    (tmp_path / "manifest.json").write_text("[]")
    assert Artifacts(tmp_path).manifest_if_any.affects("model.shop.people") == ()


def test_rows_of_a_personal_column_and_of_a_personal_source_are_not_shown() -> None:
    assert why_hidden(SHOP, "test.shop.unique_people_id", SETTINGS) == ""
    assert "personal data" in why_hidden(SHOP, "test.shop.unique_people_phone", SETTINGS)
    personal = manifest(
        entry("source.shop.crm.people", meta={"contains_personal_data": True}), PEOPLE, ORDERS, CRITICAL
    )
    assert "personal data" in why_hidden(personal, "test.shop.orders_add_up", SETTINGS)
    allowed = SETTINGS.model_copy(update={"personal_data": True})
    assert why_hidden(personal, "test.shop.orders_add_up", allowed) == ""
    assert "routes.yml" in why_hidden(SHOP, "test.shop.unique_people_id", SETTINGS.model_copy(update={"limit": 0}))


def test_beside_a_personal_column_only_what_is_described_is_shown() -> None:
    rows = FailingRows(
        ("ID", "phone", "alias", "api_token", "n_records"),
        (("1", "0815", "0815", "x", "2"), ("2", "null", "", "y", "1")),
    )
    shown = mask_rows(rows, SHOP, "test.shop.unique_people_id", SETTINGS)
    assert shown.rows == (("1", "•••", "•••", "•••", "2"), ("2", "null", "•••", "•••", "1"))
    plain = manifest(replace_columns(SOURCE), PEOPLE, UNIQUE)
    assert mask_rows(rows, plain, "test.shop.unique_people_id", SETTINGS).rows[0] == ("1", "0815", "0815", "•••", "2")


def replace_columns(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "columns": {}}


def node(unique_id: str, status: str, failures: int | None = None) -> NodeResult:
    kind, _, name = unique_id.partition(".")
    return NodeResult(unique_id, name.split(".")[-1], kind, "", status, AT, AT, failures=failures)


def result(*nodes: NodeResult, command: str = "dbt build", folder: Path = Path("/t")) -> DbtResult:
    return DbtResult(command, "prod", nodes, AT, AT + timedelta(seconds=9), folder, folder)


def severities(*nodes: NodeResult) -> dict[str, str]:
    found = incidents_of(result(*nodes), SHOP, None, None)
    return {unique_id: incident.severity for unique_id, incident in found.items()}


def test_what_keeps_a_critical_test_from_running_is_critical_itself() -> None:
    skipped = node("test.shop.orders_add_up", "skipped")
    unique = node("test.shop.unique_people_id", "fail", 3)
    assert severities(unique) == {unique.unique_id: "error"}
    assert severities(unique, skipped) == {unique.unique_id: "critical"}
    assert severities(node("model.shop.people", "error"), skipped) == {"model.shop.people": "critical"}
    assert severities(node("test.shop.orders_add_up", "fail", 1)) == {"test.shop.orders_add_up": "critical"}
    assert severities(node("test.shop.unique_people_id", "warn", 1), skipped) == {unique.unique_id: "warning"}


def test_what_passed_is_as_critical_as_it_would_have_been_had_it_failed() -> None:
    """One rule: a mark on what is tested makes no test critical, as its failure keeps nothing critical from running."""
    people = {**PEOPLE, "meta": {"critical": True}}
    marked = manifest(SOURCE, people, UNIQUE, PHONE)
    ran = result(node("model.shop.people", "success"), node("test.shop.unique_people_id", "pass"))
    assert [each.key for each in passed(ran, marked, "critical")] == ["dbt", "dbt/model.shop.people"]
    assert [each.key for each in passed(ran, marked, "error")] == ["dbt/test.shop.unique_people_id"]
    (failed,) = incidents_of(result(node("test.shop.unique_people_id", "fail", 1)), marked, None, None).values()
    assert failed.severity == "error"
    # Both keep the critical test of orders from running.
    assert [each.key for each in passed(ran, SHOP, "error")] == []


def test_a_node_that_succeeds_or_is_gone_is_mended_and_one_that_did_not_run_is_not() -> None:
    was_open = [
        key_of(name) for name in ("model.shop.people", "model.shop.orders", "model.shop.deleted", "model.other.x")
    ]
    ran = result(node("model.shop.people", "success"), node("model.shop.orders", "skipped"))
    assert closed_keys(ran, SHOP, [*was_open, "airbyte sync/x"]) == ["dbt/model.shop.people", "dbt/model.shop.deleted"]
    assert closed_keys(ran, Manifest({}), was_open) == ["dbt/model.shop.people"]


def test_two_projects_of_one_name_mend_their_own_nodes_alone() -> None:
    """Their unique ids are the same: one told that the other's alert was over."""
    failed = result(node("model.shop.people", "error"))
    one, other = (incidents_of(failed, SHOP, None, None, name)["model.shop.people"].key for name in ("shop", "shop@2"))
    assert (one, other) == ("dbt/model.shop.people", "dbt of shop@2/model.shop.people")
    ran = result(node("model.shop.people", "success"))
    assert closed_keys(ran, SHOP, [one, other], "shop") == [one]
    assert closed_keys(ran, SHOP, [one, other], "shop@2") == [other]
    gone = [key_of("model.shop.deleted", name) for name in ("shop", "shop@2", "till")]
    assert closed_keys(ran, SHOP, gone, "shop") == gone[:1]
    assert closed_keys(ran, SHOP, gone, "shop@2") == gone[1:2]
    marked = manifest({**PEOPLE, "meta": {"critical": True}})
    closed = ["dbt of shop@2", "dbt of shop@2/model.shop.people"]
    assert [each.key for each in passed(ran, marked, "critical", "shop@2")] == closed


def test_a_package_that_two_projects_use_has_incidents_of_each() -> None:
    ran = result(node("test.pack.adds_up", "pass"), node("source.pack.crm.people", "pass"))
    old = [key_of("test.pack.adds_up"), key_of("source.pack.crm.people")]
    own = [key_of("test.pack.adds_up", "shop"), key_of("source.pack.crm.people", "shop")]
    assert own == ["dbt of shop/test.pack.adds_up", "source freshness of shop/source.pack.crm.people"]
    theirs = [key_of("test.pack.adds_up", "till")]
    assert closed_keys(ran, Manifest({}), [*old, *own, *theirs], "shop") == own
    # What an earlier version opened begins anew, unless it is of the project that the package is by itself.
    assert renamed_keys(ran, [*old, *own, *theirs], "shop", {"shop", "till"}) == old
    assert renamed_keys(ran, [*old, *own, *theirs], "shop", {"shop", "pack"}) == []
    assert renamed_keys(ran, [key_of("model.shop.people")], "shop@2", {"shop", "shop@2"}) == []


def test_a_source_that_is_too_old_says_how_old_it_is_and_may_be(tmp_path: Path) -> None:
    criteria = {"warn_after": {"count": 24, "period": "hour"}, "error_after": {"count": 2, "period": "day"}}
    fresh = {"max_loaded_at": "2026-11-18T12:00:00Z", "max_loaded_at_time_ago_in_s": 259200.0, "criteria": criteria}
    document = {
        "results": [
            {"unique_id": "source.shop.crm.people", **fresh},
            {"unique_id": "source.shop.crm.empty", **fresh, "max_loaded_at": "0001-01-01T00:00:00Z"},
        ]
    }
    (tmp_path / "sources.json").write_text(json.dumps(document))
    ages = {key: age_sentence(age) for key, age in Artifacts(tmp_path).sources().items()}
    assert ages["source.shop.crm.people"] == (
        "Its newest row is of 2026-11-18 12:00 UTC, 3.0 days ago; "
        "its freshness: warn after 24 hours, error after 2 days."
    )
    assert ages["source.shop.crm.empty"].startswith("It has no rows at all;")
    stale = replace(node("source.shop.crm.people", "error"), name="crm_people")
    (incident,) = incidents_of(
        result(stale, command="dbt source freshness", folder=tmp_path), SHOP, None, None
    ).values()
    assert incident.key == "source freshness/source.shop.crm.people"
    assert incident.title == "source crm.people is too old"
    assert incident.text == ages["source.shop.crm.people"]
    assert incident.owners == ("CRM",)
