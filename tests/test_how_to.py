"""docs/how-to.md, done as it stands: its files written, its commands given, in a clone of this repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT, logical_lines

pytestmark = pytest.mark.slow

# A file to write or to add to, or a block of commands.
_STEP = re.compile(
    r'(?:<!-- (?:write (?P<file>\S+)|put after "(?P<after>[^"]+)" in (?P<in>\S+)) -->\n)?```(\w+)\n(?P<body>.*?)^```$',
    re.M | re.S,
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what git knows of, as it is here, and with its history, which the loader of commits reads."""
    folder = tmp_path_factory.mktemp("how-to") / "tributary"
    subprocess.run(["git", "clone", "-q", "--depth", "20", f"file://{ROOT}", str(folder)], check=True)
    known = subprocess.run(
        ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    )
    for name in filter(None, known.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "data").mkdir(exist_ok=True)
    return folder


def test_every_step_can_be_done_as_it_stands(clone: Path, prefect_server: str) -> None:
    # This environment's packages, not a second installation of them.
    environment = {**os.environ, "UV_NO_SYNC": "1", "UV_PROJECT_ENVIRONMENT": sys.prefix}
    environment |= {"PREFECT_API_URL": prefect_server, "TRIBUTARY_STATE": str(clone / ".tributary")}
    # It has the place of this checkout for `tributary`; that of the copy comes first.
    environment["PYTHONPATH"] = str(clone)
    printed = ""
    for step in _STEP.finditer((ROOT / "docs" / "how-to.md").read_text()):
        if step["file"]:
            path = clone / step["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step["body"])
        elif step["in"]:
            path = clone / step["in"]
            before, found, after = path.read_text().partition(f"\n{step['after']}\n")
            assert found, f"{step['in']} has no line {step['after']}"
            path.write_text(before + found + step["body"] + after)
        else:
            for command in logical_lines(step["body"]):
                done = subprocess.run(
                    ["bash", "-c", command], cwd=clone, env=environment, capture_output=True, text=True
                )
                assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
                printed += done.stdout + done.stderr
    assert "dim_accounts" in printed
    assert "accounts-hourly" in printed
