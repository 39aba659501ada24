"""When a slot of a concurrency limit may be freed that nobody gives back: never while its lease can be alive.

A Prefect server that is killed forgets the leases that it keeps in memory, and goes on counting their slots as taken.
So who holds a slot leaves a sign of life in a Prefect variable, anew with each renewal; who waits takes a slot for dead
that shows the same sign for as long as a lease lasts; and a holder that was not renewed in time does nothing any more.

Importing this module is cheap: Prefect is imported where a client of Prefect is at hand anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx

from infrastructure.errors import UpstreamUnavailable

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import Variable

    from infrastructure.server.client import Server

_POLL_SECONDS = 0.25
_LOCKED, _NOT_FOUND = 423, 404


@dataclass(frozen=True, slots=True)
class Terms:
    """What is agreed between those who hold a slot and those who wait for it, in seconds.

    Attributes:
        lease: how long the server keeps a slot for a holder that it does not hear of; 60 is the shortest it grants.
        renew: how often a holder is heard of.
        proven: how long after it sent the last request that was granted a holder may begin something; what it begins
            has to be over before the lease is.
    """

    lease: float
    renew: float
    proven: float


# For a look and a start, each a request that is waited for for 30 s at most.
START_TERMS = Terms(lease=60.0, renew=10.0, proven=25.0)


class Silence:
    """Tell how long a slot that is taken has shown the same sign of life.

    Args:
        lease_seconds: how long the lease of the slot lasts.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._sign: object = None
        self._since: float | None = None

    def is_over(self, sign: object, now: float) -> bool:
        """Take the sign that is there now; return whether it has been there for longer than any lease lasts.

        Args:
            now: by a clock that nobody sets, such as `time.monotonic`.
        """
        if self._since is None or sign != self._sign:
            self._sign, self._since = sign, now
        return now - self._since > self._lease_seconds

    def begin_anew(self) -> None:
        """Forget what was seen, as when the server was away: its signs can't be told from silence."""
        self._since = None


@contextmanager
def holding(server: Server, limit: str, sign: str, terms: Terms) -> Iterator[Callable[[], None]]:
    """Hold a concurrency limit of one, made where it is not there, for the time of the block.

    It keeps apart what takes a few seconds, and is not renewed. Yields a function that is called before anything is
    begun that another may not do at the same time. The slot of another that shows no sign of life is freed.
    Prefect's own way of waiting is not used: the server tells those who wait to come back after up to 30 s.

    Args:
        sign: the name of the variable for signs of life.

    Raises:
        UpstreamUnavailable: by the function yielded, when the slot is not sure to be held any more.
    """
    client = server.client
    if server.read_limit(limit) is None:
        server.save_limit(limit, 1)
    silence = Silence(terms.lease)
    while True:
        asked_at = time.monotonic()
        slot = take_slot(client, limit, terms.lease)
        if slot is not None:
            break
        seen = client.read_variable_by_name(sign)
        if silence.is_over(seen and (seen.id, seen.value), time.monotonic()):
            free_slot(client, limit, sign, seen)
            silence.begin_anew()
        time.sleep(_POLL_SECONDS)

    def require() -> None:
        if time.monotonic() > asked_at + terms.proven:
            raise UpstreamUnavailable(
                f"The Prefect server took so long that its limit {limit} may be somebody else's by now. Try again."
            )

    try:
        show_sign(client, sign, {"lease": slot["lease_id"], "signs_of_life": 1})
        yield require
    finally:
        with suppress(httpx.HTTPError):  # It runs out by itself.
            client.release_concurrency_slots_with_lease(lease_id=UUID(slot["lease_id"]))


def take_slot(client: SyncPrefectClient, limit: str, lease_seconds: float) -> dict[str, Any] | None:
    """Take a slot of a concurrency limit if one is free; return the server's answer, or None while there is none.

    `lease_id` is in the answer, and in `limits` the limit, or nothing where the server has no such limit.
    """
    try:
        return client.increment_concurrency_slots_with_lease(
            names=[limit], slots=1, mode="concurrency", lease_duration=lease_seconds
        ).json()
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code == _LOCKED:
            return None
        raise


def show_sign(client: SyncPrefectClient, sign: str, value: dict[str, Any]) -> None:
    """Leave a sign of life of whoever holds a slot, in a variable."""
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate

    try:
        client.update_variable(VariableUpdate(name=sign, value=value))
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code != _NOT_FOUND:
            raise
        client.create_variable(VariableCreate(name=sign, value=value))


def free_slot(client: SyncPrefectClient, limit: str, sign: str, seen: Variable | None) -> None:
    """Have the server forget a slot whose holder is dead, unless it shows a sign after all or somebody else does so.

    Args:
        seen: the sign that it has shown for longer than a lease lasts.
    """
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, VariableCreate
    from prefect.exceptions import ObjectAlreadyExists

    now = client.read_variable_by_name(sign)
    if (now and (now.id, now.value)) != (seen and (seen.id, seen.value)):
        return
    if seen is None:
        # Its holder died before it could say so. A name is given once: of those who see this, one alone goes on.
        try:
            client.create_variable(VariableCreate(name=sign, value={"lease": "freed"}))
        except ObjectAlreadyExists:
            return
    else:
        try:
            # By its id, which is another one once somebody has freed the slot and a third has taken it.
            client.request("DELETE", "/variables/{id}", path_params={"id": seen.id})
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code != _NOT_FOUND:
                raise
            return
    client.update_global_concurrency_limit(limit, GlobalConcurrencyLimitUpdate(active_slots=0))
