"""Sending over HTTP to a real server that fails in every way that Slack and PagerDuty do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from flows.alerts.send.delivery import NotSentError, SendDeadline, post, retry_after_seconds
from tests.support.alert_receivers import Answer, Receiver, receiver
from tests.support.processes import free_port

MESSAGE = {"text": "hello"}


@pytest.fixture
def slack() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def send(found: Receiver, seconds: float = 20.0) -> list[float]:
    """Send to Slack without waiting for real; return how long it would have waited each time."""
    waited: list[float] = []
    post(found.slack_url, MESSAGE, SendDeadline.after(seconds), waited.append)
    return waited


def test_what_is_taken_at_once_is_sent_once(slack: Receiver) -> None:
    assert send(slack) == []
    assert slack.bodies == [MESSAGE]


def test_a_server_that_is_asked_too_often_is_asked_again_when_it_says(slack: Receiver) -> None:
    slack.answers = [Answer(429, "rate_limited", {"Retry-After": "3"}), Answer(429, "", {"Retry-After": "2"})]
    assert send(slack) == [3.0, 2.0]
    assert slack.bodies == [MESSAGE]


@pytest.mark.parametrize("fault", [Answer(500, "rollup_error"), Answer(503, "<html>busy</html>"), Answer("drop")])
def test_a_server_that_fails_for_a_moment_is_asked_again_with_growing_patience(slack: Receiver, fault: Answer) -> None:
    slack.answers = [fault, fault, fault]
    waited = send(slack)
    assert slack.bodies == [MESSAGE]
    assert len(waited) == 3
    assert waited == sorted(waited)


@pytest.mark.parametrize(
    ("status", "said"), [(400, "invalid_blocks"), (404, "no_service"), (410, "channel_is_archived")]
)
def test_a_refusal_is_final_and_says_what_slack_said(slack: Receiver, status: int, said: str) -> None:
    slack.always = Answer(status, said)
    with pytest.raises(NotSentError, match=f"^it answered {status}: {said}$"):
        send(slack)
    assert len(slack.paths) == 1


def test_a_wait_that_is_longer_than_the_time_left_is_not_begun(slack: Receiver) -> None:
    slack.always = Answer(429, "rate_limited", {"Retry-After": "3600"})
    with pytest.raises(NotSentError, match=r"^it answered 429: rate_limited, tried 1 time$"):
        send(slack)


def test_a_server_that_never_answers_costs_no_more_than_the_deadline(slack: Receiver) -> None:
    slack.always = Answer("hang")
    with pytest.raises(NotSentError, match=r"^it did not answer"):
        send(slack, seconds=0.3)


def test_a_server_that_is_not_there_is_said_without_its_address() -> None:
    secret = f"http://127.0.0.1:{free_port()}/services/T000/B000/very-secret-part"
    with pytest.raises(NotSentError, match="it did not answer") as caught:
        post(secret, MESSAGE, SendDeadline.after(0.5))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["", "hooks.example.org/x", "http://[broken", "secret"])
def test_an_address_that_is_none_is_said_without_repeating_it(address: str) -> None:
    with pytest.raises(NotSentError) as caught:
        post(address, MESSAGE, SendDeadline.after(1))
    assert "secret" not in str(caught.value)


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert retry_after_seconds("7", now) == 7.0
    assert retry_after_seconds("Sat, 21 Nov 2026 12:00:30 GMT", now) == 30.0
    assert retry_after_seconds("Sat, 21 Nov 2026 11:00:00 GMT", now) == 0.0
    assert retry_after_seconds(None, now) is None
    assert retry_after_seconds("soon", now) is None
