"""A target's slot on the Prefect server: taken, renewed, told to those who wait for it, and given back.

The server takes a slot back when its lease is not renewed. Two things it does not do by itself. A lease that ran out
while the server was away can be somebody else's by the time it is back, so it is taken anew, or the run has to end.
And Prefect's own server keeps leases in memory by default: one that is restarted forgets them and goes on counting the
slot as taken, for ever. So each holder leaves a sign of life in a Prefect variable, and a slot without one is freed.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from flows.engine.deadline import require_time
from flows.engine.reporting import current_reporter
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.registration import limit_name

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

# The shortest lease that Prefect grants: how long a target stays locked when its holder's machine is lost.
LEASE_SECONDS = 60.0
# Several times in the life of a lease, so that one answer that is lost costs nothing.
RENEW_SECONDS = 15.0
# How often one who waits asks, and a holder whose server is away.
POLL_SECONDS = 2.0
# Twice the life of a lease: whoever shows no sign of life for so long holds a slot that its server has forgotten.
SILENT_SECONDS = 120.0
_GONE, _NOT_FOUND = 410, 404


class Lease:
    """A slot that is held; a thread of its own renews it."""

    def __init__(self, target: str, holder: str, lease_id: UUID) -> None:
        self._target = target
        self._lease_id = lease_id
        self._let_go = threading.Event()
        self._lost_to: str | None = None
        self._when_lost: list[Callable[[str], None]] = []
        self._guard = threading.Lock()
        self._about: dict[str, Any] = {
            "holder": holder,
            "machine": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "lease": uuid4().hex,
            # The server's own name for it, which changes when it has to be taken anew.
            "slot": str(lease_id),
            "signs_of_life": 0,
        }
        # Prefect's settings in force, such as the server's address, belong to the context that takes the lease.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._keep,), name="tributary-lease", daemon=True
        )

    @property
    def name(self) -> str:
        """Return what this holder is known by, to others who write for it."""
        return str(self._about["lease"])

    def start(self, client: SyncPrefectClient) -> None:
        """Say who holds the slot, and begin to renew it."""
        _write_sign(client, self._target, self._about)
        self._thread.start()

    def release(self, client: SyncPrefectClient) -> None:
        """Give the slot back."""
        import httpx

        self._let_go.set()
        self._thread.join(POLL_SECONDS)
        if self._lost_to is None:
            # A server that has forgotten the lease has nothing to give back.
            with contextlib.suppress(httpx.HTTPStatusError):
                client.release_concurrency_slots_with_lease(lease_id=self._lease_id)

    @contextmanager
    def calling_when_lost(self, act: Callable[[str], None]) -> Iterator[None]:
        """Call a function, with the words for who has the target now, when the slot is lost during the block."""
        with self._guard:
            self._when_lost.append(act)
            lost_to = self._lost_to
        if lost_to is not None:
            act(lost_to)
        try:
            yield
        finally:
            with self._guard:
                self._when_lost.remove(act)

    def _keep(self) -> None:
        from prefect.client.orchestration import get_client

        pause = RENEW_SECONDS
        while not self._let_go.wait(pause):
            try:
                with get_client(sync_client=True) as client:
                    self._renew(client)
                if self._lost_to is not None:
                    return
                pause = RENEW_SECONDS
            except Exception:  # noqa: BLE001  (a server that is away must not end a build that goes well)
                pause = POLL_SECONDS

    def _renew(self, client: SyncPrefectClient) -> None:
        import httpx

        try:
            client.renew_concurrency_lease(lease_id=self._lease_id, lease_duration=LEASE_SECONDS)
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code not in (_GONE, _NOT_FOUND):
                raise
            self._take_anew(client)
        if self._lost_to is None:
            self._about["signs_of_life"] += 1
            _write_sign(client, self._target, self._about)

    def _take_anew(self, client: SyncPrefectClient) -> None:
        """Take the slot again whose lease the server no longer knows; it is lost when somebody else has had it."""
        if self._is_mine(client):
            lease_id = acquire(client, self._target)
            # Whoever has just taken it has said so a moment later. If nobody has, what the server counts as taken is
            # this run's own lease, which it has forgotten.
            if lease_id is None and not self._let_go.wait(POLL_SECONDS) and self._is_mine(client):
                _free(client, self._target)
                lease_id = acquire(client, self._target)
            if lease_id is not None:
                self._lease_id = lease_id
                self._about["slot"] = str(lease_id)
                return
        self._lose(described(_read_sign(client, self._target)))

    def _is_mine(self, client: SyncPrefectClient) -> bool:
        sign = _read_sign(client, self._target)
        return sign is None or sign.get("lease") == self._about["lease"]

    def _lose(self, to: str) -> None:
        with self._guard:
            self._lost_to = to
            acts = list(self._when_lost)
        for act in acts:
            act(to)


class LentLease(Lease):
    """A slot that another run holds, for which this one writes: kept alive with it, never taken anew or given back.

    Should the holder die, the slot stays taken for as long as somebody still writes for it.
    """

    def __init__(self, target: str, lender: str, sign: dict[str, Any]) -> None:
        super().__init__(target, str(sign.get("holder")), UUID(str(sign["slot"])))
        self._lender = lender
        self._misses = 0

    def start(self, client: SyncPrefectClient) -> None:
        """Begin to renew it."""
        self._thread.start()

    def release(self, client: SyncPrefectClient) -> None:
        """Stop renewing it: giving it back is the holder's business."""
        self._let_go.set()
        self._thread.join(POLL_SECONDS)

    def _renew(self, client: SyncPrefectClient) -> None:
        import httpx

        sign = _read_sign(client, self._target)
        if sign is None or sign.get("lease") != self._lender:
            self._lose(described(sign))
            return
        try:
            client.renew_concurrency_lease(lease_id=UUID(str(sign["slot"])), lease_duration=LEASE_SECONDS)
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code not in (_GONE, _NOT_FOUND):
                raise
            # Its holder may be about to take it anew, and says so in its next sign.
            self._misses += 1
            if self._misses > 1:
                self._lose("another run")
            return
        self._misses = 0
        # Who waits for the target takes over what shows no sign of life, and the holder may be dead.
        _write_sign(client, self._target, {**sign, "signs_of_life": int(sign.get("signs_of_life", 0)) + 1})


@contextmanager
def lent_slot(target: str, lender: str) -> Iterator[Lease]:
    """Write to a target for the run that holds it, for the time of the block.

    Args:
        lender: the `name` of that run's lease.

    Raises:
        UpstreamUnavailable: that run does not hold it any more.
    """
    import httpx
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        sign = _read_sign(client, target)
        try:
            if sign is None or sign.get("lease") != lender:
                raise UpstreamUnavailable(
                    f"Target {target} is no longer held by the run that this is a part of, but by {described(sign)}. "
                    "Nothing was written. Start the whole run again."
                )
            client.renew_concurrency_lease(lease_id=UUID(str(sign["slot"])), lease_duration=LEASE_SECONDS)
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code not in (_GONE, _NOT_FOUND):
                raise
            raise UpstreamUnavailable(
                f"{described(sign)}, which this is a part of, does not hold target {target} any more. Nothing was "
                "written. Start the whole run again."
            ) from exc
        lease = LentLease(target, lender, sign)
        lease.start(client)
        try:
            yield lease
        finally:
            lease.release(client)


@contextmanager
def server_slot(target: str, holder: str, wait: bool) -> Iterator[Lease]:
    """Hold the slot of a target for the time of the block; wait, and say for whom, while another run holds it.

    Raises:
        UpstreamUnavailable: it is held, and it was asked not to wait.
        RunTimedOut: the time limit in force passed while waiting.
        ConfigError: the server has no limit for the target.
    """
    import httpx
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        lease_id = acquire(client, target) or _wait_for(client, target, wait)
        lease = Lease(target, holder, lease_id)
        lease.start(client)
        try:
            yield lease
        finally:
            try:
                lease.release(client)
            except httpx.TransportError:
                # The lease runs out by itself.
                current_reporter().note(f"The Prefect server is away: target {target} is free again in a minute.")


def acquire(client: SyncPrefectClient, target: str) -> UUID | None:
    """Take the slot of a target if it is free, and return the id of the lease; None while somebody holds it.

    Raises:
        ConfigError: the server has no limit for the target.
    """
    from infrastructure.server import take_slot

    name = limit_name(target)
    answer = take_slot(client, name, LEASE_SECONDS)
    if answer is None:
        return None
    if not answer["limits"]:
        raise ConfigError(
            f"The Prefect server has no concurrency limit {name}, which keeps two runs from writing "
            f"to target {target} at once. Make it with: "
            f"uv run python -m infrastructure.setup_profiles --target {target}"
        )
    return UUID(answer["lease_id"])


def described(sign: dict[str, Any] | None) -> str:
    """Return who holds a slot, in words."""
    if sign is None:
        return "another run"
    return f"{sign.get('holder', 'another run')} (process {sign.get('process')} on {sign.get('machine')})"


def _wait_for(client: SyncPrefectClient, target: str, wait: bool) -> UUID:
    import httpx

    sign = _read_sign(client, target)
    since = f" since {sign['since']}" if sign and "since" in sign else ""
    held = f"{described(sign)} has been writing to it{since}"
    if not wait:
        raise UpstreamUnavailable(f"Target {target} is not free: {held}. Try again when it is done.")
    current_reporter().note(f"Waiting for target {target}: {held}.")
    seen_at = time.monotonic()
    while True:
        require_time(f"Target {target} did not become free: {held}")
        time.sleep(POLL_SECONDS)
        try:
            lease_id = acquire(client, target)
            if lease_id is not None:
                return lease_id
            now = _read_sign(client, target)
            if now != sign:
                sign, seen_at = now, time.monotonic()
            elif sign is not None and time.monotonic() - seen_at > SILENT_SECONDS:
                current_reporter().note(f"{described(sign)} shows no sign of life: target {target} is taken over.")
                _free(client, target)
                seen_at = time.monotonic()
        except httpx.TransportError:
            # The server is away; whoever waits can wait for it too.
            seen_at = time.monotonic()


def _free(client: SyncPrefectClient, target: str) -> None:
    """Have the server forget a slot that nobody holds, unless somebody else is doing so."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        # Of several who come to the same conclusion one alone can remove it.
        client.delete_variable_by_name(_variable(target))
    except ObjectNotFound:
        return
    client.update_global_concurrency_limit(limit_name(target), GlobalConcurrencyLimitUpdate(active_slots=0))


def _variable(target: str) -> str:
    # In the letters that Prefect allows.
    return re.sub(r"[^a-z0-9_]", "_", f"dbt_{target}_writer".lower())


def _read_sign(client: SyncPrefectClient, target: str) -> dict[str, Any] | None:
    variable = client.read_variable_by_name(_variable(target))
    return variable.value if variable and isinstance(variable.value, dict) else None


def _write_sign(client: SyncPrefectClient, target: str, about: dict[str, Any]) -> None:
    import httpx
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate

    try:
        client.update_variable(VariableUpdate(name=_variable(target), value=about))
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code != _NOT_FOUND:
            raise
        client.create_variable(VariableCreate(name=_variable(target), value=about))
