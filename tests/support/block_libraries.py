"""The environment that has Prefect's own block classes: the extras of the warehouses and `blocks`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from infrastructure.workspace import ROOT

PYTHON_VARIABLE = "TRIBUTARY_TEST_BLOCKS_PYTHON"
# What a program prints first, so that an environment that could not be made is told from a failure in that program.
READY = "the libraries' environment is there"


def run_with_libraries(
    module: str, environment: Mapping[str, str], asked: str = "", folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a module where the libraries are, and return what it said; skip the test where uv can't install them."""
    # The programs that run there import this module, and have no pytest.
    import pytest

    run = subprocess.run(
        [*_interpreter(), "-m", module],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        input=asked,
        capture_output=True,
        text=True,
        timeout=580,
    )
    if READY not in run.stdout and PYTHON_VARIABLE not in os.environ:
        pytest.skip(f"uv cannot make the environment of the extras here: {run.stderr.strip()[-300:]}")
    return run


def _interpreter() -> list[str]:
    import pytest

    if python := os.environ.get(PYTHON_VARIABLE):
        return [python]
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip(f"uv is not on the path; or set {PYTHON_VARIABLE} to a Python with the extra `blocks`")
    extras = [word for name in ("postgres", "snowflake", "bigquery", "blocks") for word in ("--extra", name)]
    return [uv, "run", "--isolated", "--no-default-groups", "--project", str(ROOT), *extras, "python"]
