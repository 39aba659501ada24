"""`python -m flows alerts`, for a person who wants to see whether it works."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from flows.__main__ import main
from flows.alerts import Incident, open_incident
from tests.support.alert_receivers import Answer, Receiver, WriteRoutes, headers


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["alerts", *arguments])


def test_a_test_message_goes_along_the_routes_and_a_page_is_resolved_at_once(
    routes: WriteRoutes, team: Receiver, on_call: Receiver, fresh: str
) -> None:
    routes(routes=[{"severity": "critical", "to": "on-call", "continue": True}, {"to": "team"}])
    done = run("test", "--target", fresh, "--severity", "critical")
    assert (done.exit_code, done.stdout) == (0, "on-call: sent\nteam: sent\n")
    assert headers(team) == [f"🔴 {fresh}: This is a test of the alerts; nothing is wrong"]
    assert [event["event_action"] for event in on_call.bodies] == ["trigger", "resolve"]
    assert run("show", "--target", fresh).stdout.endswith(f"No incident is open on {fresh}.\n")


def test_a_test_message_that_does_not_arrive_says_why_and_fails(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    team.always = Answer(403, "invalid_token")
    done = run("test", "--target", fresh)
    assert (done.exit_code, done.stdout) == (1, "team: not sent, it answered 403: invalid_token\n")


def test_a_target_that_nobody_hears_of_is_said(routes: WriteRoutes, fresh: str) -> None:
    routes(routes=[])
    done = run("test", "--target", fresh)
    assert done.exit_code == 0
    assert f"No route matches severity error on {fresh}." in done.stdout


def test_what_is_owed_is_shown_and_sent_and_an_incident_is_closed_by_hand(
    routes: WriteRoutes, team: Receiver, fresh: str
) -> None:
    team.always = Answer(404, "no_service")
    open_incident(Incident("export/payroll", "error", "The export is late", target=fresh, owners=("Payroll",)))
    assert "team: not yet" in run("show", "--target", fresh).stdout
    assert run("send", "--target", fresh).exit_code == 1
    team.always = Answer()
    assert run("send", "--target", fresh).exit_code == 0
    document = json.loads(run("show", "--target", fresh, "--json").stdout)
    assert [(found["key"], found["told"], found["owed"]) for found in document["incidents"]] == [
        ("export/payroll", ["team"], [])
    ]
    assert {"name": "team", "block": f"slack-webhook/{fresh}", "error": None} in document["destinations"]
    wrong = run("close", "export/payrol", "--target", fresh)
    assert wrong.exit_code == 2
    assert "did you mean `export/payroll`?" in wrong.stderr
    assert run("close", "export/payroll", "--target", fresh).exit_code == 0
    assert headers(team) == [f"🔴 {fresh}: The export is late", f"🟢 {fresh}: recovered: The export is late"]
