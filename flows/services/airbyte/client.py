"""A client of Airbyte's public API for syncs: list them, start one, wait for one.

It works with Airbyte Cloud (https://api.airbyte.com/v1) and a self-managed server (<url>/api/public/v1), with or
without sign-in. The reason of a failure is only in the Config API, which self-managed servers have.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from infrastructure.commands import command
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.proxy import through_proxy
from infrastructure.workspace import targets_file

if TYPE_CHECKING:
    from tenacity import Retrying

# As the API spells them. An attempt of an `incomplete` job has failed, and another follows or the job fails.
JobStatus = Literal["pending", "queued", "running", "incomplete", "failed", "succeeded", "cancelled"]
JobType = Literal["sync", "reset", "refresh", "clear"]
ENDED: frozenset[JobStatus] = frozenset({"failed", "succeeded", "cancelled"})
# The types of job that bring data. A refresh does too, and no webhook announces one.
LOADING: frozenset[JobType] = frozenset({"sync", "refresh"})

_PUBLIC_PATH = "/api/public/v1"
_CONFIG_PATH = "/api/v1"
_PAGE = 100
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
# Attempts of one request: Airbyte sheds load with 429 and sends no Retry-After.
_TRIES = 4
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 401, 403, 404, 409
_PASSING = frozenset({429, 500, 502, 503, 504})
# A token is renewed this long before its end, for the time that a request is under way.
_TOKEN_MARGIN_SECONDS = 30.0


class _Document(BaseModel):
    """A document of the API; fields that are not known are left out, so that new ones break nothing."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Job(_Document):
    """One job of a connection.

    Attributes:
        start_time: when it was created.
        last_updated_at: when it ended; None before that.
        rows_synced: rows that reached the destination; None where the API does not say.
    """

    job_id: int
    connection_id: str
    status: JobStatus
    job_type: JobType
    start_time: datetime
    last_updated_at: datetime | None = None
    rows_synced: int | None = None
    bytes_synced: int | None = None

    @property
    def has_ended(self) -> bool:
        """Return whether its status is final."""
        return self.status in ENDED

    @property
    def loads_data(self) -> bool:
        """Return whether it brings data, rather than deletes it."""
        return self.job_type in LOADING


class Schedule(_Document):
    """The schedule of a connection; the cron expression is Quartz's, with seconds first."""

    schedule_type: Literal["manual", "cron", "basic"]
    cron_expression: str | None = None
    basic_timing: str | None = None


class AirbyteConnection(_Document):
    """The settings of one connection; its status is a setting too, and says nothing about its syncs."""

    connection_id: str
    name: str
    status: Literal["active", "inactive", "deprecated", "locked"]
    schedule: Schedule


class _Jobs(_Document):
    data: list[Job]


class _NotStartedError(UpstreamUnavailable):
    """Say that Airbyte would not start a sync, because another job of the connection is running."""


class _Token(BaseModel):
    access_token: str
    expires_in: float


@dataclass(frozen=True)
class SyncPatience:
    """How long to wait for a sync, and how often to look.

    The pause grows with the time waited, so that a short sync is seen soon and a long one costs few requests.
    """

    deadline_seconds: float = 3600.0
    shortest_seconds: float = 2.0
    longest_seconds: float = 30.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def pause_seconds(self, waited_seconds: float) -> float:
        """Return how long to wait until the next look: a tenth of the time waited so far, within the bounds."""
        return min(max(waited_seconds / 10, self.shortest_seconds), self.longest_seconds)


_Model = TypeVar("_Model", bound=BaseModel)


class AirbyteClient:
    """Query and start syncs on one Airbyte server; close it at the end."""

    def __init__(
        self,
        api_url: str,
        client_id: str | None = None,
        client_secret: str | None = None,
        patience: SyncPatience | None = None,
    ) -> None:
        self._base = api_url.rstrip("/")
        self._client = (client_id, client_secret) if client_id and client_secret else None
        self._patience = patience or SyncPatience()
        self._http = httpx.Client(timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS))
        self._token: str | None = None
        self._token_ends_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the server."""
        self._http.close()

    def job(self, job_id: int) -> Job:
        """Return a job.

        Raises:
            ConfigError: there is no such job, or the credentials are refused.
            UpstreamUnavailable: Airbyte does not answer.
        """
        return self._read(Job, "GET", f"/jobs/{job_id}")

    def newest_sync(self, connection_id: str) -> Job | None:
        """Return the newest job of a connection that brings data, whatever its status; None before the first.

        Raises:
            ConfigError: there is no such connection, or the credentials are refused.
            UpstreamUnavailable: Airbyte does not answer.
        """
        # The order is always given: the documentation promises the newest first, and the server sends the oldest.
        query = {"connectionId": connection_id, "limit": "20", "orderBy": "createdAt|DESC"}
        return next((job for job in self._read(_Jobs, "GET", "/jobs", query).data if job.loads_data), None)

    def loads_since(self, connection_id: str, since: datetime) -> list[Job]:
        """Return the jobs of a connection that bring data and have changed since then, oldest first.

        Raises:
            ConfigError: there is no such connection, or the credentials are refused.
            UpstreamUnavailable: Airbyte does not answer.
        """
        found: dict[int, Job] = {}
        offset = 0
        while True:
            # Not by the link to the next page: the server leaves the filters out of it.
            query = {
                "connectionId": connection_id,
                "limit": str(_PAGE),
                "offset": str(offset),
                "updatedAtStart": since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "orderBy": "createdAt|ASC",
            }
            page = self._read(_Jobs, "GET", "/jobs", query).data
            found |= {job.job_id: job for job in page}
            if len(page) < _PAGE:
                return sorted((job for job in found.values() if job.loads_data), key=lambda job: job.job_id)
            offset += _PAGE

    def find_connection(self, connection_id: str) -> AirbyteConnection | None:
        """Return a connection's settings; None where Airbyte has no such connection.

        Raises:
            ConfigError: the credentials are refused.
            UpstreamUnavailable: Airbyte does not answer.
        """
        answer = self._send("GET", f"/connections/{connection_id}")
        return None if answer.status_code == _NOT_FOUND else self._parsed(AirbyteConnection, answer)

    def start_sync(self, connection_id: str) -> Job:
        """Start a sync and return its job; while one is running, return that one.

        Raises:
            ConfigError: there is no such connection, or the credentials are refused.
            UpstreamUnavailable: Airbyte does not answer, or would not start one.
        """
        # An answer that was lost on the way does no harm: the second request meets the sync that the first started.
        return self._attempts(_NotStartedError)(self._start_once, connection_id)

    def _start_once(self, connection_id: str) -> Job:
        answer = self._send("POST", "/jobs", json={"connectionId": connection_id, "jobType": "sync"})
        if answer.status_code != _CONFLICT:
            return self._parsed(Job, answer)
        running = self.newest_sync(connection_id)
        if running and not running.has_ended:
            return running
        # It ended just now, or what is running is of another type, such as a clear.
        raise _NotStartedError(
            f"Airbyte would not start a sync of connection {connection_id}: {_problem(answer)}. "
            "Try again when no other job of that connection is running."
        )

    def wait(self, job: Job, patience: SyncPatience | None = None) -> Job:
        """Return a job when it has ended, however it did.

        Raises:
            UpstreamUnavailable: it has not ended within the deadline, or Airbyte does not answer.
        """
        patience = patience or self._patience
        started = patience.clock()
        while not job.has_ended:
            waited = patience.clock() - started
            left = patience.deadline_seconds - waited
            if left <= 0:
                raise UpstreamUnavailable(
                    f"Airbyte's job {job.job_id} of connection {job.connection_id} is {job.status} after "
                    f"{waited:.0f} s of waiting for it. Look at it in Airbyte; what depends on its data is not built."
                )
            patience.sleep(min(patience.pause_seconds(waited), left))
            job = self.job(job.job_id)
        return job

    def failure_reason(self, job_id: int) -> str | None:
        """Return why a job failed, in Airbyte's words; None where it gives no reason, as on Airbyte Cloud."""
        if not self._base.endswith(_PUBLIC_PATH):
            return None
        url = f"{self._base.removesuffix(_PUBLIC_PATH)}{_CONFIG_PATH}/jobs/get_without_logs"
        try:
            answer = self._send("POST", url, json={"id": job_id})
            attempts = answer.json()["attempts"] if answer.is_success else []
            failures = [f for a in attempts for f in (a["attempt"].get("failureSummary") or {}).get("failures") or ()]
        except (ConfigError, UpstreamUnavailable, ValueError, KeyError, TypeError, AttributeError):
            # It only improves a message, and not every Airbyte answers it.
            return None
        told = [str(failure["externalMessage"]) for failure in failures if failure.get("externalMessage")]
        return told[-1] if told else None

    def _read(self, model: type[_Model], method: str, path: str, query: dict[str, str] | None = None) -> _Model:
        return self._parsed(model, self._send(method, path, params=query))

    def _parsed(self, model: type[_Model], answer: httpx.Response) -> _Model:
        url = f"{answer.request.method} {_without_secrets(str(answer.request.url))}"
        if answer.status_code in (_UNAUTHORIZED, _FORBIDDEN):
            raise ConfigError(
                f"Airbyte refuses the credentials (HTTP {answer.status_code} for {url}). Put those of an application "
                f"into AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET, then: {command('setup')}"
            )
        if answer.status_code in _PASSING:
            raise UpstreamUnavailable(f"Airbyte failed (HTTP {answer.status_code} for {url}). Try again later.")
        if not answer.is_success:
            raise ConfigError(f"Airbyte refuses {url} (HTTP {answer.status_code}): {_problem(answer)}.")
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as exc:
            where = ", ".join(".".join(str(part) for part in error["loc"]) for error in exc.errors()[:3])
            raise ConfigError(
                f"{url} is not Airbyte's public API, or a version that is not supported"
                f"{f' (see {where})' if where else ''}. Its address is https://api.airbyte.com/v1 or "
                f"<your server>{_PUBLIC_PATH}; put it into AIRBYTE_API_URL and set up again."
            ) from exc

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401  (httpx's own options)
        """Send a request; repeat it after a transient failure, and once with a new token after a 401."""
        answer = self._try(method, path, self._signed_in(), **options)
        if answer.status_code == _UNAUTHORIZED and self._client:
            self._token = None
            answer = self._try(method, path, self._signed_in(), **options)
        return answer

    def _try(self, method: str, path: str, headers: dict[str, str], **options: Any) -> httpx.Response:  # noqa: ANN401
        url = path if path.startswith("http") else self._base + path
        try:
            attempts = self._attempts(httpx.TransportError, _PASSING)
            return attempts(self._http.request, method, url, headers=headers, **options)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise ConfigError(
                f"{_without_secrets(self._base)} is not a valid address. Put Airbyte's into AIRBYTE_API_URL and set up "
                "again."
            ) from exc
        except httpx.TransportError as exc:
            raise UpstreamUnavailable(
                f"Airbyte at {_without_secrets(self._base)} does not answer ({type(exc).__name__}: {exc})."
                f"{through_proxy(url)} Try again later; if it stays so, check that AIRBYTE_API_URL is the address in "
                "use."
            ) from exc

    def _attempts(self, error: type[Exception], statuses: Container[int] = ()) -> Retrying:
        """Return what repeats a call on an error or an answer with one of these statuses; the last one counts."""
        from tenacity import Retrying, retry_if_exception, retry_if_result, stop_after_attempt

        def is_passing(exc: BaseException) -> bool:
            return isinstance(exc, error) and not isinstance(exc, httpx.UnsupportedProtocol)

        return Retrying(
            retry=retry_if_exception(is_passing)
            | retry_if_result(lambda it: getattr(it, "status_code", 0) in statuses),
            wait=lambda state: 2.0 ** (state.attempt_number - 1) * random.uniform(0.5, 1.0),  # noqa: S311
            stop=stop_after_attempt(_TRIES),
            sleep=self._patience.sleep,
            # The answer, or the error, of the last attempt.
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )

    def _signed_in(self) -> dict[str, str]:
        """Return the authorization header with a valid token; no header without credentials."""
        if self._client is None:
            return {}
        if self._token is None or self._patience.clock() >= self._token_ends_at:
            client_id, client_secret = self._client
            body = {"client_id": client_id, "client_secret": client_secret, "grant_type": "client_credentials"}
            asked_at = self._patience.clock()
            token = self._parsed(_Token, self._try("POST", "/applications/token", {}, json=body))
            margin = min(_TOKEN_MARGIN_SECONDS, token.expires_in / 10)
            self._token, self._token_ends_at = token.access_token, asked_at + token.expires_in - margin
        return {"Authorization": f"Bearer {self._token}"}


def load_airbyte(patience: SyncPatience | None = None) -> AirbyteClient:
    """Return a client for the Airbyte that the blocks on the Prefect server name.

    Raises:
        ConfigError: the block airbyte-api-url is missing.
        UpstreamUnavailable: the Prefect server does not answer.
    """
    found = find_airbyte(patience)
    if found is None:
        raise ConfigError(
            "No Airbyte is set up: the Prefect server has no block secret/airbyte-api-url. Set AIRBYTE_API_URL, and "
            "AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET where it asks for sign-in (see `airbyte:` in "
            f"{targets_file()}), then: {command('setup')}"
        )
    return found


def find_airbyte(patience: SyncPatience | None = None) -> AirbyteClient | None:
    """Return a client for the Airbyte that the blocks on the Prefect server name; None where none is set up.

    Raises:
        UpstreamUnavailable: the Prefect server does not answer.
    """
    from infrastructure.server.client import connect

    with connect() as server:
        blocks = [
            server.read_block("secret", name)
            for name in ("airbyte-api-url", "airbyte-client-id", "airbyte-client-secret")
        ]
    api_url, client_id, client_secret = (str(block.data["value"]) if block else None for block in blocks)
    return AirbyteClient(api_url, client_id, client_secret, patience) if api_url else None


def _problem(answer: httpx.Response) -> str:
    """Return the message of an error document."""
    try:
        document = answer.json()
        data = document.get("data") or {}
        return str(data.get("message") or document.get("detail") or document.get("title") or answer.reason_phrase)
    except (ValueError, AttributeError):
        return answer.reason_phrase


def _without_secrets(url: str) -> str:
    """Return an address without credentials and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
