"""Provide keys as files in memory, under a path that this process and its children can open.

The kernel drops such a file with the process that created it, however it ends, and it is never on a disk.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

# One file per key, for as long as this process lives: a flow starts dbt many times.
_files: dict[str, int | Path] = {}


def path_of_key(text: str) -> str:
    """Return the path of a file with this text that only this user can read."""
    known_as = hashlib.sha256(text.encode()).hexdigest()
    if known_as not in _files:
        _files[known_as] = _in_memory(text) if hasattr(os, "memfd_create") else _on_disk(text)
    file = _files[known_as]
    # By the number of this process: dbt started ahead of time has not inherited the file.
    return f"/proc/{os.getpid()}/fd/{file}" if isinstance(file, int) else str(file)


def _in_memory(text: str) -> int:
    file = os.memfd_create("key", os.MFD_CLOEXEC)
    # libpq refuses a key that others could read.
    os.fchmod(file, 0o600)
    os.write(file, text.encode())
    return file


def _on_disk(text: str) -> Path:
    """Write a private file where files in memory do not exist, such as on macOS; it is deleted at exit."""
    descriptor, name = tempfile.mkstemp(prefix="tributary-key-", dir=os.environ.get("XDG_RUNTIME_DIR"))
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    path = Path(name)
    atexit.register(_remove, path)
    return path


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
