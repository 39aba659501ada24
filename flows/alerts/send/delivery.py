"""Send one message over HTTP; repeat it where that can help, and stop at the deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from infrastructure.plain_text import count_of
from infrastructure.proxy import through_proxy

if TYPE_CHECKING:
    from ssl import SSLContext

    from tenacity import RetryCallState

_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
_FIRST_DELAY_SECONDS = 0.5
_MOST_DELAY_SECONDS = 4.0


class NotSentError(Exception):
    """Say why a message was not accepted; the text names no address, because an address is a secret."""


@dataclass(frozen=True)
class SendDeadline:
    """The moment until which there is time."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> SendDeadline:
        """Return the deadline so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left_seconds(self) -> float:
        """Return how much time is left; never negative."""
        return max(0.0, self.at - time.monotonic())


def post(
    url: str, document: dict[str, Any], deadline: SendDeadline, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Send a JSON document; repeat it after 429, 5xx or no answer, until the deadline.

    Raises:
        NotSentError: it was refused, or was not accepted in time.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_before_delay

    if not deadline.left_seconds:
        raise NotSentError("there was no time left")
    attempts = Retrying(
        retry=retry_if_exception_type(_NotNowError),
        wait=_delay_seconds,
        stop=stop_before_delay(deadline.left_seconds),
        sleep=sleep,
        reraise=True,
    )
    try:
        attempts(_post_once, url, document, deadline)
    except _NotNowError as exc:
        tried = int(attempts.statistics["attempt_number"])
        asked = through_proxy(url).removesuffix(".")
        said = f"{exc}, tried {count_of(tried, 'time')}{f'.{asked}' if asked else ''}"
        raise NotSentError(said) from exc


class _NotNowError(Exception):
    """Say why a message was not accepted, where a later attempt may succeed.

    Attributes:
        wait_seconds: how long the server asked to wait; None where it did not say.
    """

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


def _post_once(url: str, document: dict[str, Any], deadline: SendDeadline) -> None:
    import httpx

    left = deadline.left_seconds
    timeout = httpx.Timeout(min(_ANSWER_SECONDS, left), connect=min(_CONNECT_SECONDS, left))
    try:
        answer = httpx.post(url, json=document, timeout=timeout, verify=_certificates())
    except httpx.HTTPError as exc:
        raise _NotNowError(f"it did not answer ({_words(exc)})") from exc
    except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
        raise NotSentError("its address is not a valid URL; check the block for a cut-off value") from exc
    if answer.is_success:
        return
    reason = _refusal(answer.status_code, answer.text)
    if answer.status_code != 429 and answer.status_code < 500:
        raise NotSentError(reason)
    raise _NotNowError(reason, retry_after_seconds(answer.headers.get("Retry-After"), datetime.now(UTC)))


@cache
def _certificates() -> SSLContext:
    """Return what the addresses' certificates are held against: to read it takes 20 ms, and a run may send fifty."""
    import httpx

    return httpx.create_ssl_context()


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Return how long a server asks to wait, from seconds or a date; None when it does not say."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _delay_seconds(state: RetryCallState) -> float:
    """Return what the server asked for, else a delay that doubles with each attempt, with jitter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _NotNowError) and error.wait_seconds is not None:
        return error.wait_seconds
    delay = min(_MOST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** (state.attempt_number - 1))
    return delay * random.uniform(1.0, 1.25)  # noqa: S311


def _refusal(status: int, text: str) -> str:
    said = " ".join(text.split())[:120]
    return f"it answered {status}" + (f": {said}" if said and "<" not in said else "")


def _words(exc: Exception) -> str:
    return type(exc).__name__ if not str(exc) else " ".join(str(exc).split())[:120]
