"""Tributary's own environment with an older dbt and with a newer Python: whole runs in each, one killed among them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
# What these tests import beside what Tributary needs: all that the others do is twice as much to have.
_FOR_TESTS = ("psutil", "pytest", "pytest-xdist")


def interpreter(version: str) -> str:
    """Return a Python that is installed beside the one of these tests, or what uv is to look for."""
    found = sorted(Path(sys.base_prefix).parent.glob(f"*{version}.*/bin/python{version}"))
    return str(found[-1]) if found else version


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "dbt"), [("3.11", "dbt-core<1.12"), ("3.13", "dbt-core>=1.12")], ids=["dbt 1.11", "Python 3.13"]
)
def test_the_own_dbt_runs_in_another_environment(python: str, dbt: str, tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on the PATH, which makes the environment")
    program = tmp_path / "env" / "bin" / "python"
    for make in (
        ["venv", "--quiet", "--no-python-downloads", "--python", interpreter(python), str(tmp_path / "env")],
        ["pip", "install", "--quiet", "--python", str(program), "-r", "pyproject.toml", *_FOR_TESTS, dbt],
    ):
        made = subprocess.run([uv, *make], cwd=ROOT, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"uv can't make an environment with Python {python} and {dbt} here: {made.stderr[-300:]}")
    tests = [str(Path(__file__).with_name("test_engines.py")), "-k", "own and (every_node or killed)"]
    done = subprocess.run(
        [program, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "TRIBUTARY_TEST_SLOW": "1"},
        capture_output=True,
        text=True,
    )
    assert "2 passed" in done.stdout, done.stdout[-5000:]
