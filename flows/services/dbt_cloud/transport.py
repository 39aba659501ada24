"""Send requests to dbt Cloud: over one connection, under its limit, repeated only where that does nothing twice."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import orjson

from flows.services.dbt_cloud.settings import TOKEN_NAMES, CloudSettings
from flows.services.dbt_cloud.token_bucket import TokenBucket
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.proxy import through_proxy

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

Found = TypeVar("Found")

_log = logging.getLogger(__name__)

# Transient answers: the request was not carried out (429), or it is unknown whether it was.
TOO_MANY = 429
PASSING = frozenset({408, 500, 502, 503, 504})

# At once per process: enough to fill a 260 ms round trip at the account's limit, few enough for its gateway.
CONNECTIONS = 32
MAX_BACKOFF_SECONDS = 30.0
# A burst may take this share of a minute's requests, so that listing an account is quick.
BURST_SHARE = 0.1


class RequestRefused(ConfigError):
    """Say that dbt Cloud understood a request and refused it.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AnswerLost(UpstreamUnavailable):
    """Say that a request was sent and no answer came, so that it may have been carried out or not."""


class _NotNowError(Exception):
    """Say why a request was not done, where repeating it is safe and may help."""

    def __init__(self, reason: str, is_paused: bool = False) -> None:
        super().__init__(reason)
        self.is_paused = is_paused


class Transport:
    """Send requests to one account; use it with `async with`.

    Attributes:
        requests: how many requests were sent, repetitions included.
        http_version: of the last answer, such as "HTTP/2".
    """

    def __init__(self, settings: CloudSettings, bucket: TokenBucket | None = None) -> None:
        self.settings = settings
        self.requests = 0
        self.http_version = ""
        per_minute = settings.requests_per_minute
        self._bucket = bucket or TokenBucket(per_minute / 60, per_minute * BURST_SHARE)
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Transport:
        import httpx

        settings = self.settings
        self._client = httpx.AsyncClient(
            base_url=settings.host,
            headers={"Authorization": f"Bearer {settings.token}", "Accept": "application/json"},
            # Offered in the TLS handshake: a server that speaks HTTP/1.1 only is spoken to in HTTP/1.1.
            http2=settings.host.startswith("https:"),
            timeout=httpx.Timeout(settings.timeout_seconds, pool=None),
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        repeatable: bool = True,
    ) -> bytes:
        """Send a request and return the body of the answer.

        Args:
            repeatable: whether carrying it out twice is the same as once. Where it is not, a lost answer is raised
                for the caller to look up; a request that was certainly not carried out is still repeated.

        Raises:
            RequestRefused: dbt Cloud refused it.
            ConfigError: the token does not sign in.
            AnswerLost: the answer to a request that can't be repeated did not come.
            UpstreamUnavailable: dbt Cloud did not answer, or is over its limit for too long.
        """
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

        what = f"{method} {path}"
        content = orjson.dumps(body) if body is not None else None
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_NotNowError),
            wait=self._delay_seconds,
            stop=stop_after_attempt(self.settings.attempts),
            reraise=True,
        )
        try:
            return await attempts(self._send_once, method, path, params, content, repeatable)
        except _NotNowError as exc:
            raise UpstreamUnavailable(
                f"dbt Cloud at {self.settings.host} did not do {what} in {self.settings.attempts} attempts: {exc}. "
                f"Try again later; nothing has to be undone first.{through_proxy(self.settings.host)}"
            ) from exc

    async def _send_once(
        self, method: str, path: str, params: Mapping[str, str | int] | None, content: bytes | None, repeatable: bool
    ) -> bytes:
        import httpx

        assert self._client is not None, "used outside of `async with`"
        what = f"{method} {path}"
        headers = {"Content-Type": "application/json"} if content is not None else None
        await self._bucket.take()
        try:
            async with self._slots:
                self.requests += 1
                answer = await self._client.request(method, path, params=params, content=content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            # Nothing was sent, so that repeating it is safe whatever it is.
            raise _NotNowError(f"no connection: {exc or type(exc).__name__}") from exc
        except httpx.HTTPError as exc:
            failure = f"no answer: {type(exc).__name__}"
            if not repeatable:
                raise AnswerLost(f"dbt Cloud did not answer {what} ({failure}).") from exc
            raise _NotNowError(failure) from exc
        self.http_version = answer.http_version
        if answer.status_code < 400:
            return answer.content
        failure = _said(answer)
        if answer.status_code == TOO_MANY:
            self._pause(answer)
            raise _NotNowError(failure, is_paused=True)
        if answer.status_code not in PASSING:
            raise _refusal(what, answer.status_code, failure)
        if not repeatable:
            raise AnswerLost(f"dbt Cloud answered {what} with {failure}: it is unknown whether it was carried out.")
        raise _NotNowError(failure)

    async def read(self, path: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """Return the document of a GET, envelope included."""
        return self._document(path, await self.send("GET", path, params=params))

    async def write(self, path: str, body: Mapping[str, Any] | None, *, repeatable: bool) -> dict[str, Any]:
        """POST a document and return the `data` of the answer."""
        answer = await self.send("POST", path, body=body, repeatable=repeatable)
        try:
            return cast(dict[str, Any], self._document(path, answer).get("data") or {})
        except UpstreamUnavailable as exc:
            if repeatable:
                raise
            # A proxy's page in place of the answer: the request itself may have arrived.
            raise AnswerLost(str(exc)) from exc

    def _document(self, path: str, content: bytes) -> dict[str, Any]:
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError as exc:
            raise UpstreamUnavailable(
                f"{self.settings.host}{path} did not answer with JSON. Check that it is the address of dbt Cloud."
            ) from exc
        if not isinstance(document, dict):
            raise UpstreamUnavailable(
                f"{self.settings.host}{path} did not answer with a JSON object. Is it the address of dbt Cloud?"
            )
        return cast(dict[str, Any], document)

    def _pause(self, answer: httpx.Response) -> None:
        told = answer.headers.get("Retry-After", "")
        seconds = float(told) if told.isdigit() else self.settings.cooldown_seconds
        _log.warning("The dbt Cloud account has exceeded its request limit; pausing for %.0f s.", seconds)
        # All requests of this process, with jitter against other processes that got the same answer.
        self._bucket.pause(seconds * random.uniform(1.0, 1.1))  # noqa: S311

    def _delay_seconds(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _NotNowError) and error.is_paused:
            # The bucket makes every request of this process wait.
            return 0.0
        delay = min(MAX_BACKOFF_SECONDS, self.settings.backoff_seconds * 2 ** (state.attempt_number - 1))
        return delay * random.uniform(0.5, 1.0)  # noqa: S311  (spreads requests, guards nothing)


async def look_for(find: Callable[[], Awaitable[Found | None]], times: int, pause_seconds: float) -> Found | None:
    """Look for what a request whose answer was lost may have made: at once, then after longer and longer pauses.

    Returns:
        None where it was not found in so many looks.
    """
    from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt, wait_incrementing

    looks = AsyncRetrying(
        retry=retry_if_result(lambda found: found is None),
        wait=wait_incrementing(start=pause_seconds, increment=pause_seconds),
        stop=stop_after_attempt(times),
        retry_error_callback=lambda _: None,
    )

    # Tenacity awaits coroutine functions only, and `find` may be a lambda that returns a coroutine.
    async def look() -> Found | None:
        return await find()

    return await looks(look)


def _said(answer: httpx.Response) -> str:
    """Return the text of an error answer; its `data` may be text, a mapping of fields, or nothing."""
    try:
        document: Any = orjson.loads(answer.content)
        status = document["status"]
        data = document.get("data")
        words = [status.get("user_message"), status.get("developer_message")]
        if isinstance(data, dict):
            fields = cast(dict[str, Any], data)
            words += [f"{name}: {text}" for name, text in fields.items() if isinstance(text, (str, list))]
        elif isinstance(data, str):
            words.append(data)
        said = "; ".join(dict.fromkeys(str(word) for word in words if word))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        said = ""
    return f"{answer.status_code} {said}".strip()[:500]


def _refusal(what: str, status: int, said: str) -> ConfigError:
    if status == 401:
        return ConfigError(
            f"dbt Cloud does not know the token: {what} was answered with {said}. Check {TOKEN_NAMES[0]}."
        )
    if status in (403, 404):
        return RequestRefused(
            f"dbt Cloud answered {what} with {said}. It does not exist, or the token has no access: "
            "jobs need a service token with Job Admin on the project.",
            status,
        )
    return RequestRefused(f"dbt Cloud refused {what}: {said}", status)
