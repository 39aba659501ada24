"""Write files and folders for this user alone: they hold deliveries, incidents, addresses, SQL and rows of data."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def private_folder(folder: Path, within: Path | None = None) -> Path:
    """Create a folder and its missing parents for this user alone; return it.

    The mode of a folder that exists stays as it is.

    Args:
        within: a folder whose subfolders are all ours: open ones of an older version are made private.

    Raises:
        OSError: it can't be made.
    """
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            path.mkdir(FOLDER_MODE, exist_ok=True)
        elif within and within in path.parents:
            shut(path)
    folder.mkdir(FOLDER_MODE, exist_ok=True)
    return folder


def opener(path: str, flags: int) -> int:
    """Open a file, created for this user alone: `open(path, "ab", opener=opener)`."""
    return os.open(path, flags, FILE_MODE)


def write_whole(path: Path, content: bytes, keeps_mode: bool = False) -> None:
    """Write a file for this user alone, whole or not at all.

    Args:
        keeps_mode: keep the mode of an existing file: for reports, which users may have shared on purpose.

    Raises:
        OSError: it can't be written.
    """
    draft = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    try:
        with open(draft, "wb", opener=opener) as file:
            file.write(content)
            if keeps_mode and path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def shut(path: Path) -> None:
    """Remove the access of all other users to a file or folder."""
    found = path.stat()
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        with suppress(OSError):  # Some file systems of containers have no modes.
            path.chmod(found.st_mode & 0o700)
