"""Decide what to do about a delivery, with Airbyte's confirmation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from deployments.webhook.inbox.delivery import Delivery
from infrastructure.errors import ConfigError, UpstreamUnavailable


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a job in Airbyte.

    Attributes:
        status: pending, queued, running, incomplete, failed, succeeded or cancelled.
        reason: what went wrong, where Airbyte gives it.
    """

    job_id: int
    connection_id: str
    status: str
    reason: str = ""


class AirbyteJobs(Protocol):
    """The jobs of an Airbyte."""

    def job(self, connection_id: str, job_id: int) -> JobState | None:
        """Return a job; None when Airbyte has none of that number for the connection."""
        ...

    def newest_ended(self, connection_id: str) -> JobState | None:
        """Return the newest sync of a connection that has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about a delivery.

    Attributes:
        delivery: completed with Airbyte's answer.
    """

    action: Literal["start", "alert", "pass over", "not ended"]
    delivery: Delivery


def judge(delivery: Delivery, airbyte: AirbyteJobs | None, received_at: float, is_last_try: bool) -> Verdict:
    """Ask Airbyte to confirm a failure, and for the job of a success without a job id.

    Args:
        airbyte: None without access to its API, so that the delivery is believed.
        is_last_try: believe a failure that can't be confirmed.

    Raises:
        UpstreamUnavailable: Airbyte does not answer; try again.
        ConfigError: Airbyte refuses to give the job of a success without a job id.
    """
    if airbyte is None:
        return _unasked(delivery, received_at, "Not confirmed, because Airbyte's API is not set up.")
    try:
        if delivery.job_id is None:
            state = airbyte.newest_ended(delivery.connection_id)
        else:
            state = airbyte.job(delivery.connection_id, delivery.job_id)
    except ConfigError as exc:
        # Asking again would not help, and a failure without an alert is worse than one that is not confirmed.
        if delivery.succeeded:
            raise
        return _unasked(delivery, received_at, f"Not confirmed, because Airbyte refuses the request: {exc}")
    except UpstreamUnavailable as exc:
        if delivery.succeeded or not is_last_try:
            raise
        return _unasked(delivery, received_at, f"Not confirmed, because Airbyte does not answer: {exc}")
    if state is None:
        return Verdict("pass over", delivery)
    known = replace(delivery, job_id=state.job_id, reason=state.reason or delivery.reason)
    match state.status:
        case "succeeded":
            return Verdict("start", replace(known, succeeded=True, queued=False, reason=""))
        case "failed" | "cancelled":
            reason = known.reason or f"The sync was {state.status}." if state.status == "cancelled" else known.reason
            return Verdict("alert", replace(known, reason=reason))
        case _:
            return Verdict("not ended", delivery)


def _unasked(delivery: Delivery, received_at: float, why: str) -> Verdict:
    if delivery.succeeded:
        # Without a job id it gets a number of its own; repeats were recognised by their digest.
        said = hashlib.sha256(f"{delivery.digest} {received_at}".encode()).digest()
        return Verdict("start", replace(delivery, job_id=int.from_bytes(said[:7]) + 1))
    if delivery.queued:
        return Verdict("not ended", delivery)
    return Verdict("alert", replace(delivery, reason=f"{delivery.reason} {why}".strip()))
