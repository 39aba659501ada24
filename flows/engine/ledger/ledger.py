"""The run's own record: every node event is on disk before anything else sees it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import orjson

from flows.engine.artifacts.results import NodeResult
from flows.engine.context.events import NodeEvent
from flows.engine.context.reporting import current_reporter
from infrastructure.errors import ConfigError
from infrastructure.private_files import private_folder

_TIMES = {"at", "started_at", "finished_at", "window_at"}
_CHUNK_BYTES = 1_000_000


# The attempt of a node that an earlier run finished, and that the run which resumed it only wrote down again.
TAKEN_OVER = 0
# The kind of the entry that says of which nodes the outcome so far counts no more: what they read is built again.
TAKEN_BACK = "taken back"


class _AppendedFile:
    """A file that is only ever added to, each time in a single write, so that a kill loses at most the last one.

    A deleted file can still be written to, but can't be found: it is created again, with everything that it held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = _open_to_append(path)
        except OSError as exc:
            raise _unwritable(path, exc) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def keep(self) -> None:
        """Create the file again when it was deleted or replaced; any thread may call this.

        Raises:
            ConfigError: it can't be written, or what it held can't be read any more.
        """
        try:
            with self._lock:
                if is_file_at(self._file, self.path):
                    return
                self._make_anew()
        except OSError as exc:
            raise _unwritable(self.path, exc) from exc
        current_reporter().note(f"{self.path} was deleted while it was written to. It is there again, whole.")

    def _write(self, line: bytes) -> None:
        self.keep()
        try:
            written = os.write(self._file, line)
        except OSError as exc:
            raise _unwritable(self.path, exc) from exc
        if written != len(line):
            raise _unwritable(self.path, OSError(28, "No space left on device"))

    def _make_anew(self) -> None:
        private_folder(self.path.parent)
        # It gets its name when it is whole: a kill in between must not leave half a record that looks like one.
        draft = self.path.with_suffix(f".{os.getpid()}")
        draft.unlink(missing_ok=True)
        file = _open_to_append(draft)
        try:
            position = 0
            while held := os.pread(self._file, _CHUNK_BYTES, position):
                while held:
                    written = os.write(file, held)
                    position, held = position + written, held[written:]
            draft.replace(self.path)
        except OSError:
            os.close(file)
            draft.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file = file

    def sync(self) -> None:
        """Have the system put what was written so far onto the disk, where a power cut leaves it.

        Raises:
            OSError: the disk fails.
        """
        with self._lock:
            file = os.dup(self._file)
        try:
            # Not under the lock: a disk can take a second for it, and dbt's lines must not wait.
            os.fsync(file)
        finally:
            os.close(file)

    def lines_from(self, position: int) -> bytes:
        """Return the whole lines from a position on, also those of a file that was deleted since."""
        held: list[bytes] = []
        with self._lock:
            while found := os.pread(self._file, _CHUNK_BYTES, position + sum(map(len, held))):
                held.append(found)
        text = b"".join(held)
        return text[: text.rfind(b"\n") + 1]


class TextLog(_AppendedFile):
    """The log of a run that people read."""

    def line(self, text: str) -> None:
        """Add a line; see `Ledger.node` for the errors."""
        self._write(f"{text}\n".encode("utf-8", "replace"))


class Ledger(_AppendedFile):
    """Every event of a run as one JSON document a line.

    Attributes:
        has_news: set when there is something that a power cut must not take.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.has_news = threading.Event()

    def node(self, event: NodeEvent, attempt: int) -> None:
        """Write down that a node started or ended.

        Raises:
            ConfigError: the disk is full or the file can't be written any more.
        """
        self.append(
            {
                "kind": "node",
                "attempt": attempt,
                "event": event,
            }
        )

    def learned(self, nodes: Iterable[NodeResult]) -> None:
        """Write down what only the end of a dbt command says of nodes; see `node` for the errors."""
        said = {
            node.unique_id: ({"message": node.message} if node.message else {})
            | ({"response": dict(node.adapter_response)} if node.adapter_response else {})
            for node in nodes
        }
        self.append({"kind": "learned", "at": datetime.now(UTC), "nodes": said})

    def reused(self, reasons: Mapping[str, str]) -> None:
        """Write down which nodes are left as they are, and why; see `node` for the errors."""
        if reasons:
            self.append({"kind": "reused", "nodes": reasons})

    def take_back(self, unique_ids: Iterable[str]) -> None:
        """Write down that nodes have to run once more, whatever came of them; see `node` for the errors."""
        if nodes := sorted(unique_ids):
            self.append({"kind": TAKEN_BACK, "at": datetime.now(UTC), "nodes": nodes})

    def append(self, entry: dict[str, Any]) -> None:
        """Write one entry down; see `node` for the errors."""
        self._write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
        self.has_news.set()


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a ledger; a line that cannot be read, such as a last one that was cut off, is left out."""
    with path.open("rb") as lines:
        for line in lines:
            entry = entry_of(line)
            if entry is not None:
                yield entry


def node_events(entries: Iterable[Mapping[str, Any]], *, taken_over: bool = True) -> list[NodeEvent]:
    """Return what a ledger says of nodes.

    Args:
        taken_over: also what an earlier run had finished.
    """
    return [
        NodeEvent(**entry["event"])
        for entry in entries
        if entry.get("kind") == "node" and (taken_over or entry.get("attempt") != TAKEN_OVER)
    ]


def taken_back(entries: Iterable[Mapping[str, Any]]) -> dict[str, datetime]:
    """Return since when the outcome of a node counts no more, by unique id."""
    return {key: entry["at"] for entry in entries if entry.get("kind") == TAKEN_BACK for key in entry["nodes"]}


def is_damaged(path: Path) -> bool:
    """Say whether a ledger has lines, other than a last one that was cut off, that cannot be read."""
    with path.open("rb") as lines:
        return any(line.endswith(b"\n") and entry_of(line) is None for line in lines)


def entry_of(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line; None for one that cannot be read, such as a last one that was cut off."""
    try:
        entry = orjson.loads(line)
        for document in (entry, entry.get("event") or {}):
            for key in _TIMES & document.keys():
                document[key] = datetime.fromisoformat(document[key]) if document[key] else None
        if entry.get("kind") == "node":
            NodeEvent(**entry["event"])
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return cast(dict[str, Any], entry)


def is_file_at(file: int, path: Path) -> bool:
    """Say whether an open file is still the one that is found at a path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _open_to_append(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)


def _unwritable(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"The record of this run can't be written to {path}: {exc.strerror}. "
        "Free some space or choose another folder with TRIBUTARY_STATE, then run again."
    )
