"""A small disk of a test's own, which can be full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small disk: run as root on Linux")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, left_bytes: int) -> Path:
    """Fill a disk but for so many bytes, and return the file that does."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    # Others may write to it at this moment.
    with suppress(OSError):
        ballast.write_bytes(b"x" * (free - left_bytes))
    return ballast
