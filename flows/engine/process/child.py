"""The dbt child process: dbt itself, writing its events where the flow process reads them.

Run as a file by `process.DbtProcess`, so it imports nothing of this project.
"""

import atexit
import contextlib
import dataclasses
import gc
import importlib.util
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

# The file that events are kept in, whatever becomes of the flow process.
EVENTS_VARIABLE = "TRIBUTARY_EVENTS_FILE"
# The socket that a child started ahead of time is told its command through, and the adapter that it will want.
CONTROL_VARIABLE = "TRIBUTARY_CONTROL"
ADAPTER_VARIABLE = "TRIBUTARY_ADAPTER"
# A file that says which batches of a model an earlier attempt of the same command built, and which it did not.
BATCHES_VARIABLE = "TRIBUTARY_BATCHES_FILE"
# Set where a freshness check is to leave out the project's on-run hooks.
HOOKS_VARIABLE = "TRIBUTARY_WITHOUT_HOOKS"
_MOST_DESCRIPTORS = 16
# What statements and sessions say of themselves; see statement_tags.py.
COMMENT_VARIABLE = "TRIBUTARY_QUERY_COMMENT"
QUERY_TAG_VARIABLE = "TRIBUTARY_QUERY_TAG"
# dbt cancels its queries on SIGINT, 0.4 s measured on PostgreSQL in November 2026; on SIGTERM it dies and the query
# lives on. A warehouse that answers slowly gets this long before the group is killed.
STOP_SECONDS = 20.0
# What the outcome of a node is called that may not be in the warehouse; see `_Relay`.
IN_DOUBT = "ResultInDoubt"
# What the line is called that says which nodes dbt is going to run.
SELECTED = "TributarySelected"
_CLOSING = frozenset({"ConnectionLeftOpenInCleanup", "ConnectionClosedInCleanup"})


def _take_one_interrupt() -> None:
    """Let the first SIGINT alone reach dbt: a second one would end its wait for what it has just told to stop.

    dbt would then take the connections from threads that still work: their commits find none, do nothing, and dbt
    reports the nodes as done (seen on PostgreSQL with 1.11, November 2026).
    """
    asked: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) == 1:
            raise KeyboardInterrupt

    # Started from a shell's background, a process ignores SIGINT, and so would its child: dbt could not be stopped.
    signal.signal(signal.SIGINT, interrupt)


def _hold_the_lifeline() -> None:
    """Have dbt cancel its queries when the flow process is gone, which could not tell it any more.

    Standard input is a pipe whose other end the flow process alone holds and never writes to; it ends with that
    process, whatever ended it. A signal on the parent's death is no such line: Linux alone has it, and sends one for
    every thread of the parent. dbt is given an empty input in its place.
    """
    lifeline = os.dup(sys.stdin.fileno())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    threading.Thread(target=_end_with, args=(lifeline,), name="tributary-lifeline", daemon=True).start()


def _end_with(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(os.getpid(), signal.SIGINT)
    # Where the system gave it to a thread that does not matter, the main one would go on waiting.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    time.sleep(STOP_SECONDS)
    os.killpg(os.getpid(), signal.SIGKILL)


class _Relay:
    """Write dbt's events as its JSON log has them, first into the run's own file, then to the flow process.

    In place of dbt's own loggers, which turn every event into a line before they look at its level: of the twenty
    events of a node two are wanted, and a log file doubles the work (a tenth of a build of cheap nodes, 2026-11-21).

    dbt closes its connections at its end. Should a thread of it still work then, because dbt was interrupted twice or
    could not cancel a query, its commit does nothing and dbt calls the node done. What is reported from that moment on
    is handed on under another name, as a line that ends no node.
    """

    def __init__(self, file: str | None, scrub: Callable[[bytes], bytes]) -> None:
        from dbt_common.events.functions import msg_to_dict

        self._as_document = msg_to_dict
        self._scrub = scrub
        self._lock = threading.Lock()
        self._is_closing = False
        self._files = [sys.stdout.fileno()]
        if file:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            self._files.insert(0, os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))

    def __call__(self, event: Any) -> None:  # noqa: ANN401  (dbt's EventMsg, a class that dbt makes at run time)
        if event.info.name in _CLOSING:
            self._is_closing = True
        if event.info.level == "debug" or event.info.name == "Formatting":
            return
        document = self._as_document(event)
        if self._is_closing and document["data"].get("node_info", {}).get("unique_id"):
            document["info"]["name"] = IN_DOUBT
        self._write(self._scrub(json.dumps(document, default=str).encode()) + b"\n")

    def selected(self, unique_ids: list[str]) -> None:
        """Say which nodes dbt is going to run."""
        at = datetime.now(UTC).isoformat()
        info = {"name": SELECTED, "msg": "", "level": "info", "ts": at}
        self._write(json.dumps({"info": info, "data": {"nodes": unique_ids}}).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        with self._lock:
            for file in self._files:
                # A full disk or a flow process that is gone is no reason for dbt to fail in the middle of a node.
                with contextlib.suppress(OSError):
                    _write_all(file, line)


def _write_all(file: int, line: bytes) -> None:
    while line:
        line = line[os.write(file, line) :]


def _wait_for_the_command(control: int) -> None:
    """Import dbt, then take over the arguments, the environment and the folder that the flow process sends."""
    importlib.import_module("dbt.cli.main")

    if adapter := os.environ.get(ADAPTER_VARIABLE):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"dbt.adapters.{adapter}")
    with socket.socket(fileno=control) as told:
        # The descriptors that come along are left open: a lock is held for as long as this process lives.
        head, _, _, _ = socket.recv_fds(told, 4, _MOST_DESCRIPTORS)
        if len(head) < 4:
            # Not needed, or the flow process is gone.
            sys.exit(0)
        command = json.loads(_read_exactly(told, struct.unpack("!I", head)[0]))
    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["folder"])
    sys.argv[1:] = command["arguments"]


def _read_exactly(told: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = told.recv(size - len(received))
        if not part:
            sys.exit(0)
        received += part
    return received


def _say_whose_statements_these_are(comment: str | None, query_tag: str | None) -> None:
    """Set the query comment of a project that has none of its own, and the query tag of a profile that has none.

    dbt takes the one from dbt_project.yml only, which is the user's, and parses anew when the other changes.
    """
    if comment:
        from dbt.adapters.contracts.connection import QueryComment

        project: Any = importlib.import_module("dbt.config.project")
        as_configured = project._query_comment_from_cfg

        def with_the_run(configured: Any) -> Any:  # noqa: ANN401  (dbt's, a union of four)
            if isinstance(configured, project.NoValue):
                return QueryComment(comment=comment, job_label=True)
            return as_configured(configured)

        project._query_comment_from_cfg = with_the_run
    if query_tag:
        connections: Any = importlib.import_module("dbt.adapters.snowflake.connections")
        opened = connections.SnowflakeConnectionManager.open.__func__

        def open_tagged(cls: Any, connection: Any) -> Any:  # noqa: ANN401  (dbt's classes)
            if not connection.credentials.query_tag:
                connection.credentials = dataclasses.replace(connection.credentials, query_tag=query_tag)
            return opened(cls, connection)

        connections.SnowflakeConnectionManager.open = classmethod(open_tagged)


def _only_batches_that_failed(file: str | None) -> None:
    """Have dbt build again the batches that failed and no others, as its own `retry` does."""
    if not file:
        return
    results: Any = importlib.import_module("dbt.artifacts.schemas.batch_results")
    with open(file, encoding="utf-8") as document:
        told = json.load(document)
    known = {
        unique_id: results.BatchResults(
            **{
                outcome: [tuple(map(datetime.fromisoformat, batch)) for batch in batches[outcome]]
                for outcome in ("successful", "failed")
            }
        )
        for unique_id, batches in told["batches"].items()
    }
    run: Any = importlib.import_module("dbt.task.run")
    populate = run.RunTask.populate_microbatch_batches

    def with_what_is_known(task: Any, selected: Any) -> None:  # noqa: ANN401  (dbt's classes)
        task.batch_map = task.batch_map or known
        # A model that had not begun builds the batches of the first attempt's time, not of now.
        task.original_invocation_started_at = datetime.fromisoformat(told["started_at"])
        populate(task, selected)

    run.RunTask.populate_microbatch_batches = with_what_is_known
    _keep_the_batches_that_are_built(run.MicrobatchModelRunner)


def _keep_the_batches_that_are_built(runner: Any) -> None:  # noqa: ANN401  (dbt's class)
    """Have a full refresh that goes on add to its table: dbt's first batch would replace it, and lose the others."""
    is_incremental = runner._is_incremental

    def with_those(self: Any, model: Any) -> bool:  # noqa: ANN401  (dbt's classes)
        before = model.previous_batch_results
        return bool(before and before.successful and self._has_relation(model)) or is_incremental(self, model)

    runner._is_incremental = with_those


def _say_what_will_run(say: Callable[[list[str]], None]) -> None:
    """Have dbt say which nodes it is going to run, once it has worked out what its selection means."""
    runnable: Any = importlib.import_module("dbt.task.runnable")
    initialize = runnable.GraphRunnableTask._runtime_initialize

    def and_say(task: Any) -> None:  # noqa: ANN401  (dbt's classes)
        initialize(task)
        nodes = [node.unique_id for node in task._flattened_nodes if not node.is_ephemeral_model]
        # A build keeps them apart, as it runs each together with its model.
        say([*nodes, *sorted(getattr(task, "selected_unit_tests", ()))])

    runnable.GraphRunnableTask._runtime_initialize = and_say


def _leave_out_the_hooks(is_asked: bool) -> None:
    """Have a freshness check run no on-run hooks, which dbt runs with it since 1.10; the build after it runs them."""
    if is_asked:
        freshness: Any = importlib.import_module("dbt.task.freshness")
        freshness.FreshnessTask.get_hooks_by_type = _no_hooks


def _no_hooks(task: Any, hook_type: Any) -> list[Any]:  # noqa: ANN401  (dbt's classes)
    return []


def _end_at_once(ended: list[int]) -> None:
    """End this process without taking apart what dbt holds in memory, a tenth of a small build (2026-11-28).

    Args:
        ended: the exit code; empty when dbt did not get to say one, and Python has to end as it does.
    """
    if ended:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended[0])


def _leave_out_the_users_settings() -> None:
    """Keep what a user's home says from a run: dbt 1.12 takes flags from ~/.dbt/user_settings.yml."""
    flags: Any = importlib.import_module("dbt.cli.flags")
    if hasattr(flags, "get_user_setting_flags"):
        flags.get_user_setting_flags = dict


def main() -> None:
    """Run dbt with the arguments of this process."""
    ended: list[int] = []
    # The first that is registered is called last: threads are waited for and connections closed by then. What was there
    # before, such as what measures processes, has to be called as well.
    if not atexit._ncallbacks():  # pyright: ignore[reportPrivateUsage]  (nothing else tells)
        atexit.register(_end_at_once, ended)
    # Artifacts and logs hold SQL and error texts, and DuckDB's file the data itself.
    os.umask(0o077)
    _take_one_interrupt()
    _hold_the_lifeline()
    # dbt holds a project's whole manifest in memory, which the collector would look through again and again.
    gc.set_threshold(50_000, 20, 50)
    if control := os.environ.get(CONTROL_VARIABLE):
        _wait_for_the_command(int(control))
    _say_whose_statements_these_are(os.environ.get(COMMENT_VARIABLE), os.environ.get(QUERY_TAG_VARIABLE))
    _only_batches_that_failed(os.environ.get(BATCHES_VARIABLE))
    _leave_out_the_users_settings()
    _leave_out_the_hooks(HOOKS_VARIABLE in os.environ)
    from dbt.cli.main import cli

    # What is imported stays: the collector need not look at it again before the end.
    gc.freeze()
    atexit.register(gc.unfreeze)

    environment = dict(os.environ)
    scrubbing = _scrubbing()
    scrub, folders = scrubbing.scrubbed_environment(environment)
    relay = _Relay(os.environ.get(EVENTS_VARIABLE), scrub)
    _say_what_will_run(relay.selected)
    try:
        cli(prog_name="dbt", obj={"callbacks": [relay]})
    except SystemExit as end:
        if isinstance(end.code, int):
            ended.append(end.code)
        raise
    finally:
        scrubbing.scrub_files(folders, scrub)


def _scrubbing() -> Any:  # noqa: ANN401  (a module)
    """Return the relay of dbts elsewhere, which blanks out encoded and cut secrets too; dbt itself does plain ones."""
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay.py")
    spec: Any = importlib.util.spec_from_file_location("tributary_relay", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
