"""A run of a deployment says that it lives, in the server's database, and goes on where it was called crashed.

The server takes a run for gone that sends no heartbeat for a minute. A heartbeat is an event: on a busy machine or
server it comes late, and where the message broker dies it never comes. So the run itself looks what it is called, and
what looks after left runs (`infrastructure.server.left_runs`) goes by a sign that no broker can lose.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from infrastructure.server.automations import RESUMING, SAID_GONE, times_resumed
from infrastructure.server.left_runs import ALIVE

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

# A run that was called crashed is begun again half a minute later: it has looked twice by then.
LOOK_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
# Every so many looks.
_SIGN = 3
_LIVES = "It was called crashed, as its heartbeats were late. Its process lives, and the run goes on."


class SignsOfLife:
    """A thread that gives signs of life of a flow run that the server may begin again, until `end`."""

    def __init__(self, flow_run: FlowRun) -> None:
        self._flow_run = flow_run
        self._is_over = threading.Event()
        # Held while the state is changed, so that nothing comes after the last one.
        self._guard = threading.Lock()
        thread = threading.Thread(target=copy_context().run, args=(self._look,), name="tributary-life", daemon=True)
        thread.start()

    def is_of(self, flow_run_id: UUID | str) -> bool:
        """Say whether they are those of a flow run."""
        return str(flow_run_id) == str(self._flow_run.id)

    def end(self) -> None:
        """Leave the state of the run alone from now on."""
        with self._guard:
            self._is_over.set()

    def _look(self) -> None:
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

        looks = 0
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            while not self._is_over.is_set():
                try:
                    with get_client(sync_client=True, httpx_settings={"timeout": _ANSWER_SECONDS}) as client:
                        while not self._is_over.is_set():
                            self.look_once(client, with_sign=looks % _SIGN == 0)
                            looks += 1
                            self._is_over.wait(LOOK_SECONDS)
                except Exception:  # noqa: BLE001  (a server that is away is asked again)
                    looks = 0
                    self._is_over.wait(LOOK_SECONDS)

    def look_once(self, client: SyncPrefectClient, with_sign: bool) -> None:
        """Look what the run is called, take that back where it is called gone, and leave a sign where one is due."""
        from prefect.client.schemas.objects import FlowRun

        run_id = self._flow_run.id
        with self._guard:
            if self._is_over.is_set():
                return
            answer = client.request("GET", "/flow_runs/{id}", path_params={"id": run_id})
            run = FlowRun.model_validate(answer.json())
            if with_sign:
                # By the server's clock, which those who read it go by; this machine's can be wrong.
                at = parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
                client.update_flow_run_labels(run_id, {ALIVE: at.isoformat()})
            if run.state and is_called_gone(run.state):
                _go_on(client, run)


def signs_of_life_of(flow_run: FlowRun) -> SignsOfLife | None:
    """Give signs of life from now on of a flow run that the server may begin again; None for all others."""
    if flow_run.deployment_id is None or flow_run.parent_task_run_id is not None or not times_resumed(flow_run.tags):
        return None
    return SignsOfLife(flow_run)


def is_called_gone(state: State[Any]) -> bool:
    """Say whether a flow run is in this state because its process was taken for gone."""
    if state.is_crashed():
        return (state.message or "").endswith(SAID_GONE)
    # No worker has taken it up yet.
    return state.is_scheduled() and state.name == RESUMING


def _go_on(client: SyncPrefectClient, run: FlowRun) -> None:
    from prefect.states import Running

    # Else the server would count it as one more beginning, of which the run has as many as its deployment says.
    client.update_flow_run(run.id, empirical_policy=run.empirical_policy.model_copy(update={"resuming": True}))
    client.set_flow_run_state(run.id, Running(message=_LIVES), force=True)
