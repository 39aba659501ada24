"""A flow run that is stopped, by a signal or on the Prefect server: it ends Cancelled, and so do its tasks.

A worker and `serve` look for cancels of the runs that they started, and send them a signal. A run that its own process
started has neither, and looks itself.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar, copy_context
from functools import update_wrapper
from types import FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from flows.engine.context.run_context import current_flow_run, is_on_its_own
from infrastructure.errors import RunStopped

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import TaskRun

P = ParamSpec("P")
R = TypeVar("R")

# How often a run asks the server whether it was cancelled.
LOOK_SECONDS = 5.0
_ANSWER_SECONDS = 5.0

# The task runs of this flow run, and of the flow runs inside of it, that a stop ended.
_cut_off: ContextVar[list[TaskRun]] = ContextVar("tributary_tasks_cut_off")


def stoppable(work: Callable[P, R]) -> Callable[P, R]:
    """Make a flow's function end its flow run Cancelled when it is stopped; a flow run of a worker is left to that."""

    def run(*arguments: P.args, **options: P.kwargs) -> R:
        # `serve` pickles this function with all that it names of this module, and not everything can be pickled.
        from functools import partial

        from flows.engine.sinks.stopping import run_until_stopped

        return run_until_stopped(partial(work, *arguments, **options))

    # Prefect looks up the words of annotations among the globals of the function that it is given.
    in_its_module = FunctionType(run.__code__, cast(FunctionType, work).__globals__, closure=run.__closure__)
    return cast("Callable[P, R]", update_wrapper(in_its_module, work))


def run_until_stopped(work: Callable[[], R]) -> R:
    """Do the work of a flow run; where that is stopped, return the state that the flow run ends in."""
    from prefect.exceptions import TerminationSignal

    tasks = _cut_off.get([])
    token = _cut_off.set(tasks)
    flow_run, is_own = current_flow_run(), is_on_its_own()
    look = _Look(flow_run.id) if flow_run and is_own and _is_reached_by_signals() else None
    try:
        with look.out() if look else nullcontext():
            return work()
    except RunStopped as exc:
        return _cancelled(str(exc))
    except (KeyboardInterrupt, TerminationSignal) as exc:
        if is_own or (flow_run and is_being_cancelled(flow_run.id)):
            _end_cancelled(tasks)
        if not is_own:
            # What started it knows whether a person cancelled it or the machine is going down.
            raise
        number = exc.signal if isinstance(exc, TerminationSignal) else signal.SIGINT
        if look is None or not look.is_cancelled:
            return _cancelled(f"Stopped by {signal.Signals(number).name}.")
        state = _cancelled("Cancelled on the Prefect server.")
        _tell(state)
        return state
    finally:
        _cut_off.reset(token)


@contextmanager
def cut_off_by_a_stop() -> Iterator[None]:
    """Have the task that the block is part of shown as cancelled, and not as crashed, when a stop ends it."""
    from prefect.context import TaskRunContext
    from prefect.exceptions import TerminationSignal

    try:
        yield
    except (KeyboardInterrupt, TerminationSignal):
        context = TaskRunContext.get()
        if context:
            _cut_off.get([]).append(context.task_run)
        raise


def is_being_cancelled(flow_run_id: UUID, client: SyncPrefectClient | None = None) -> bool:
    """Return whether a flow run was cancelled on the server; False where that can't be asked."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    # The next look comes in a moment, and what sent a signal waits for the end of this process.
    with suppress(Exception), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        if client is None:
            with get_client(sync_client=True, httpx_settings={"timeout": _ANSWER_SECONDS}) as own:
                return is_being_cancelled(flow_run_id, own)
        state = client.read_flow_run(flow_run_id).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


class _Look:
    """Look, from a thread, whether a flow run is cancelled, and stop this process's work then.

    Attributes:
        is_cancelled: whether that happened.
    """

    def __init__(self, flow_run_id: UUID) -> None:
        self._flow_run_id = flow_run_id
        self._is_over = threading.Event()
        self._guard = threading.Lock()
        self.is_cancelled = False

    @contextmanager
    def out(self) -> Iterator[None]:
        """Look for the time of the block; a cancel raises what SIGTERM raises."""
        # Prefect's settings in force, such as the server's address, belong to the context of this thread.
        context = copy_context()
        threading.Thread(target=context.run, args=(self._look,), name="tributary-cancel", daemon=True).start()
        try:
            yield
        finally:
            with self._guard:
                self._is_over.set()

    def _look(self) -> None:
        from prefect.client.orchestration import get_client

        if self._is_over.wait(LOOK_SECONDS):
            return  # Before a client is made, which takes 25 ms in which the run does not begin.
        with get_client(sync_client=True, httpx_settings={"timeout": _ANSWER_SECONDS}) as client:
            while not is_being_cancelled(self._flow_run_id, client):
                if self._is_over.wait(LOOK_SECONDS):
                    return
        with self._guard:
            if not self._is_over.is_set():
                self.is_cancelled = True
                # To that thread, so that a call which waits in it is interrupted.
                signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGTERM)


def _is_reached_by_signals() -> bool:
    """Say whether a signal interrupts this thread, and a cancel can come from elsewhere than this process."""
    from prefect.settings import PREFECT_API_URL

    return threading.current_thread() is threading.main_thread() and PREFECT_API_URL.value() is not None


def _cancelled(message: str) -> Any:  # noqa: ANN401  (a state that a flow returns becomes the run's own)
    from prefect.states import Cancelled

    # The caller of the flow gets it as an error.
    return Cancelled(message=message)


def _tell(state: Any) -> None:  # noqa: ANN401  (one of Prefect's)
    """Call the hooks for a cancel, as a worker does; who stops a run at its terminal needs to be told nothing."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context and context.flow and context.flow_run:
        for hook in context.flow.on_cancellation_hooks:
            with suppress(Exception):
                hook(context.flow, context.flow_run, state)


def _end_cancelled(task_runs: list[TaskRun]) -> None:
    """Correct the state of tasks that Prefect calls crashed, because a stop came through them as an error."""
    from prefect.states import Cancelled
    from prefect.utilities.engine import emit_task_run_state_change_event

    for task_run in task_runs:
        state = Cancelled(message="Stopped before its end.")
        state.state_details.task_run_id, state.state_details.flow_run_id = task_run.id, task_run.flow_run_id
        emit_task_run_state_change_event(task_run, initial_state=task_run.state, validated_state=state)
    task_runs.clear()
