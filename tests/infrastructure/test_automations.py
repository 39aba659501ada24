"""What the server watches by itself: planned, made, and put right again on a real Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infrastructure.blocks.documents import BlockDocument, Reference, change_of
from infrastructure.plan import Plan
from infrastructure.registration import DeclaredSetup, apply, declare, plan
from infrastructure.server.automations import (
    PREFIX,
    AutomationDocument,
    Patience,
    SavedAutomation,
    automation_documents,
    change_of_automation,
)
from tests.support.environments import Environments
from tests.support.prefect_api import ask, post

SLACK = Reference("webhook", "slack-webhook")
PAGERDUTY = Reference("pager-duty-webhook", "pagerduty")


def saved(document: AutomationDocument, **changed: Any) -> SavedAutomation:
    fields = {"description": document.description, "is_enabled": True, "trigger": document.trigger}
    return SavedAutomation("id", **{**fields, "actions": document.actions, **changed})


def test_where_there_is_nobody_to_tell_nothing_is_watched() -> None:
    assert automation_documents(None, None) == []


def test_a_crash_a_late_run_a_lost_worker_and_a_stuck_run_are_watched() -> None:
    documents = automation_documents(SLACK, PAGERDUTY)
    assert [document.name.removeprefix(PREFIX) for document in documents] == [
        "crashed",
        "alert not sent",
        "late",
        "no worker",
        "silent from the start",
        "stuck",
        "no sign of life",
    ]
    assert [action["type"] for action in documents[0].actions] == ["call-webhook", "send-notification"]
    assert [action["type"] for action in documents[-1].actions] == ["change-flow-run-state"]


def test_what_differs_is_named() -> None:
    crashed = automation_documents(SLACK, None)[0]
    assert change_of_automation(crashed, None).action == "create"
    assert change_of_automation(crashed, saved(crashed)).action == "unchanged"
    change = change_of_automation(
        crashed, saved(crashed, trigger={**crashed.trigger, "within": 5.0}, is_enabled=False, doubles=("other",))
    )
    assert change.action == "update"
    assert [(field.path, field.old, field.new) for field in change.fields] == [
        ("enabled", "False", "True"),
        ("of this name", "2", "1"),
        ("trigger.within", "5.0", "60.0"),
    ]


@pytest.fixture
def declared(prefect_server: str, fresh: str) -> Iterator[DeclaredSetup]:
    """Declare the automations on a block of their own, and take them off the server at the end."""
    from infrastructure.server.client import connect

    # Another test's setup may have left some of the same names.
    take_off(prefect_server)
    with connect() as server:
        server.save_block(change_of(BlockDocument("webhook", fresh, {"url": "http://127.0.0.1:9/"}), None))
    documents = automation_documents(Reference("webhook", fresh), None, Patience(stuck=7200))
    yield DeclaredSetup((), (), (), (), (), tuple(documents))
    take_off(prefect_server)


def on_server(api: str) -> list[dict[str, Any]]:
    found = post(api, "/automations/filter", {})
    return [automation for automation in found if automation["name"].startswith(PREFIX)]


def take_off(api: str) -> None:
    for automation in on_server(api):
        ask("DELETE", f"{api}/automations/{automation['id']}")


def set_up(declared: DeclaredSetup) -> Plan:
    from infrastructure.server.client import connect

    with connect() as server:
        planned = plan(server, declared)
        apply(server, planned)
        return planned


def actions(planned: Plan) -> set[str]:
    return {change.action for change in planned.changes}


def test_a_second_run_changes_nothing_and_a_third_puts_right_what_somebody_changed(
    declared: DeclaredSetup, prefect_server: str
) -> None:
    assert actions(set_up(declared)) == {"create"}
    assert set_up(declared).is_empty

    first, second, *_ = on_server(prefect_server)
    address = f"{prefect_server}/automations"
    ask("PATCH", f"{address}/{first['id']}", json={"enabled": False})
    double = {name: second[name] for name in ("name", "description", "enabled", "trigger", "actions")}
    ask("POST", f"{address}/", json=double)
    changed = {change.name for change in set_up(declared).changes if change.action == "update"}
    assert changed == {first["name"], second["name"]}
    assert len(on_server(prefect_server)) == len(declared.automations)
    assert set_up(declared).is_empty


def test_they_are_declared_with_the_services_and_only_then(every_sign_in: Environments) -> None:
    assert declare(every_sign_in.load(), every_sign_in.environ, ["duckdb"]).automations == ()
    declared = declare(every_sign_in.load(), every_sign_in.environ)
    assert [action["type"] for action in declared.automations[0].actions] == ["call-webhook", "send-notification"]
