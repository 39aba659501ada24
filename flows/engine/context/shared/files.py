"""Single files of shared state: ledgers and journals, which only grow, and files that several machines change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flows.engine.context.shared.bucket import Bucket
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.private_files import private_folder, write_whole

COPY_VARIABLE = "TRIBUTARY_STATE_COPY"
PIECE, WHOLE = ".jsonl", ".jsonl.gz"
# Fast, as a run waits for it; a manifest becomes a tenth of its size.
LEVEL = 1
_MERGES = 5

# Of the contents before, here and elsewhere, what holds of both.
Merge = Callable[[bytes | None, bytes, bytes], bytes]


@contextmanager
def writing_copy(folder: Path) -> Iterator[None]:
    """Raise what keeps a working copy from being written inside the block as an error of this project.

    Raises:
        ConfigError: the disk is full, or the folder can't be written.
    """
    try:
        yield
    except OSError as exc:
        raise ConfigError(
            f"The working copy of the state in {folder} can't be written: {exc.strerror}. Free some space or choose "
            f"another folder with {COPY_VARIABLE}, then run again."
        ) from exc


class SharedLedger:
    """A file that one process adds to, such as the ledger of a run: sent piece by piece, and whole at the end."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._name = name
        self.sent = 0
        self._pieces: list[str] = []

    def send(self, lines: bytes) -> None:
        """Send the next lines.

        Raises:
            TributaryError: see `Bucket`; the same lines, or more, can be sent again.
        """
        name = f"{self._name}/{self.sent:012d}{PIECE}"
        self._pieces.append(name)
        if not self._bucket.create(name, lines):
            # An earlier try whose answer was lost did arrive.
            lines = self._bucket.read(name) or b""
        self.sent += len(lines)

    def send_whole(self, text: bytes) -> None:
        """Send all of it, in place of the pieces; see `send` for the errors."""
        self._bucket.write(f"{self._name}{WHOLE}", compressed(text))
        pieces = self._pieces or list(self._bucket.sizes(self._name))
        self._bucket.remove(dict.fromkeys(pieces))

    def fetch(self) -> bytes:
        """Return what is there of it, from its beginning on and without a gap; see `send` for the errors."""
        whole = self._bucket.read(f"{self._name}{WHOLE}")
        if whole is not None:
            return decompressed(whole)
        return joined(self._bucket.read_all(self._bucket.sizes(self._name)))


class SharedFile:
    """One file that several machines change: each change is merged with those of others."""

    def __init__(self, bucket: Bucket, path: Path, name: str, merge: Merge) -> None:
        self._bucket = bucket
        self._path = path
        self._base = path.with_suffix(".base")
        self._name = name
        self._merge = merge
        self._tag: str | None = None

    def fetch(self) -> None:
        """Bring the file to what is elsewhere; what was changed here and not sent yet is merged with that.

        Raises:
            TributaryError: see `Bucket`.
        """
        found = self._bucket.read_tagged(self._name)
        self._tag = found[1] if found else None
        if found is None:
            self._base.unlink(missing_ok=True)
            return
        theirs = found[0]
        ours, base = content_of(self._path), content_of(self._base)
        is_as_sent = ours is None or ours in (base, theirs)
        text = theirs if is_as_sent or ours is None else self._merge(base, ours, theirs)
        private_folder(self._path.parent)
        if text != ours:
            write_whole(self._path, text)
        if theirs != base:
            write_whole(self._base, theirs)

    def send(self) -> None:
        """Send the file where it was changed, after a `fetch`.

        Raises:
            TributaryError: see `Bucket`.
        """
        for _ in range(_MERGES):
            ours = content_of(self._path)
            if ours is None or ours == content_of(self._base):
                return
            if self._bucket.replace(self._name, ours, self._tag):
                write_whole(self._base, ours)
                return
            self.fetch()
        raise UpstreamUnavailable(f"{self._bucket.url}/{self._name} is changed by others all the time.")


def joined(pieces: Mapping[str, bytes]) -> bytes:
    """Return what pieces are together from the beginning on, as far as there is no gap."""
    text = b""
    for name in sorted(pieces):
        if _offset(name) == len(text):
            text += pieces[name]
    return text


def contiguous(pieces: Mapping[str, int]) -> int:
    """Return how many bytes there are from the beginning on without a gap, of pieces of these sizes."""
    total = 0
    for name in sorted(pieces):
        if _offset(name) == total:
            total += pieces[name]
    return total


def _offset(name: str) -> int:
    digits = name.rpartition("/")[2].removesuffix(PIECE)
    return int(digits) if digits.isdigit() else -1


def compressed(content: bytes) -> bytes:
    """Return a content as it is stored."""
    import gzip

    return gzip.compress(content, LEVEL, mtime=0)


def decompressed(content: bytes) -> bytes:
    """Return what was stored."""
    import gzip

    return gzip.decompress(content)


def content_of(path: Path) -> bytes | None:
    """Return a file; None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
