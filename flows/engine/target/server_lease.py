"""A target's slot on the Prefect server: taken, renewed, told to those who wait for it, and given back.

The server takes a slot back when its lease is not renewed. Two things it does not do by itself. A lease that ran out
while the server was away can be another run's by the time it is back, so it is taken again, or the run has to end.
And Prefect's own server keeps leases in memory by default: one that is restarted forgets them and goes on counting the
slot as taken, for ever. So each holder writes a heartbeat to a Prefect variable, and a slot without one is freed.

And a holder that can't reach the server does not learn that another has the slot. So a holder that can't renew its
lease in time gives it up by its own clock, before another run can get it.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from flows.engine.context.deadline import require_time
from flows.engine.context.reporting import current_reporter
from flows.engine.process.process import STOP_SECONDS
from infrastructure.commands import program
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.plain_text import one_line
from infrastructure.registration import limit_name
from infrastructure.server.away import not_waiting_for_one_away, note_server_away
from infrastructure.server.slots import Silence, free_slot, show_sign, take_slot

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import Variable

# How long a target stays locked when its holder's machine is lost, and nearly how long a holder goes on without its
# server: twice the shortest that Prefect grants, so that a server can be restarted under a run.
LEASE_SECONDS = 120.0
# A run whose last good renewal was sent so long ago stops writing. dbt has STOP_SECONDS to cancel its queries and is
# killed then, and all that has to be over before the lease is.
PROVEN_SECONDS = LEASE_SECONDS - STOP_SECONDS - 5.0
# Several times in that time, so that one answer that is lost costs nothing.
RENEW_SECONDS = 15.0
# How long an answer to a renewal is waited for, before it is asked for again.
_ANSWER_SECONDS = 15.0
# How often one who waits asks, and a holder whose server is away.
POLL_SECONDS = 2.0
# A holder without a heartbeat for as long as a lease lasts holds a slot that its server has forgotten, and has stopped
# writing to its target: not less than a lease, or two would write.
SILENT_SECONDS = LEASE_SECONDS
# What a holder does that can't renew its lease in time: `stop`, or `finish` where no other machine has the target.
AWAY_VARIABLE = "TRIBUTARY_WHEN_SERVER_IS_AWAY"
_STOP, _FINISH = "stop", "finish"
_GONE, _NOT_FOUND = 410, 404


class Lease:
    """A slot that is held: one thread renews it, another looks at the clock.

    Args:
        asked_at: when the server was asked for it, by the clock of `time.monotonic`.
        is_to_finish: go on to the end though the server is away, as no other machine writes to the target.
    """

    def __init__(self, target: str, holder: str, lease_id: UUID, asked_at: float, is_to_finish: bool = False) -> None:
        self._target = target
        self._lease_id = lease_id
        self._let_go = threading.Event()
        # From when on the server counts at the latest: the last request that it granted was sent then.
        self._proven_at = asked_at
        self._trouble = ""
        self._is_to_finish = is_to_finish
        self._lost: str | None = None
        self._when_lost: list[Callable[[str], None]] = []
        self._guard = threading.Lock()
        self._about: dict[str, Any] = {
            "holder": holder,
            "machine": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "lease": uuid4().hex,
            # The server's id of the lease, which changes when the slot has to be taken again.
            "slot": str(lease_id),
            "signs_of_life": 0,
        }
        # Prefect's settings in force, such as the server's address, belong to the context that takes the lease.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._keep,), name="tributary-lease", daemon=True
        )
        # A request that hangs, or the look-up of an address, must not keep this one from the clock.
        self._watch_thread = threading.Thread(
            target=copy_context().run, args=(self._watch,), name="tributary-lease-clock", daemon=True
        )

    def start(self, client: SyncPrefectClient) -> None:
        """Say who holds the slot, and begin to renew it."""
        _write_sign(client, self._target, self._about)
        self._thread.start()
        self._watch_thread.start()

    def release(self, client: SyncPrefectClient) -> None:
        """Give the slot back."""
        import httpx

        with self._guard:
            self._let_go.set()
        if self._thread.ident is not None:
            self._thread.join(POLL_SECONDS)
        # A server that has forgotten the lease has nothing to give back.
        with contextlib.suppress(httpx.HTTPStatusError), not_waiting_for_one_away(client):
            client.release_concurrency_slots_with_lease(lease_id=self._lease_id)

    @property
    def lost(self) -> str | None:
        """Why the right to write is lost, as a clause; None while it is not."""
        return self._lost

    @contextmanager
    def calling_when_lost(self, act: Callable[[str], None]) -> Iterator[None]:
        """Call a function, with the reason as a clause, when the right to write is lost during the block."""
        with self._guard:
            self._when_lost.append(act)
            lost = self._lost
        if lost is not None:
            act(lost)
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
                # Prefect's own client would ask for a minute, and all the time the lease grows older.
                with (
                    asking(once=True),
                    get_client(sync_client=True, httpx_settings={"timeout": _ANSWER_SECONDS}) as client,
                ):
                    while self._lost is None:
                        self._renew(client)
                        if self._let_go.wait(RENEW_SECONDS):
                            return
                return
            except Exception as exc:  # noqa: BLE001  (a server that is away is asked again, until the time is over)
                self._trouble = one_line(f"{type(exc).__name__}: {exc}", 120)
                pause = POLL_SECONDS

    def _watch(self) -> None:
        while (left := self._proven_at + PROVEN_SECONDS - time.monotonic()) > 0:
            if self._let_go.wait(left):
                return
        note_server_away(True)
        if self._is_to_finish:
            current_reporter().note(
                f"The Prefect server has not renewed the right to write to target {self._target} for "
                f"{PROVEN_SECONDS:.0f} s ({self._trouble or 'no answer'}). This run goes on, as {AWAY_VARIABLE} is "
                f"{_FINISH}: no other machine may write to the target."
            )
            return
        self._lose(
            f"the Prefect server has not renewed its right to write for {PROVEN_SECONDS:.0f} s "
            f"({self._trouble or 'no answer'}) and can give the target to another machine soon"
        )

    def _renew(self, client: SyncPrefectClient) -> None:
        import httpx

        sent_at = time.monotonic()
        try:
            client.renew_concurrency_lease(lease_id=self._lease_id, lease_duration=LEASE_SECONDS)
            self._proven_at = sent_at
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code not in (_GONE, _NOT_FOUND):
                raise
            self._take_again(client)
        if self._lost is None and not self._let_go.is_set():
            self._about["signs_of_life"] += 1
            _write_sign(client, self._target, self._about)

    def _take_again(self, client: SyncPrefectClient) -> None:
        """Take the slot again whose lease the server no longer knows; it is lost when another run has had it."""
        if self._let_go.is_set():
            return  # It has just been given back.
        if self._is_mine(client):
            sent_at = time.monotonic()
            lease_id = acquire(client, self._target)
            # No other run can have it before a lease is over, and by then this run has lost it by its own clock; the
            # run that has it says so a moment later. Else the server counts this run's own slot, whose lease it forgot.
            may_be_ours = lease_id is None and not self._let_go.wait(POLL_SECONDS) and self._is_mine(client)
            if may_be_ours and self._lost is None:
                _free(client, self._target)
                sent_at = time.monotonic()
                lease_id = acquire(client, self._target)
            if lease_id is not None:
                with self._guard:
                    is_late = self._let_go.is_set()
                    self._lease_id, self._proven_at = lease_id, sent_at
                if is_late:
                    client.release_concurrency_slots_with_lease(lease_id=lease_id)
                self._about["slot"] = str(lease_id)
                return
        self._lose(f"{described(_read_sign(client, self._target))} writes to it since the Prefect server was away")

    def _is_mine(self, client: SyncPrefectClient) -> bool:
        sign = _read_sign(client, self._target)
        return sign is None or sign.get("lease") == self._about["lease"]

    def _lose(self, why: str) -> None:
        with self._guard:
            if self._lost is not None or self._let_go.is_set():
                return
            self._lost = why
            acts = list(self._when_lost)
        for act in acts:
            act(why)


@contextmanager
def server_slot(target: str, holder: str, wait: bool) -> Iterator[Lease]:
    """Hold the slot of a target for the time of the block; wait, and say for whom, while another run holds it.

    Raises:
        UpstreamUnavailable: it is held, and it was asked not to wait; or the server does not answer.
        RunTimedOut: the time limit in force passed while waiting.
        ConfigError: the server has no limit for the target, or what to do while it is away is no such thing.
    """
    import httpx

    from infrastructure.server.client import connect

    is_to_finish = _is_to_finish(os.environ)
    with connect() as server:
        client = server.client
        asked_at = time.monotonic()
        lease_id = acquire(client, target)
        if lease_id is None:
            lease_id, asked_at = _wait_for(client, target, wait)
        note_server_away(False)
        lease = Lease(target, holder, lease_id, asked_at, is_to_finish)
        try:
            # Inside the block: a slot whose first heartbeat fails is given back.
            lease.start(client)
            yield lease
        finally:
            try:
                lease.release(client)
            except httpx.TransportError:
                # The lease runs out by itself.
                current_reporter().note(f"The Prefect server is away: target {target} is free again in two minutes.")


def _is_to_finish(environ: Mapping[str, str]) -> bool:
    said = environ.get(AWAY_VARIABLE) or _STOP
    if said not in (_STOP, _FINISH):
        raise ConfigError(f"{AWAY_VARIABLE} is {said!r}. Set it to {_STOP}, as it is without it, or to {_FINISH}.")
    return said == _FINISH


def acquire(client: SyncPrefectClient, target: str) -> UUID | None:
    """Take the slot of a target if it is free, and return the id of the lease; None while another run holds it.

    Raises:
        ConfigError: the server has no limit for the target.
    """
    name = limit_name(target)
    answer = take_slot(client, name, LEASE_SECONDS)
    if answer is None:
        return None
    if not answer["limits"]:
        raise ConfigError(
            f"The Prefect server has no concurrency limit {name}, which keeps two runs from writing "
            f"to target {target} at once. Make it with: "
            f"{program()} setup --target {target}"
        )
    return UUID(answer["lease_id"])


@contextmanager
def asking(once: bool) -> Iterator[None]:
    """Have Prefect's client ask once in the block, where that is wanted, and not for a minute without an answer."""
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}) if once else contextlib.nullcontext():
        yield


def described(sign: dict[str, Any] | None) -> str:
    """Return who holds a slot, in words."""
    if sign is None:
        return "another run"
    return f"{sign.get('holder', 'another run')} (process {sign.get('process')} on {sign.get('machine')})"


def _wait_for(client: SyncPrefectClient, target: str, wait: bool) -> tuple[UUID, float]:
    """Return the id of the lease, and when it was asked for."""
    import httpx

    from infrastructure.server.client import passes_by_itself

    sign = _read_sign(client, target)
    since = f" since {sign['since']}" if sign and "since" in sign else ""
    held = f"{described(sign)} has been writing to it{since}"
    if not wait:
        raise UpstreamUnavailable(f"Target {target} is not free: {held}. Try again when it is done.")
    current_reporter().note(f"Waiting for target {target}: {held}.")
    silence = Silence(SILENT_SECONDS)
    while True:
        require_time(f"Target {target} did not become free: {held}")
        time.sleep(POLL_SECONDS)
        try:
            asked_at = time.monotonic()
            lease_id = acquire(client, target)
            if lease_id is not None:
                return lease_id, asked_at
            seen = client.read_variable_by_name(_variable(target))
            if silence.is_over(seen and (seen.id, seen.value), time.monotonic()):
                who = described(_value(seen))
                current_reporter().note(f"{who} sends no heartbeat: target {target} is taken over.")
                free_slot(client, limit_name(target), _variable(target), seen)
                silence.begin_anew()
        except httpx.HTTPError as exc:
            if not passes_by_itself(exc):
                raise
            # The server does not answer or fails; a waiting run can wait for it too.
            silence.begin_anew()


def _free(client: SyncPrefectClient, target: str) -> None:
    """Free a slot whose holder is dead, unless another run is doing so."""
    sign = _variable(target)
    free_slot(client, limit_name(target), sign, client.read_variable_by_name(sign))


def _variable(target: str) -> str:
    # In the letters that Prefect allows.
    return re.sub(r"[^a-z0-9_]", "_", f"dbt_{target}_writer".lower())


def _read_sign(client: SyncPrefectClient, target: str) -> dict[str, Any] | None:
    return _value(client.read_variable_by_name(_variable(target)))


def _value(variable: Variable | None) -> dict[str, Any] | None:
    return variable.value if variable and isinstance(variable.value, dict) else None


def _write_sign(client: SyncPrefectClient, target: str, about: dict[str, Any]) -> None:
    show_sign(client, _variable(target), about)
