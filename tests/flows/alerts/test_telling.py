"""From an incident to what a real receiver took, over blocks on a real Prefect server."""

from __future__ import annotations

from typing import Any

import pytest

from flows.alerts import Incident, close_incident, open_incident
from flows.alerts.telling import tell
from tests.flows.alerts.conftest import ROUTING_KEY, WriteRoutes, headers
from tests.flows.alerts.receivers import Answer, Receiver

SYNC = "airbyte sync/orders"


def sync_failed(target: str, **fields: Any) -> Incident:
    return Incident(SYNC, fields.pop("severity", "error"), "The sync of orders failed", target=target, **fields)


def test_an_incident_is_told_once_then_when_it_changes_and_when_it_is_over(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    open_incident(sync_failed(fresh, text="timeout after 31 s"))
    open_incident(sync_failed(fresh, text="timeout after 48 s"))
    open_incident(sync_failed(fresh, text="permission denied"))
    close_incident(SYNC, fresh)
    close_incident(SYNC, fresh)
    assert headers(team) == [
        f"🔴 {fresh}: The sync of orders failed",
        f"🔴 {fresh}: changed: The sync of orders failed",
        f"🟢 {fresh}: recovered: The sync of orders failed",
    ]


def test_what_could_not_be_sent_is_said_and_owed_until_the_next_report(
    routes: WriteRoutes, team: Receiver, fresh: str, capsys: pytest.CaptureFixture[str]
) -> None:
    team.always = Answer(404, "no_service")
    open_incident(sync_failed(fresh))
    said = capsys.readouterr().out
    assert f"An alert of target {fresh} was not sent to team: it answered 404: no_service" in said
    assert "very-secret-part" not in said
    team.always = Answer()
    close_incident("airbyte sync/another", fresh)
    assert headers(team) == [f"🔴 {fresh}: The sync of orders failed"]


def test_an_incident_that_nobody_heard_of_is_over_without_a_word(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    team.always = Answer(404, "no_service")
    open_incident(sync_failed(fresh))
    team.always = Answer()
    close_incident(SYNC, fresh)
    assert team.bodies == []


def test_a_critical_incident_pages_under_a_stable_key_and_resolves_it(
    routes: WriteRoutes, team: Receiver, on_call: Receiver, fresh: str
) -> None:
    routes(routes=[{"severity": "critical", "to": "on-call", "continue": True}, {"to": "team"}])
    open_incident(sync_failed(fresh, severity="critical", text="first"))
    open_incident(sync_failed(fresh, severity="critical", text="otherwise"))
    open_incident(Incident("airbyte sync/small", "error", "The sync of small failed", target=fresh))
    close_incident(SYNC, fresh)
    key = f"tributary/{fresh}/{SYNC}"
    assert [(event["event_action"], event["dedup_key"]) for event in on_call.bodies] == [
        ("trigger", key),
        ("trigger", key),
        ("resolve", key),
    ]
    assert {event["routing_key"] for event in on_call.bodies} == {ROUTING_KEY}
    assert len(team.bodies) == 4


def test_a_destination_that_is_slow_holds_up_no_other_and_no_run(
    routes: WriteRoutes, team: Receiver, on_call: Receiver, fresh: str
) -> None:
    routes(routes=[{"to": ["team", "on-call"]}], deadline_seconds=5)
    team.always = Answer("hang")
    (unsent,) = tell(fresh, [sync_failed(fresh)])
    assert unsent.destination == "team"
    assert len(on_call.bodies) == 1


def test_a_block_that_is_missing_is_said_where_another_destination_works(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    routes(destinations={"team": {"slack": fresh}, "gone": {"slack": "gone"}}, routes=[{"to": ["team", "gone"]}])
    (unsent,) = tell(fresh, [sync_failed(fresh)])
    assert str(unsent).startswith("gone: the server has no block slack-webhook/gone; uv run python -m infra")
    assert len(team.bodies) == 1


def test_where_nothing_is_set_up_nobody_is_told_that_nobody_is_told(
    routes: WriteRoutes, fresh: str, capsys: pytest.CaptureFixture[str]
) -> None:
    routes(destinations={"gone": {"slack": "gone"}}, routes=[{"to": "gone"}])
    assert tell(fresh, [sync_failed(fresh)]) == ()
    assert capsys.readouterr().out == ""


def test_a_mistake_in_the_routing_file_is_said_with_its_line(
    routes: WriteRoutes, fresh: str, capsys: pytest.CaptureFixture[str]
) -> None:
    routes(routes=[{"to": "tema"}])
    (unsent,) = tell(fresh, [sync_failed(fresh)])
    assert "there is no destination 'tema'; did you mean `team`?" in unsent.reason
    assert "Nobody was told of what is wrong" in capsys.readouterr().out


def test_warnings_are_told_when_new_or_grown_and_listed_in_the_digest(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    def warned(rows: int) -> None:
        open_incident(Incident("dbt/test.x", "warning", f"x warns: {rows} rows", target=fresh, count=rows))

    for rows in (3, 3, 2, 3):
        warned(rows)
    assert headers(team) == [f"🟡 {fresh}: x warns: 3 rows", f"🟡 {fresh}: changed: x warns: 3 rows"]
    # A digest that is always due.
    routes(digest_every_hours=0.000001)
    warned(3)
    assert headers(team)[2:] == [f"🟡 {fresh}: 1 warning as before"]
