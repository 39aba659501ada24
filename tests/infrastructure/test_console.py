"""What an entry point leaves behind when it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# As `flows health` ends: a check has failed with a connection open, and a thread of Prefect holds the error.
FAILING = """
import sys, threading, time
import duckdb
from infrastructure.console import let_go

def check():
    connection = duckdb.connect(":memory:")
    raise LookupError("found nothing")

def judge():
    try:
        check()
    except LookupError as exc:
        raise ValueError("unhealthy") from exc

try:
    judge()
except ValueError as exc:
    threading.Thread(target=lambda held: time.sleep(600), args=(exc,), daemon=True).start()
    LET_GO
sys.exit(1)
"""


@pytest.mark.parametrize(("let_go", "is_said"), [("let_go(exc)", False), ("pass", True)])
def test_a_command_that_finds_something_wrong_ends_with_its_own_words_alone(let_go: str, is_said: bool) -> None:
    """`flows health` ended in a page of "nanobind: leaked 28 instances"."""
    code = FAILING.replace("LET_GO", let_go)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.returncode == 1
    assert ("nanobind" in ended.stderr) is is_said, ended.stderr
