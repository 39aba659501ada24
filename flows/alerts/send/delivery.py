"""Sending one message over HTTP: again where that can help, never longer than there is time for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
_FIRST_DELAY_SECONDS = 0.5
_MOST_DELAY_SECONDS = 4.0


class NotSentError(Exception):
    """Say why a message was not taken; the text names no address, which is a secret."""


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
    """Send a JSON document; an answer of 429 or 5xx, and none at all, are tried again while there is time.

    Raises:
        NotSentError: it was refused, or was not taken in time.
    """
    import httpx

    reason = "there was no time left"
    attempt = 0
    while deadline.left_seconds > 0:
        attempt += 1
        wait = None
        left = deadline.left_seconds
        timeout = httpx.Timeout(min(_ANSWER_SECONDS, left), connect=min(_CONNECT_SECONDS, left))
        try:
            answer = httpx.post(url, json=document, timeout=timeout)
        except httpx.HTTPError as exc:
            reason = f"it did not answer ({_words(exc)})"
        except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
            raise NotSentError("its address is not one that can be called; is it whole?") from exc
        else:
            if answer.is_success:
                return
            reason = _refusal(answer.status_code, answer.text)
            if answer.status_code != 429 and answer.status_code < 500:
                raise NotSentError(reason)
            wait = retry_after_seconds(answer.headers.get("Retry-After"), datetime.now(UTC))
        delay = wait if wait is not None else _delay_seconds(attempt)
        if delay >= deadline.left_seconds:
            break
        sleep(delay)
    raise NotSentError(f"{reason}, tried {attempt} time{'' if attempt == 1 else 's'}")


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


def _delay_seconds(attempt: int) -> float:
    return min(_MOST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** (attempt - 1)) * random.uniform(1.0, 1.25)  # noqa: S311


def _refusal(status: int, text: str) -> str:
    said = " ".join(text.split())[:120]
    return f"it answered {status}" + (f": {said}" if said and "<" not in said else "")


def _words(exc: Exception) -> str:
    return type(exc).__name__ if not str(exc) else " ".join(str(exc).split())[:120]
