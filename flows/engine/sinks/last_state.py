"""The last state of a flow run, which is what its work came to: a Prefect server that is ill does not change it.

Prefect's engine asks the server once to take it, and makes of an error in the answer the failure of the run.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, cast

from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import state_root
from flows.engine.sinks.light_flow import let_heartbeats_be
from flows.engine.sinks.sending import sender_of
from flows.engine.sinks.sign_of_life import SignsOfLife, signs_of_life_of
from flows.engine.sinks.unsent import unsent_events
from infrastructure.plain_text import one_line
from infrastructure.server.away import is_server_away, not_waiting_for_one_away

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas import OrchestrationResult
    from prefect.client.schemas.objects import FlowRun, State

    # A flow run's id, the state, and whether it is forced.
    SetState = Callable[[UUID | str, State[Any], bool], OrchestrationResult[Any]]


def keep_last_state(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Have the server asked again for the last state of a flow run that begins; a hook for `on_running`.

    The request is the same each time, with one id of the transition, so that a server that took it and failed in its
    answer takes it once. After the last state nothing is waited for.
    """
    from prefect.context import SyncClientContext

    let_heartbeats_be()
    # What is imported stays: the collector need not look through it during the run, 90 ms each time.
    gc.freeze()
    context = SyncClientContext.get()
    # The flows inside a flow ask through the same client.
    if context and not isinstance(context.client.set_flow_run_state, _AskAgain):
        cast(Any, context.client).set_flow_run_state = _AskAgain(context.client, signs_of_life_of(flow_run))


def is_followed() -> bool:
    """Say whether what is kept as unsent is sent after the last state of the flow run that this code is part of."""
    from prefect.settings import PREFECT_API_URL

    # A temporary server ends soon after the flow, with what it has not worked off.
    return PREFECT_API_URL.value() is not None and _kept() is not None


def do_beside_the_end(work: Callable[[], None]) -> None:
    """Do what no part of a flow run waits for in a thread, which is over before the flow run is left.

    Outside of a flow run whose last state is kept, it is done at once.

    Args:
        work: raises nothing.
    """
    kept = _kept()
    if kept is None:
        work()
        return
    # Prefect's settings and the flow run belong to the context of this thread. Python waits for it too, where a signal
    # leaves it to a worker to set the last state.
    thread = threading.Thread(target=copy_context().run, args=(kept.do, work), name="tributary-beside")
    kept.beside.append(thread)
    thread.start()


def send_lines_beside_the_end() -> None:
    """Send the log lines that a command left for later, while the rest of the flow run is done.

    They take a server a moment, and events seconds, in which it answers nothing quickly.
    """
    kept = _kept()
    if kept and is_followed():
        do_beside_the_end(kept.send_lines)


def _kept() -> _AskAgain | None:
    """Return what keeps the last state of the flow run that this code is part of; None where nothing does."""
    from prefect.context import SyncClientContext

    context = SyncClientContext.get()
    ask = context.client.set_flow_run_state if context else None
    return ask if isinstance(ask, _AskAgain) else None


class _AskAgain:
    """Set a state as Prefect's client does; one that a run ends in is asked for again, and kept where that is vain.

    Attributes:
        beside: threads that are waited for once a last state is set.
    """

    def __init__(self, client: SyncPrefectClient, signs: SignsOfLife | None) -> None:
        self._client = client
        self._signs = signs
        self._ask: SetState = client.set_flow_run_state
        self.beside: list[threading.Thread] = []

    def __call__(self, flow_run_id: UUID | str, state: State[Any], force: bool = False) -> OrchestrationResult[Any]:
        if not state.is_final():
            return self._ask(flow_run_id, state, force)
        # A flow inside this one has none of its own.
        if self._signs and self._signs.is_of(flow_run_id):
            self._signs.end()
        try:
            return self._ask_at_the_end(flow_run_id, state, force)
        finally:
            self._wait()
            gc.unfreeze()

    def _ask_at_the_end(self, flow_run_id: UUID | str, state: State[Any], force: bool) -> OrchestrationResult[Any]:
        import httpx
        from prefect.client.schemas import OrchestrationResult
        from prefect.client.schemas.responses import SetStateStatus, StateAcceptDetails
        from prefect.exceptions import ObjectNotFound
        from prefect.settings import PREFECT_CLIENT_RETRY_EXTRA_CODES

        # Left to itself, Prefect's client tries 502 and 503 again, for about a minute, and not the others.
        codes = {*PREFECT_CLIENT_RETRY_EXTRA_CODES.value(), *range(500, 600)}
        try:
            with not_waiting_for_one_away(self._client) if is_server_away() else _trying_again_after(codes):
                answer = self._ask(flow_run_id, state, force)
        except (httpx.HTTPError, ObjectNotFound) as exc:
            from infrastructure.server.client import in_words

            reason = in_words(exc) if isinstance(exc, httpx.HTTPError) else "It has this flow run no more."
            current_reporter().note(
                f"This flow run is {state.name}, and the Prefect server could not be told; there it goes on for ever. "
                f"What was done is recorded under {state_root(os.environ)}. {reason}"
            )
            return OrchestrationResult[Any].model_construct(
                status=SetStateStatus.ACCEPT, state=state, details=StateAcceptDetails()
            )
        # Now that nothing waits for it: what would have slowed dbt down, and what the server was not there for.
        try:
            unsent, sender = unsent_events(os.environ), sender_of(self._client)
            unsent.send(sender)
            self._wait()
            # What a thread took and could not send.
            unsent.send(sender)
        except Exception as exc:  # noqa: BLE001  (the run has come to its end, and that is known)
            current_reporter().note(
                f"The Prefect server did not take all events of this run ({one_line(str(exc), 200)}): the next run on "
                f"this machine sends them. The ledgers under {state_root(os.environ)} have them all."
            )
        return answer

    def do(self, work: Callable[[], None]) -> None:
        """Do what a thread beside the end of the run is for."""
        with not_waiting_for_one_away(self._client):
            work()

    def send_lines(self) -> None:
        """Send the log lines that are left; what the server does not take is asked about after the last state."""
        with suppress(Exception):
            unsent_events(os.environ).send(sender_of(self._client), lines_alone=True)

    def _wait(self) -> None:
        while self.beside:
            self.beside.pop().join()


@contextmanager
def _trying_again_after(codes: set[int]) -> Iterator[None]:
    """Have Prefect's client try again what a server answers with one of these HTTP codes.

    The settings in force are copied: `temporary_settings` reads all of them anew, which takes 30 ms.
    """
    from prefect.context import SettingsContext, get_settings_context

    context = get_settings_context()
    client = context.settings.client.model_copy(update={"retry_extra_codes": codes})
    with SettingsContext(profile=context.profile, settings=context.settings.model_copy(update={"client": client})):
        yield
