"""Who hears of what, and a routing file with mistakes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.alerts.incident import Incident
from flows.alerts.routes import Routes, load_routes
from infrastructure.errors import ConfigError
from infrastructure.workspace import EXAMPLE

DESTINATIONS = {"team": {"slack": "slack-webhook"}, "payroll": {"slack": "x"}, "on-call": {"pagerduty": "pagerduty"}}


def routes(*entries: dict[str, Any], **more: Any) -> Routes:
    return Routes.model_validate({"destinations": DESTINATIONS, "routes": entries, **more})


def incident(**fields: Any) -> Incident:
    return Incident("k/x", fields.pop("severity", "error"), "x", **{"target": "prod", **fields})


def test_the_file_that_comes_with_it_is_right_and_keeps_development_quiet() -> None:
    found = load_routes(EXAMPLE.routes, {})
    assert found.destinations_of(incident(target="dev")) == []
    assert found.destinations_of(incident(target="ci-42", severity="critical")) == []
    assert found.destinations_of(incident()) == ["team"]
    assert found.destinations_of(incident(severity="critical")) == ["on-call", "team"]


def test_the_first_route_that_fits_is_taken_and_the_search_goes_on_only_when_it_says_so() -> None:
    found = routes(
        {"severity": "critical", "to": "on-call", "continue": True},
        {"owner": "Payroll", "target": ["prod*"], "to": "payroll"},
        {"tag": "hourly", "to": []},
        {"to": ["team"]},
    )
    assert found.destinations_of(incident()) == ["team"]
    assert found.destinations_of(incident(owners=("payroll",), target="prod-eu")) == ["payroll"]
    assert found.destinations_of(incident(owners=("Payroll",), target="test")) == ["team"]
    assert found.destinations_of(incident(tags=("hourly",))) == []
    assert found.destinations_of(incident(severity="critical", tags=("hourly",))) == ["on-call"]


def test_an_owner_is_mentioned_by_a_slack_id_and_named_without_one() -> None:
    found = routes(owners={"A": "U1", "B": "S2", "C": "here"})
    assert [found.mention(name) for name in "ABCD"] == ["<@U1>", "<!subteam^S2>", "<!here>", "D"]


def test_every_mistake_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "routes.yml"
    document = {
        "destinations": {"team": {"slak": "x"}, "both": {"slack": "a", "pagerduty": "b"}},
        "routes": [{"to": "team", "severity": "fatal"}],
        "deadline_seconds": 900,
        "owners": {"A": "@ada"},
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(ConfigError) as caught:
        load_routes(path, {})
    said = str(caught.value)
    assert "destinations.team.slak: no such setting; did you mean `slack`?" in said
    assert "a destination is either slack or pagerduty" in said
    assert "expected one of `critical`, `error`, `warning`, `info`, found 'fatal'" in said
    assert "deadline_seconds" in said
    assert "expected a Slack id such as U0123ABCD" in said
