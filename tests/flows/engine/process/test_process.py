"""Child processes, which must end when they are told to and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from flows.engine.context.command import DbtCommand, Place, arguments
from flows.engine.context.events import parse_line
from flows.engine.process.engines import OWN_DBT, OwnDbt
from flows.engine.process.environment import ahead_environment
from flows.engine.process.process import DbtProcess
from infrastructure.errors import ConfigError
from infrastructure.program import find_program
from tests.support.processes import wait_until

# Starts a grandchild, says its id, and waits; both do what `{deaf}` says about Ctrl-C.
PARENT = """
import signal, subprocess, sys
# Whoever runs the tests may have them ignore Ctrl-C, as a shell's background does.
signal.signal(signal.SIGINT, signal.default_int_handler)
{deaf}
code = {deaf!r}.strip() + "\\nimport signal, sys; print('up', flush=True); signal.pause()"
child = subprocess.Popen([sys.executable, "-c", "import signal\\n" + code], stdout=subprocess.PIPE)
child.stdout.readline()
try:
    print(child.pid, flush=True)
    signal.pause()
except KeyboardInterrupt:
    print("stopped by Ctrl-C", flush=True)
    sys.exit(1)
"""
# How a child starts is what these tests are about.
pytestmark = pytest.mark.usefixtures("cold_children")

DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
# dbt whose threads commit a model once its connections were taken from them, and which waits for what they then say:
# without it, that depends on which of them is first.
LATE = """
import sys, threading
sys.path.insert(0, {child!r})
import child
from dbt.adapters.base.connections import BaseConnectionManager as Manager

taken, said = threading.Event(), threading.Semaphore(0)
commit, clean_up, hand_on = Manager.commit_if_has_connection, Manager.cleanup_all, child._Relay.__call__

def is_of_a_model(connection):
    return connection is not None and connection.name.startswith("model.")

def commit_late(self):
    if is_of_a_model(self.get_if_exists()):
        taken.wait(300)
    commit(self)

def take(self):
    are_at_work = any(map(is_of_a_model, self.thread_connections.values()))
    clean_up(self)
    if are_at_work:
        taken.set()
        for _ in range(2):
            said.acquire(timeout=300)

def hand_on_and_count(self, event):
    name = event.info.name
    hand_on(self, event)
    if name == "LogModelResult":
        said.release()

Manager.commit_if_has_connection, Manager.cleanup_all, child._Relay.__call__ = commit_late, take, hand_on_and_count
child.main()
"""


ENDS = """
import atexit, sys
sys.path.insert(0, {child!r})
import child

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
child._take_one_interrupt = lambda: atexit.register(print, "closed")
sys.argv = ["dbt", {word!r}]
child.main()
"""


def own_arguments(command: DbtCommand, place: Place, target: str) -> list[str]:
    return [*OwnDbt(find_program()).head(), *arguments(command, place, target)]


def start(code: str, folder: Path) -> DbtProcess:
    return DbtProcess([sys.executable, "-c", code], ahead_environment({}), folder)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_that_ends_by_itself_gives_its_lines_and_its_exit_code(tmp_path: Path) -> None:
    with start("import os; print('one'); print(os.getcwd(), flush=True); raise SystemExit(3)", tmp_path) as child:
        lines = list(child.lines())
        assert child.wait() == 3
    assert lines == [b"one\n", f"{tmp_path}\n".encode()]


def test_what_goes_to_stderr_is_read_too(tmp_path: Path) -> None:
    with start("import sys; sys.stderr.write('oh\\n')", tmp_path) as child:
        assert list(child.lines()) == [b"oh\n"]


def test_a_child_is_asked_first_as_ctrl_c_does(tmp_path: Path) -> None:
    child = start(PARENT.format(deaf=""), tmp_path)
    lines = child.lines()
    grandchild = int(next(lines))
    child.stop()
    assert child.wait() == 1, "it ended itself and was not killed"
    wait_until(lambda: is_gone(grandchild), "the grandchild is gone")


def test_a_child_that_is_deaf_to_ctrl_c_is_killed_with_its_own_children(tmp_path: Path) -> None:
    child = start(PARENT.format(deaf=DEAF), tmp_path)
    grandchild = int(next(child.lines()))
    child.stop(patience_seconds=0.2)
    assert child.wait() == -signal.SIGKILL
    wait_until(lambda: is_gone(grandchild), "the grandchild is gone")


def test_a_grandchild_that_outlives_its_parent_is_ended_too(tmp_path: Path) -> None:
    code = PARENT.format(deaf=DEAF).replace("signal.pause()\nexcept", "sys.exit(0)\nexcept")
    with start(code, tmp_path) as child:
        grandchild = int(next(child.lines()))
        child.wait()
        assert not is_gone(grandchild)
    wait_until(lambda: is_gone(grandchild), "the grandchild is gone")


def test_an_error_in_the_block_ends_the_child(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), start(PARENT.format(deaf=""), tmp_path) as child:
        grandchild = int(next(child.lines()))
        raise KeyboardInterrupt
    assert is_gone(child.pid)
    wait_until(lambda: is_gone(grandchild), "the grandchild is gone")


def test_a_child_that_writes_more_than_a_pipe_holds_while_it_ends_is_let_finish(tmp_path: Path) -> None:
    code = """
import os, signal
def last_words(*_):
    for _ in range(100):
        os.write(1, b"x" * 10_000)
    os._exit(7)
signal.signal(signal.SIGINT, last_words)
print("up", flush=True)
signal.pause()
"""
    child = start(code, tmp_path)
    next(child.lines())
    child.stop()
    assert child.wait() == 7


def test_a_reader_that_leaves_in_the_middle_does_not_close_the_pipe(tmp_path: Path) -> None:
    """A run that is interrupted reads no further, and dbt must still be able to write what it does at its end."""
    code = """
import os, signal
def last_words(*_):
    os.write(1, b"cancelling")
    os._exit(7)
signal.signal(signal.SIGINT, last_words)
print("up", flush=True)
signal.pause()
"""
    with start(code, tmp_path) as child:
        for _ in child.lines():
            break
    assert child.wait() == 7


# A flow process has threads, and starts its dbt from one of them.
KILLED = """
import os, pathlib, signal, sys, threading
from flows.engine.context.events import parse_line
from flows.engine.process.environment import ahead_environment
from flows.engine.process.process import DbtProcess
for _ in range(6):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
started = []
code = pathlib.Path(sys.argv[1]).read_text()
def start():
    started.append(DbtProcess([sys.executable, "-c", code], ahead_environment(os.environ), pathlib.Path.cwd()))
    print(next(started[0].lines()).decode(), end="", flush=True)
    threading.Event().wait()
threading.Thread(target=start, daemon=True).start()
signal.pause()
"""
# Counts what reaches it till it is told that all is over.
COUNTS = """
import os, sys, time
sys.path.insert(0, {child!r})
import child
child._take_one_interrupt()
child._hold_the_lifeline()
count = 0
print(os.getpid(), repr(sys.stdin.read()), flush=True)
while True:
    try:
        while not os.path.exists({over!r}):
            time.sleep(0.01)
        break
    except KeyboardInterrupt:
        count += 1
        open({interrupted!r}, "w").close()
open({counted!r}, "w").write(str(count))
"""


def test_a_child_whose_flow_process_is_killed_is_interrupted_once(tmp_path: Path) -> None:
    paths = {name: str(tmp_path / name) for name in ("over", "interrupted", "counted")}
    code = tmp_path / "child.py"
    code.write_text(COUNTS.format(child=str(Path(OWN_DBT[-1]).parent), **paths))
    with subprocess.Popen([sys.executable, "-c", KILLED, str(code)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, read = parent.stdout.readline().split()
        assert read == "''", "dbt's own input is empty: nobody would answer"
        parent.kill()
    wait_until((tmp_path / "interrupted").exists, "the child notices that its flow process is gone")
    # Every thread of the parent is gone, and so is the group's leader told by everybody who likes to.
    for _ in range(5):
        os.kill(int(pid), signal.SIGINT)
    (tmp_path / "over").touch()
    wait_until(lambda: is_gone(int(pid)), "the child ends")
    assert (tmp_path / "counted").read_text() == "1"


def test_a_child_that_two_threads_interrupt_at_once_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    others: list[threading.Thread] = []

    def timer(*arguments: Any) -> threading.Timer:
        """Have another thread ask in the very moment in which this one is about to say that it has."""
        if not others:
            others.append(threading.Thread(target=child.interrupt))
            others[0].start()
            others[0].join(0.2)
        return as_it_is(*arguments)

    def killpg(group: int, number: int) -> None:
        told.append(number)
        as_ever(group, number)

    as_it_is, as_ever = threading.Timer, os.killpg
    with start(PARENT.format(deaf=""), tmp_path) as child:
        next(child.lines())
        monkeypatch.setattr("flows.engine.process.process.threading.Timer", timer)
        monkeypatch.setattr("flows.engine.process.process.os.killpg", killpg)
        child.interrupt()
        others[0].join()
        assert told == [signal.SIGINT]


def test_an_outcome_that_is_reported_while_connections_close_ends_no_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbt.adapters.events.types import ConnectionLeftOpenInCleanup
    from dbt.events.types import LogModelResult
    from dbt_common.events.base_types import EventLevel, msg_from_base_event

    from flows.engine.process.child import IN_DOUBT, _Relay

    def result(name: str) -> Any:
        node_info = {"unique_id": f"model.shop.{name}", "node_name": name, "node_status": "success"}
        return msg_from_base_event(
            LogModelResult(
                description=name, status="SELECT 1", index=1, total=2, execution_time=1, node_info=node_info
            ),
            EventLevel.INFO,
        )

    events = tmp_path / "dbt" / "dbt.log"
    with (tmp_path / "stdout").open("w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        relay = _Relay(str(events), bytes)
        relay(result("before"))
        relay(msg_from_base_event(ConnectionLeftOpenInCleanup(conn_name="model.shop.after")))
        relay(result("after"))
        monkeypatch.undo()
    assert (tmp_path / "stdout").read_bytes() == events.read_bytes()
    first, second = (parse_line(line) for line in events.read_bytes().splitlines())
    assert first and first.node and first.node.status == "success"
    assert second and second.node is None
    assert (second.name, second.unique_id) == (IN_DOUBT, "model.shop.after")


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--no-such-option", 2)])
def test_a_child_does_what_was_registered_for_its_end_and_takes_nothing_apart(
    tmp_path: Path, word: str, code: int
) -> None:
    with start(ENDS.format(child=str(Path(OWN_DBT[-1]).parent), word=word), tmp_path) as child:
        lines = list(child.lines())
        assert child.wait() == code
    assert lines[-1] == b"closed\n"


@pytest.fixture
def crowded_database(postgres_database: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return a database in which two connections are all that dbt may have, so that it can cancel no query."""
    import psycopg2

    role = f"crowded_{uuid4().hex[:8]}"
    with closing(psycopg2.connect(**postgres_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(
            f"create role {role} login password 'none' connection limit 2; create schema authorization {role}"
        )
        try:
            yield {**postgres_database, "user": role, "password": "none"}
        finally:
            cursor.execute(f"drop owned by {role} cascade; drop role {role}")


def test_what_dbt_reports_as_done_after_interrupts_is_in_the_warehouse(
    tmp_path: Path, crowded_database: dict[str, Any]
) -> None:
    import psycopg2

    project, schema = tmp_path / "project", crowded_database["user"]
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text("name: slow\nprofile: slow\nflags: {send_anonymous_usage_stats: false}\n")
    for name in ("one", "two"):
        (project / "models" / f"{name}.sql").write_text(
            "{{ config(materialized='incremental') }}\nselect 1 as id from pg_advisory_xact_lock_shared(4711)"
        )
    output = {"type": "postgres", "schema": schema, "threads": 2, "retries": 0, **crowded_database}
    (tmp_path / "profiles.yml").write_text(json.dumps({"slow": {"target": "dev", "outputs": {"dev": output}}}))
    (tmp_path / "late.py").write_text(LATE.format(child=str(Path(OWN_DBT[-1]).parent)))
    place = Place(project, tmp_path, "slow", tmp_path / "target", tmp_path / "logs")
    argv = [*OWN_DBT[:-1], str(tmp_path / "late.py"), *own_arguments(DbtCommand("run"), place, "dev")[len(OWN_DBT) :]]
    said: list[str] = []
    done: set[str] = set()
    with (
        closing(psycopg2.connect(**{**crowded_database, "user": "postgres"})) as connection,
        connection.cursor() as cursor,
    ):
        connection.autocommit = True
        cursor.execute("select pg_advisory_lock(4711)")

        def waiting() -> int:
            cursor.execute("select count(*) from pg_locks where locktype = 'advisory' and not granted")
            return cursor.fetchone()[0]

        with DbtProcess(argv, ahead_environment({"HOME": str(tmp_path)}), tmp_path) as child:
            for line in child.lines():
                event = parse_line(line)
                assert event
                said.append(event.text)
                if event.node and event.node.status == "success":
                    done.add(event.node.name)
                if event.node and event.node.status == "started" and event.node.name == "two":
                    wait_until(lambda: waiting() == 2, "both queries run")
                    child.interrupt()
                    for _ in range(3):
                        os.killpg(child.pid, signal.SIGINT)
                    cursor.execute("select pg_advisory_unlock(4711)")
            child.wait()
        cursor.execute("select tablename from pg_tables where schemaname = %s", [schema])
        there = {name for (name,) in cursor.fetchall()}
    assert sum("OK created" in text for text in said) == 2, said
    assert not there, "dbt says that they are done, which they are not"
    assert not done, said


def test_ctrl_c_makes_dbt_cancel_its_queries(tmp_path: Path, postgres_database: dict[str, Any]) -> None:
    """The real dbt, while its warehouse works: neither dbt nor the query is there afterwards."""
    import psycopg2

    schema = f"slow_{uuid4().hex[:8]}"
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text("name: slow\nprofile: slow\n")
    (project / "models" / "endless.sql").write_text(
        "{{ config(materialized='table') }}\nselect 1 as id from pg_sleep(3600)"
    )
    output = {"type": "postgres", "schema": schema, "threads": 1, **postgres_database}
    (tmp_path / "profiles.yml").write_text(json.dumps({"slow": {"target": "dev", "outputs": {"dev": output}}}))
    place = Place(project, tmp_path, "slow", tmp_path / "target", tmp_path / "logs")
    environment = ahead_environment({"HOME": str(tmp_path), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"})
    with closing(psycopg2.connect(**postgres_database)) as connection:
        connection.autocommit = True

        def queries() -> int:
            with connection.cursor() as cursor:
                cursor.execute(
                    "select count(*) from pg_stat_activity where datname = current_database()"
                    " and query like %s and pid <> pg_backend_pid() and state = 'active'",
                    [f"%{schema}%pg_sleep%"],
                )
                (found,) = cursor.fetchone() or (0,)
                return found

        with DbtProcess(own_arguments(DbtCommand("run"), place, "dev"), environment, tmp_path) as child:
            for line in child.lines():
                event = parse_line(line)
                if event and event.node and event.node.status == "started":
                    break
            wait_until(queries, "the query runs")
        assert child.wait() not in (0, -signal.SIGKILL), "it ended itself and was not killed"
        wait_until(lambda: not queries(), "the query is cancelled")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"could not be started in .*nowhere: No such file or directory"):
        start("", tmp_path / "nowhere")
