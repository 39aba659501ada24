"""Somebody to tell: local receivers, and a routing file whose destinations are blocks on the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.alerts.routes import ROUTES_VARIABLE
from infrastructure.blocks.documents import BlockDocument, change_of
from tests.support.alert_receivers import ROUTING_KEY, Receiver, WriteRoutes, receiver


@pytest.fixture
def team() -> Iterator[Receiver]:
    """Run a server that answers as Slack does."""
    with receiver() as found:
        yield found


@pytest.fixture
def on_call() -> Iterator[Receiver]:
    """Run a server that answers as PagerDuty does."""
    with receiver() as found:
        yield found


@pytest.fixture
def routes(
    prefect_server: str,
    fresh: str,
    team: Receiver,
    on_call: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> WriteRoutes:
    """Put a routing file in force that tells the team everything; the function returned writes another.

    Its destinations `team` and `on-call` are blocks of the name `fresh` on the server.
    """
    from infrastructure.server.client import connect

    pagerduty = {"integration_key": ROUTING_KEY, "api_key": "not-used"}
    with connect() as server:
        server.save_block(change_of(BlockDocument("slack-webhook", fresh, {"url": team.slack_url}), None))
        server.save_block(change_of(BlockDocument("pager-duty-webhook", fresh, pagerduty), None))
    path = tmp_path / "routes.yml"
    monkeypatch.setenv(ROUTES_VARIABLE, str(path))

    def write(**more: Any) -> None:
        destinations = {
            "team": {"slack": fresh},
            "on-call": {"pagerduty": fresh, "events_url": on_call.events_url},
        }
        document = {"destinations": destinations, "routes": [{"to": "team"}], "deadline_seconds": 20, **more}
        path.write_text(yaml.safe_dump(document))

    write()
    return write
