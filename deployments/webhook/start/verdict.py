"""What a delivery turns out to mean, once Airbyte has been asked about it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from deployments.webhook.inbox.delivery import Delivery
from infrastructure.errors import ConfigError, UpstreamUnavailable


@dataclass(frozen=True, slots=True)
class JobState:
    """What Airbyte says of a job.

    Attributes:
        status: pending, queued, running, incomplete, failed, succeeded or cancelled.
        reason: what went wrong, where Airbyte tells.
    """

    job_id: int
    connection_id: str
    status: str
    reason: str = ""


class AirbyteJobs(Protocol):
    """Whom to ask."""

    def job(self, connection_id: str, job_id: int) -> JobState | None:
        """Return a job; None when Airbyte has none of that number for the connection."""
        ...

    def newest_ended(self, connection_id: str) -> JobState | None:
        """Return the newest sync of a connection that has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done about a delivery.

    Attributes:
        delivery: with what was found out about it.
    """

    action: Literal["start", "alert", "pass over", "not ended"]
    delivery: Delivery


def judge(delivery: Delivery, airbyte: AirbyteJobs | None, received_at: float, is_last_try: bool) -> Verdict:
    """Ask Airbyte whether a failure is one, and which job a success without a number is.

    Args:
        airbyte: None where there is no access to its API, so that what was said has to do.
        is_last_try: believe a failure that can't be confirmed.

    Raises:
        UpstreamUnavailable: Airbyte does not answer; try again.
        ConfigError: Airbyte refuses to say which job a success without a number is.
    """
    if airbyte is None:
        return _unasked(delivery, received_at, "Airbyte's API is not set up, so that this is not confirmed.")
    try:
        if delivery.job_id is None:
            state = airbyte.newest_ended(delivery.connection_id)
        else:
            state = airbyte.job(delivery.connection_id, delivery.job_id)
    except ConfigError as exc:
        # Asking again would not help, and a failure that is hushed up is worse than one that is not confirmed.
        if delivery.succeeded:
            raise
        return _unasked(delivery, received_at, f"Airbyte does not say, so that this is not confirmed: {exc}")
    except UpstreamUnavailable as exc:
        if delivery.succeeded or not is_last_try:
            raise
        return _unasked(delivery, received_at, f"Airbyte does not answer, so that this is not confirmed: {exc}")
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
        # Nobody numbers it, so it gets a number of its own; that it is said again was noticed by its words.
        said = hashlib.sha256(f"{delivery.digest} {received_at}".encode()).digest()
        return Verdict("start", replace(delivery, job_id=int.from_bytes(said[:7]) + 1))
    if delivery.queued:
        return Verdict("not ended", delivery)
    return Verdict("alert", replace(delivery, reason=f"{delivery.reason} {why}".strip()))
