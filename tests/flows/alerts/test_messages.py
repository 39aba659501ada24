"""What is said, to the letter, and that it is taken at any size."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.alerts.incident import Incident
from flows.alerts.incident_store import Notice
from flows.alerts.send.pagerduty import dedup_key, pagerduty_events
from flows.alerts.send.slack import digest_message
from flows.engine.artifacts.results import FailingRows
from infrastructure.plain_text import slack_text
from tests.flows.alerts.golden import GOLDEN_FILE, MODEL_FAILED, TEST_FAILED, documents, opened, pages, slack, thousands
from tests.support.alert_receivers import pagerduty_problem, slack_problem

GOLDEN = json.loads(GOLDEN_FILE.read_text(encoding="utf-8"))
ODD = st.text(alphabet=st.sampled_from("ab<>&`*_ \n•é🔴"), max_size=4000)


def texts(message: dict[str, Any]) -> str:
    return "\n".join(block["text"]["text"] for block in message["blocks"] if "text" in block)


@pytest.mark.parametrize("kind", GOLDEN)
def test_every_kind_of_alert_is_as_agreed(kind: str) -> None:
    """When a change is meant: `python -m tests.flows.alerts.golden`, and read the difference."""
    assert json.loads(json.dumps(documents()[kind])) == GOLDEN[kind]


def test_no_kind_of_alert_is_left_out() -> None:
    assert list(documents()) == list(GOLDEN)


@pytest.mark.parametrize("count", [1, 3, 4, 60, 10_000])
def test_a_message_is_taken_at_any_size_and_counts_what_it_leaves_out(count: int) -> None:
    message = slack(Notice("prod", new=thousands(count)))
    assert slack_problem(message) is None
    said = texts(message)
    listed = said.count("\n• ")
    left_out = count - listed - min(count, 3)
    assert (f"and {left_out:,} more" in said) == (left_out > 0)
    assert f"*{count:,}* new" in said


@given(title=ODD, text=ODD, owner=ODD, cell=ODD, command=ODD)
@settings(max_examples=60, deadline=None)
def test_whatever_an_incident_says_slack_takes_it_and_notifies_nobody_by_accident(
    title: str, text: str, owner: str, cell: str, command: str
) -> None:
    rows = FailingRows(("a", "b"), ((cell, cell),) * 5)
    incident = Incident(
        "dbt/x",
        "error",
        title or "x",
        f"<!channel> {text}",
        "prod",
        (owner, "<@U1>"),
        (),
        None,
        command,
        7,
        rows,
        (owner,),
    )
    entries = opened(incident, replace(incident, key="dbt/y"), *(replace(incident, key=f"dbt/{n}") for n in range(9)))
    for message in (
        slack(Notice("prod", new=entries, recovered=entries)),
        digest_message("prod", entries),
    ):
        assert slack_problem(message) is None
        assert "<!channel>" not in texts(message)
        assert "<@U1>" not in texts(message)
    for document in pages(Notice("prod", new=entries)):
        assert pagerduty_problem({"routing_key": "r" * 32, **document}) is None


def test_the_first_error_is_told_in_full_over_several_sections() -> None:
    error = "\n".join(f"line {number} of the error" for number in range(200))
    message = slack(Notice("prod", new=opened(replace(MODEL_FAILED, text=error))))
    told = [
        block["text"]["text"] for block in message["blocks"] if block.get("text", {}).get("text", "").startswith("```")
    ]
    assert len(told) == 2
    assert "\n".join(section.strip("`") for section in told) == slack_text(error)


def test_a_code_block_in_an_error_does_not_end_the_message() -> None:
    said = texts(slack(Notice("prod", new=opened(replace(MODEL_FAILED, text="a ``` b")))))
    assert "```a ''' b```" in said


def test_a_dedup_key_is_stable_and_short_enough() -> None:
    assert dedup_key("prod", "dbt/model.a.b") == "tributary/prod/dbt/model.a.b"
    long = dedup_key("prod", "dbt/model." + "x" * 400)
    assert len(long) <= 255
    assert long == dedup_key("prod", "dbt/model." + "x" * 400)
    assert long != dedup_key("prod", "dbt/model." + "x" * 401)


def test_an_alert_about_many_is_resolved_with_the_last_of_them() -> None:
    told = {"on-call": {"dedup_key": "tributary/prod/dbt"}}
    first, second = opened(TEST_FAILED, MODEL_FAILED, told=told)
    notice = Notice("prod", recovered=(replace(first, closed_at=first.opened_at),))
    assert pagerduty_events(notice, "on-call", still_open=[second]) == []
    (event,) = pagerduty_events(notice, "on-call", still_open=[])
    assert event.document == {"event_action": "resolve", "dedup_key": "tributary/prod/dbt"}
