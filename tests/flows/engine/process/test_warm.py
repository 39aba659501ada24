"""Children that import dbt ahead of time and are told later what to run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.engine.process.engines import OWN_DBT
from flows.engine.process.environment import ahead_environment
from flows.engine.process.process import DbtProcess, dbt_ahead
from flows.engine.process.warm import Standby
from tests.support.processes import wait_until

# How a child starts is what these tests are about.
pytestmark = pytest.mark.usefixtures("cold_children")

# What child.py does before it hands over to dbt.
WAITS = "import child, os; child._wait_for_the_command(int(os.environ[child.CONTROL_VARIABLE]))"


# Children that this process had before a test: the tests of other files leave some, of which nothing can be read.
_earlier: set[int] = set()


@pytest.fixture(autouse=True)
def _know_earlier_children() -> None:
    _earlier.clear()
    _earlier.update(child.pid for child in psutil.Process().children())


def children() -> list[psutil.Process]:
    begun = [child for child in psutil.Process().children() if child.pid not in _earlier]
    return [child for child in begun if OWN_DBT[-1] in child.cmdline()]


def the_child() -> psutil.Process:
    """Return the one child that waits, once it is the program that it is to be."""
    wait_until(children, "the child has been started")
    [child] = children()
    return child


def run(arguments: list[str], folder: Path, **environment: str) -> tuple[int, int, str]:
    with DbtProcess([*OWN_DBT, *arguments], {**ahead_environment(os.environ), **environment}, folder) as child:
        text = b"".join(child.lines()).decode()
        return child.pid, child.wait(), text


def test_a_child_that_waits_runs_what_it_is_told_with_the_environment_of_that_moment(tmp_path: Path) -> None:
    with dbt_ahead(1, "duckdb"):
        waiting = the_child()
        pid, code, text = run(["parse", "--log-level", "none"], tmp_path, DBT_PROFILES_DIR=str(tmp_path / "nowhere"))
        assert pid == waiting.pid
    assert code == 2
    assert "nowhere" in text
    assert not children()


def test_what_a_waiting_child_is_told_is_not_in_its_visible_environment(tmp_path: Path) -> None:
    code = "import os, signal; print(os.environ['DBT_ENV_SECRET_WORD'], flush=True); signal.pause()"
    program = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(Path(OWN_DBT[-1]).parent)!r})\n{WAITS}\n{code}",
    ]
    standby = Standby(program, ahead_environment(os.environ), None)
    assert standby.become([], {"DBT_ENV_SECRET_WORD": "mellon"}, tmp_path, [])
    assert standby.process.stdout is not None
    assert standby.process.stdout.readline() == b"mellon\n"
    assert "mellon" not in str(psutil.Process(standby.process.pid).environ())
    standby.close()


def test_a_child_that_died_while_it_waited_is_replaced(tmp_path: Path) -> None:
    with dbt_ahead(1):
        waiting = the_child()
        waiting.kill()
        waiting.wait()
        pid, code, text = run(["--version"], tmp_path)
    assert pid != waiting.pid
    assert code == 0 and "Core:" in text


def test_a_waiting_child_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, psutil\nfrom flows.engine.process.process import dbt_ahead\n"
            "with dbt_ahead(1):\n"
            "    print(psutil.Process().children()[0].pid, flush=True)\n    signal.pause()",
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    waiting = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    wait_until(lambda: not psutil.pid_exists(waiting), "the waiting child to end")
