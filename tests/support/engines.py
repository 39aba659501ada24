"""The versions of dbt for a test: each in an environment of its own, or a reason why it is not here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.engines import Engine, EngineMissing, have

# dbt 1 of another environment begins cold each time, which takes 3 s of a processor. That it is run at all is seen by
# the fast tests (flows/engine/test_dbt_1_12.py, and dbt 2 in each test that takes these), all else by the slow ones.
OTHER_ENGINES = (pytest.param("1.12", marks=pytest.mark.slow), "2")


def engine_or_skip(name: str) -> Engine:
    """Return a dbt, after it was installed where that was not done yet; skip the test where it can't be had."""
    try:
        return have(name)
    except EngineMissing as exc:
        pytest.skip(str(exc))


def run_engine(
    engine: Engine,
    *arguments: str | os.PathLike[str],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a dbt with these arguments, and return what it said, whatever came of it."""
    argv: Sequence[str | os.PathLike[str]] = [engine.program, *arguments]
    given = {**os.environ, **engine.environment, "PYTHONUTF8": "1", **(environment or {})}
    return subprocess.run(argv, env=given, cwd=folder, capture_output=True, text=True, timeout=300)
