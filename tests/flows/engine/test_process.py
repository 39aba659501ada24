"""Child processes, which must end when they are told to and leave nothing behind."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from flows.engine.environment import ahead_environment
from flows.engine.process import DbtProcess
from infrastructure.errors import ConfigError
from tests.conftest import wait_until

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
DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN)"


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


def test_ctrl_c_makes_dbt_cancel_its_queries(tmp_path: Path, postgres_database: dict[str, Any]) -> None:
    """The real dbt, while its warehouse works: neither dbt nor the query is there afterwards."""
    import psycopg2

    from flows.engine.command import DbtCommand, Place, arguments
    from flows.engine.events import parse_line

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

        with DbtProcess(arguments(DbtCommand("run"), place, "dev"), environment, tmp_path) as child:
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
