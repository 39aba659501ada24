"""What is read from a body: of which sync, and how it ended."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.webhook.inbox.delivery import BadBody, Delivery, read_delivery
from tests.support.webhook.deliveries import GOOGLE_ADS, body, flat, notification


def read(document: Any) -> Delivery | None:
    return read_delivery(body(document))


def test_a_success_names_the_connection_and_the_job() -> None:
    assert read(notification()) == Delivery(GOOGLE_ADS, 9988, True, name="Ads → warehouse")


def test_a_failure_says_why_with_its_type_and_origin() -> None:
    found = read(notification(success=False))
    assert found
    assert (found.succeeded, found.queued) == (False, False)
    assert found.reason == "The API of the source is down (transient_error, source)"


def test_a_sync_that_waits_looks_like_a_failure_and_is_told_apart_by_its_title() -> None:
    found = read(notification(success=False, title="Sync queued", errorMessage=None, errorType=None, errorOrigin=None))
    assert found
    assert (found.succeeded, found.queued, found.reason) == (False, True, "")


def test_keys_that_are_missing_or_new_are_no_mistake() -> None:
    """The samples in Airbyte's documentation leave some out, and its versions add some."""
    found = read({"data": {"connection": {"id": GOOGLE_ADS, "colour": 1}, "jobId": 1, "success": True, "new": []}})
    assert found == Delivery(GOOGLE_ADS, 1, True)


@pytest.mark.parametrize(("status", "succeeded"), [("succeeded", True), ("failed", False), ("cancelled", False)])
def test_a_flat_body_is_read_with_or_without_a_job(status: str, succeeded: bool) -> None:
    found, numbered = read(flat(status=status)), read(flat(status=status, jobId="77"))
    assert found
    assert numbered
    assert (found.connection_id, found.job_id, found.succeeded) == (GOOGLE_ADS, None, succeeded)
    assert (numbered.job_id, numbered.succeeded) == (77, succeeded)
    assert found.digest
    assert found.digest != numbered.digest


def test_an_id_in_capitals_is_the_same_connection() -> None:
    found = read(notification(connection_id="ABCDEF00-0000-4000-8000-000000000001"))
    assert found
    assert found.connection_id == "abcdef00-0000-4000-8000-000000000001"


def test_a_message_about_something_else_is_passed_over() -> None:
    assert read({"text": "The schema of your source has changed", "blocks": []}) is None


def test_an_empty_body_is_refused_with_the_reason_that_it_usually_has() -> None:
    with pytest.raises(BadBody, match="HTTP/2") as caught:
        read_delivery(b"  \n")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (notification(connection_id="{{connection.id}}"), "connection.id"),
        (notification(job_id=True), "jobId"),
        (notification(job_id=0), "jobId"),
        (notification(job_id=2**63), "jobId"),
        (notification(job_id=2**70), "jobId"),
        ({"data": {}}, "connection"),
        ({"data": 1}, "data"),
        (flat(status=None), "status"),  # type: ignore[arg-type]
        ({}, "text"),
        ([], "object"),
    ],
)
def test_a_wrong_body_is_refused_by_naming_what_is_wrong(document: Any, named: str) -> None:
    with pytest.raises(BadBody, match=named) as caught:
        read(document)
    assert caught.value.status == 422


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"NaN", b'{"data": Infinity}', b"[" * 3000])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadBody, match="not JSON") as caught:
        read_delivery(text)
    assert caught.value.status == 400


def test_texts_are_made_safe_to_log() -> None:
    found = read(notification(success=False, errorMessage="one\r\n2026 INFO forged \x1b[31m" + "x" * 9999))
    assert found
    assert "\n" not in found.reason
    assert "\x1b" not in found.reason
    assert len(found.reason) < 600
