"""Free a slot of a concurrency limit whose holder is dead, but never while its lease can be alive.

A Prefect server that is killed forgets the leases that it keeps in memory, and goes on counting their slots as taken.
So a holder writes a heartbeat to a Prefect variable with each renewal. A waiting process takes a slot for dead when its
heartbeat is the same for as long as a lease lasts; and a holder that was not renewed in time does nothing any more.

Importing this module is cheap: Prefect is imported in the functions that take its client.
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
    """The times, in seconds, on which holders of a slot and waiting processes agree.

    Attributes:
        lease: how long the server keeps a slot without a renewal; 60 is the shortest that it grants.
        renew: how often a holder renews.
        proven: how long after its last granted request a holder may begin something; that has to end before the lease.
    """

    lease: float
    renew: float
    proven: float


# For two requests, each with a timeout of 30 s.
START_TERMS = Terms(lease=60.0, renew=10.0, proven=25.0)


class Silence:
    """Measure how long the heartbeat of a taken slot has been the same.

    Args:
        lease_seconds: how long the lease of the slot lasts.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._sign: object = None
        self._since: float | None = None

    def is_over(self, sign: object, now: float) -> bool:
        """Note the current heartbeat; return whether it has been the same for longer than any lease lasts.

        Args:
            now: by a monotonic clock, such as `time.monotonic`.
        """
        if self._since is None or sign != self._sign:
            self._sign, self._since = sign, now
        return now - self._since > self._lease_seconds

    def begin_anew(self) -> None:
        """Begin again, as after a time in which the server did not answer and heartbeats could not be seen."""
        self._since = None


@contextmanager
def holding(server: Server, limit: str, sign: str, terms: Terms) -> Iterator[Callable[[], None]]:
    """Hold a concurrency limit of one, created when missing, while the block runs.

    It is for a few seconds and is not renewed. Yields a function to call before anything that another holder must not
    do at the same time. The slot of a holder without a heartbeat is freed. Prefect's own way of waiting is not used,
    because with it a waiting process comes back only after up to 30 s.

    Args:
        sign: the name of the variable for heartbeats.

    Raises:
        UpstreamUnavailable: by the function yielded, when it is no longer certain that the slot is held.
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
                f"The Prefect server took so long that another process may hold its limit {limit} by now. Try again."
            )

    try:
        show_sign(client, sign, {"lease": slot["lease_id"], "signs_of_life": 1})
        yield require
    finally:
        with suppress(httpx.HTTPError):  # The lease expires by itself.
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
    """Write the heartbeat of a slot's holder to a variable."""
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate

    try:
        client.update_variable(VariableUpdate(name=sign, value=value))
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code != _NOT_FOUND:
            raise
        client.create_variable(VariableCreate(name=sign, value=value))


def free_slot(client: SyncPrefectClient, limit: str, sign: str, seen: Variable | None) -> None:
    """Free a slot whose holder is dead, unless its heartbeat changed or another process has freed it.

    Args:
        seen: the heartbeat that has been the same for longer than a lease lasts.
    """
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, VariableCreate
    from prefect.exceptions import ObjectAlreadyExists

    now = client.read_variable_by_name(sign)
    if (now and (now.id, now.value)) != (seen and (seen.id, seen.value)):
        return
    if seen is None:
        # Its holder died before its first heartbeat. Creating a variable succeeds once: one process alone goes on.
        try:
            client.create_variable(VariableCreate(name=sign, value={"lease": "freed"}))
        except ObjectAlreadyExists:
            return
    else:
        try:
            # By its id, which changes once another process has freed the slot and a third has taken it.
            client.request("DELETE", "/variables/{id}", path_params={"id": seen.id})
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code != _NOT_FOUND:
                raise
            return
    client.update_global_concurrency_limit(limit, GlobalConcurrencyLimitUpdate(active_slots=0))
