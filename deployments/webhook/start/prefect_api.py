"""The five calls of a receiver to Prefect, over plain HTTP.

Not Prefect's own client: it takes two seconds and 40 MB to import, which a function on Lambda pays with every cold
start, and a receiver has its own rules for retries.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.proxy import through_proxy
from infrastructure.server.slots import Silence, Terms

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_MAX_TAGS = 50
# Transient answers: too many requests, and a failing server or proxy.
_PASSING = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class PrefectAddress:
    """The address of Prefect, and how to sign in."""

    url: str
    key: str | None = field(default=None, repr=False)
    sign_in: str | None = field(default=None, repr=False)


def prefect_address(environ: Mapping[str, str] | None = None) -> PrefectAddress:
    """Return the Prefect API of the environment, else that of Prefect's active profile.

    Raises:
        ConfigError: there is neither.
    """
    environ = os.environ if environ is None else environ
    url, key = environ.get("PREFECT_API_URL"), environ.get("PREFECT_API_KEY")
    sign_in = environ.get("PREFECT_API_AUTH_STRING")
    if not url:
        with suppress(ImportError):  # On Lambda there is no Prefect beside the receiver.
            url, key, sign_in = _of_profile()
    if not url:
        raise ConfigError(
            "The receiver needs a running Prefect server: set PREFECT_API_URL, as in http://127.0.0.1:4200/api."
        )
    return PrefectAddress(url.rstrip("/"), key, sign_in)


def _of_profile() -> tuple[str | None, str | None, str | None]:
    from prefect.settings import get_current_settings

    api = get_current_settings().api
    key, sign_in = (value.get_secret_value() if value else None for value in (api.key, api.auth_string))
    return str(api.url) if api.url else None, key, sign_in


@dataclass(slots=True)
class Hold:
    """A slot of a concurrency limit that is held.

    Attributes:
        proven_at: when the last granted request was sent, by `time.monotonic`.
    """

    lease_id: str
    proven_at: float
    terms: Terms
    signs: int = 0

    def require(self) -> None:
        """Raise an error if another process may have the slot.

        Raises:
            UpstreamUnavailable: it was not renewed in time.
        """
        if time.monotonic() > self.proven_at + self.terms.proven:
            raise UpstreamUnavailable(
                f"The Prefect server has not renewed the lock for starting runs for {self.terms.proven:.0f} s: another "
                "process may have it."
            )


class PrefectApi:
    """Read and start runs of one deployment."""

    def __init__(self, address: PrefectAddress, deployment: str) -> None:
        self.url = address.url
        self.deployment = deployment
        self._deployment_id: str | None = None
        self._client = httpx.AsyncClient(
            base_url=address.url,
            headers={"authorization": f"Bearer {address.key}"} if address.key else None,
            auth=_halves(address.sign_in) if address.sign_in and not address.key else None,
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            # Proxies of the environment are for other machines, not for this one.
            trust_env=not httpx.URL(address.url).host.startswith(("127.", "localhost", "::1")),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def start(self, parameters: Mapping[str, Any], tags: Sequence[str], key: str) -> str:
        """Start a run, or find the one that was started with this key; return its id.

        Raises:
            UpstreamUnavailable: try again later.
            ConfigError: Prefect refuses, until a person fixes the cause.
        """
        body = {"parameters": dict(parameters), "tags": list(tags), "idempotency_key": key}
        deployment_id = await self.deployment_id()
        try:
            return (await self._ask("POST", f"/deployments/{deployment_id}/create_flow_run", body))["id"]
        except ConfigError:
            # The deployment may have been created again, with another id.
            self._deployment_id = None
            raise

    async def runs_with_tags(self, tags: Sequence[str]) -> list[tuple[str, list[str]]]:
        """Return id and tags of the deployment's runs that have one of these tags.

        Raises:
            UpstreamUnavailable: try again later.
            ConfigError: there is no such deployment, or the credentials are refused.
        """
        found: list[tuple[str, list[str]]] = []
        deployment_id = await self.deployment_id()
        for first in range(0, len(tags), _MAX_TAGS):
            having = {
                "deployment_id": {"any_": [deployment_id]},
                "tags": {"any_": list(tags[first : first + _MAX_TAGS])},
            }
            runs = await self._ask("POST", "/flow_runs/filter", {"flow_runs": having, "limit": 200})
            found += [(run["id"], run["tags"]) for run in runs]
        return found

    async def deployment_id(self) -> str:
        """Return the id of the deployment.

        Raises:
            UpstreamUnavailable: try again later.
            ConfigError: there is no such deployment, or the credentials are refused.
        """
        found = self._deployment_id or (await self._ask("GET", f"/deployments/name/{self.deployment}"))["id"]
        self._deployment_id = found
        return found

    async def read_secret(self, name: str) -> str | None:
        """Return the value of a Secret block; None when there is none of that name."""
        path = f"/block_types/slug/secret/block_documents/name/{name}"
        try:
            document = await self._ask("GET", path, params={"include_secrets": "true"})
        except NotThere:
            return None
        value = document["data"].get("value")
        return str(value) if value else None

    @asynccontextmanager
    async def holding(self, limit: str, sign: str, terms: Terms) -> AsyncIterator[Hold]:
        """Hold a concurrency limit of one while the block runs, and renew its lease.

        It keeps starters with different keys apart. The slot of a holder without a heartbeat is freed; see
        `infrastructure.server.slots`.

        Args:
            sign: the name of the variable for heartbeats.

        Raises:
            UpstreamUnavailable: another starter holds it for too long.
        """
        hold = await self._take(limit, sign, terms)
        keeper: asyncio.Task[None] | None = None
        try:
            await self._show(sign, hold)
            keeper = asyncio.create_task(self._keep(sign, hold))
            yield hold
        finally:
            if keeper:
                keeper.cancel()
            with suppress(UpstreamUnavailable, ConfigError):  # The lease expires by itself.
                await self._ask("POST", "/v2/concurrency_limits/decrement-with-lease", {"lease_id": hold.lease_id})

    async def make_limit(self, limit: str) -> None:
        """Create a concurrency limit of one, unless it exists."""
        with suppress(AlreadyThere):
            await self._ask("POST", "/v2/concurrency_limits/", {"name": limit, "limit": 1, "active": True})

    async def _take(self, limit: str, sign: str, terms: Terms) -> Hold:
        body = {"names": [limit], "slots": 1, "mode": "concurrency", "lease_duration": max(60.0, terms.lease)}
        silence, began_at = Silence(terms.lease), time.monotonic()
        while True:
            asked_at = time.monotonic()
            try:
                answer = await self._ask("POST", "/v2/concurrency_limits/increment-with-lease", body)
                return Hold(answer["lease_id"], asked_at, terms)
            except Locked:
                seen = await self._variable(sign)
                if silence.is_over(seen, time.monotonic()):
                    await self._free(limit, sign, seen)
                    silence.begin_anew()
                elif time.monotonic() > began_at + 1.5 * terms.lease:
                    raise
                await asyncio.sleep(0.25)

    async def _keep(self, sign: str, hold: Hold) -> None:
        path = f"/v2/concurrency_limits/leases/{hold.lease_id}/renew"
        while True:
            await asyncio.sleep(hold.terms.renew)
            sent_at = time.monotonic()
            try:
                await self._ask("POST", path, {"lease_duration": max(60.0, hold.terms.lease)})
                hold.proven_at = sent_at
                await self._show(sign, hold)
            except UpstreamUnavailable:
                continue  # Tried again; a hold that is too old starts nothing.
            except ConfigError:
                return  # The server no longer has the lease.

    async def _show(self, sign: str, hold: Hold) -> None:
        """Write the heartbeat."""
        hold.signs += 1
        value = {"lease": hold.lease_id, "signs_of_life": hold.signs}
        try:
            await self._ask("PATCH", f"/variables/name/{sign}", {"value": value})
        except NotThere:
            with suppress(AlreadyThere):
                await self._ask("POST", "/variables/", {"name": sign, "value": value})

    async def _variable(self, name: str) -> Any:  # noqa: ANN401  (a JSON document)
        try:
            return await self._ask("GET", f"/variables/name/{name}")
        except NotThere:
            return None

    async def _free(self, limit: str, sign: str, seen: Any) -> None:  # noqa: ANN401  (a JSON document)
        """Free a slot whose holder is dead, unless its heartbeat changed or another process has freed it."""
        if await self._variable(sign) != seen:
            return
        if seen is None:
            # Its holder died before its first heartbeat. Creating a variable succeeds once: one process goes on.
            try:
                await self._ask("POST", "/variables/", {"name": sign, "value": {"lease": "freed"}})
            except AlreadyThere:
                return
        else:
            try:
                # By its id, which changes once another process has freed the slot and a third has taken it.
                await self._ask("DELETE", f"/variables/{seen['id']}")
            except NotThere:
                return
        await self._ask("PATCH", f"/v2/concurrency_limits/{limit}", {"active_slots": 0})

    async def _ask(self, method: str, path: str, body: object = None, params: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401  (whatever JSON the server has for it)
        try:
            answer = await self._client.request(method, path, json=body, params=params)
        except httpx.InvalidURL as exc:
            raise ConfigError(f"PREFECT_API_URL is not an address: {self.url}") from exc
        except httpx.HTTPError as exc:
            proxy = through_proxy(self.url) if self._client.trust_env else ""
            raise UpstreamUnavailable(
                f"The Prefect server at {self.url} does not answer ({_named(exc)}).{proxy}"
            ) from exc
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _failure(answer, self.url, path, self.deployment)


def _halves(sign_in: str) -> tuple[str, str]:
    user, _, password = sign_in.partition(":")
    return user, password


async def deployment_id(deployment: str) -> str:
    """Return the id of a deployment of the Prefect server in use.

    Raises:
        UpstreamUnavailable: the server does not answer.
        ConfigError: there is none of that name, or no server is configured.
    """
    prefect = PrefectApi(prefect_address(), deployment)
    try:
        return await prefect.deployment_id()
    finally:
        await prefect.close()


class NotThere(ConfigError):
    """Say that nothing of that name exists."""


class AlreadyThere(ConfigError):
    """Say that it exists already, or that the parameters are invalid."""


class Locked(UpstreamUnavailable):
    """Say that another process holds it."""


def _failure(answer: httpx.Response, url: str, path: str, deployment: str) -> ConfigError | UpstreamUnavailable:
    status = answer.status_code
    if status == 423:
        return Locked("Another process holds the lock for starting runs.")
    if status >= 500 or status in _PASSING:
        return UpstreamUnavailable(f"The Prefect server at {url} fails (HTTP {status}).")
    if status in (401, 403):
        return ConfigError(
            f"The Prefect server at {url} refuses the credentials (HTTP {status}). Set PREFECT_API_KEY (Prefect Cloud) "
            "or PREFECT_API_AUTH_STRING (a server of your own)."
        )
    if status == 404 and path.startswith("/deployments"):
        return NotThere(
            f"The Prefect server at {url} has no deployment {deployment}. Deploy it, or name another one with "
            "TRIBUTARY_WEBHOOK_DEPLOYMENT."
        )
    if status == 404:
        return NotThere(f"The Prefect server at {url} has no {path.rpartition('/')[2]}.")
    if status == 409:
        return AlreadyThere(f"The deployment {deployment} does not accept these parameters: {_detail(answer)}")
    return ConfigError(f"The Prefect server at {url} refuses {path.split('/')[1]} (HTTP {status}): {_detail(answer)}")


def _detail(answer: httpx.Response) -> str:
    return " ".join(answer.text.split())[:300]


def _named(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
