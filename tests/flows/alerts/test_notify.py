"""From an incident to what a real receiver took, over blocks on a real Prefect server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from flows.alerts import Incident, close_incident, open_incident
from flows.alerts.incident import Severity
from flows.alerts.incident_store import store_of
from flows.alerts.notify import deliver, tell, write_down
from tests.support.alert_receivers import ROUTING_KEY, Answer, Receiver, WriteRoutes, headers

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
    assert str(unsent).startswith("gone: the server has no block slack-webhook/gone; uv run tributary setup")
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
    assert "No alert of target" in capsys.readouterr().out


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


def test_what_a_run_elsewhere_has_paged_is_resolved_by_a_run_that_never_heard_of_it(
    routes: WriteRoutes, team: Receiver, on_call: Receiver, fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes(routes=[{"severity": "critical", "to": "on-call", "continue": True}, {"to": "team"}])
    for folder in ("one", "two", "three"):
        # As pods have it: each run begins with a state of its own.
        monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / folder))
        if folder == "three":
            close_incident(SYNC, fresh)
            close_incident(SYNC, fresh)
        else:
            open_incident(sync_failed(fresh, severity="critical"))
    events = [(event["event_action"], event["dedup_key"]) for event in on_call.bodies]
    key = f"tributary/{fresh}/{SYNC}"
    assert events == [("trigger", key), ("trigger", key), ("resolve", key)]
    assert len(team.bodies) == 2, "Slack has no key to know it by, and hears of each run once"


def test_what_passes_costs_no_more_than_a_bounded_number_of_events(
    routes: WriteRoutes, on_call: Receiver, team: Receiver, fresh: str
) -> None:
    routes(routes=[{"severity": "critical", "to": "on-call"}, {"to": "team"}], deadline_seconds=60)

    def well(severity: Severity) -> list[Incident]:
        return [Incident(f"dbt/model.a.{severity}{n}", severity, "passed", target=fresh) for n in range(70)]

    for _ in range(3):
        write_down(fresh, passed=[*well("critical"), *well("error")])
        assert deliver(fresh) == ()
    keys = [event["dedup_key"] for event in on_call.bodies]
    assert len(keys) == len(set(keys)) == 70, "50 at once, the others with the next run, none twice a day"
    assert team.bodies == []


def test_nobody_is_told_that_an_end_could_not_be_told_that_nobody_waits_for(
    routes: WriteRoutes, on_call: Receiver, fresh: str, capsys: pytest.CaptureFixture[str]
) -> None:
    routes(destinations={"gone": {"pagerduty": "gone"}}, routes=[{"to": "gone"}])
    write_down(fresh, passed=[Incident("dbt/model.a.b", "critical", "passed", target=fresh)])
    assert deliver(fresh) == ()
    assert capsys.readouterr().out == ""
    assert store_of(fresh, os.environ).read().incidents == {}
