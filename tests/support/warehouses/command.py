"""dbt commands as child processes that need not import dbt each time, which is half of a short command's cost."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# The server imports dbt and parses dbt's own macros once; every command is a fork of it, and ends with its own memory,
# locks and connections.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.support.warehouses.warmed_up"])
TIMEOUT_SECONDS = 300


def run_dbt(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run `dbt` with the arguments in the folder, and return its exit code and all that it printed."""
    printed = folder / "printed.txt"
    child = _SERVER.Process(target=_as_dbt, args=(list(arguments), folder, dict(environment), printed))
    child.start()
    child.join(TIMEOUT_SECONDS)
    if child.exitcode is None:
        child.kill()
        child.join()
        raise TimeoutError(f"dbt {' '.join(arguments)} ran for more than {TIMEOUT_SECONDS} s")
    return child.exitcode, printed.read_text(encoding="utf-8")


def _as_dbt(arguments: list[str], folder: Path, environment: dict[str, str], printed: Path) -> None:
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    os.chdir(folder)
    os.environ.update(environment)

    from dbt.cli.main import cli

    cli.main(arguments, prog_name="dbt")
