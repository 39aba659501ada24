"""Read the commits of a git repository as a stream that no text in a commit can confuse."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, cast

from infrastructure.git.process import GitFailed, git_command, git_environment
from infrastructure.git.repository import Repository, local_error

CHUNK_BYTES = 1 << 20
EPOCH = datetime(1970, 1, 1)
LAST_SECOND = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())

# Names and addresses as .mailmap has them, as `git shortlog -sne` does.
IDENTITY_FIELDS = ("%H", "%aN", "%aE", "%cN", "%cE")
COMMIT_FIELDS = ("%H", "%P", "%aN", "%aE", "%at", "%cN", "%cE", "%ct", "%B")

Identity = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit; times are naive UTC, None where git or Python cannot read the date."""

    hash: str
    parent_count: int
    author_name: str
    author_email: str
    authored_at: datetime | None
    committer_name: str
    committer_email: str
    committed_at: datetime | None
    message: str
    files_changed: int
    insertions: int
    deletions: int

    @property
    def identity(self) -> Identity:
        """Return its author and committer."""
        return self.author_name, self.author_email, self.committer_name, self.committer_email


def read_identities(repository: Repository) -> Iterator[tuple[str, Identity]]:
    """Read hash, author and committer of every commit that HEAD reaches.

    Raises:
        ConfigError: git cannot read the repository to its end.
    """
    for fields in _read(repository, IDENTITY_FIELDS, []):
        commit_hash, author, author_email, committer, committer_email = map(decoded, fields[:5])
        yield commit_hash, (author, author_email, committer, committer_email)


def read_commits(repository: Repository, hashes: Sequence[str] | None = None) -> Iterator[Commit]:
    """Read commits with their changed lines: those named, or with None all that HEAD reaches.

    Lines are counted as `git log --shortstat` does: a merge has none, a binary file counts as changed.

    Raises:
        ConfigError: git cannot read the repository to its end.
    """
    for fields in _read(repository, COMMIT_FIELDS, ["--numstat", "--no-ext-diff", "--no-textconv"], hashes):
        files, insertions, deletions = count_lines(fields[9])
        yield Commit(
            hash=decoded(fields[0]),
            parent_count=len(fields[1].split()),
            author_name=decoded(fields[2]),
            author_email=decoded(fields[3]),
            authored_at=utc_time(fields[4]),
            committer_name=decoded(fields[5]),
            committer_email=decoded(fields[6]),
            committed_at=utc_time(fields[7]),
            message=decoded(fields[8]).rstrip("\n"),
            files_changed=files,
            insertions=insertions,
            deletions=deletions,
        )


def split_records(chunks: Iterable[bytes], separator: bytes, width: int) -> Iterator[list[bytes]]:
    """Cut a byte stream, which begins with a separator, into records of `width` parts each."""
    rest = b""
    parts: list[bytes] = []
    is_first = True
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(separator)
        parts.extend(whole)
        if is_first and parts:
            del parts[0]
            is_first = False
        complete = len(parts) - len(parts) % width
        for start in range(0, complete, width):
            yield parts[start : start + width]
        del parts[:complete]
    if not is_first:
        parts.append(rest)
    if len(parts) == width:
        yield parts


def count_lines(numstat: bytes) -> tuple[int, int, int]:
    """Return the files, inserted lines and deleted lines of a commit from --numstat -z."""
    files = insertions = deletions = 0
    entries = iter(numstat.strip(b"\n\0").split(b"\0") if len(numstat) > 1 else ())
    for entry in entries:
        inserted, deleted, path = entry.lstrip(b"\n").split(b"\t", 2)
        if not path:  # a renamed file: its old and its new path follow
            next(entries, None)
            next(entries, None)
        files += 1
        if inserted != b"-":  # a binary file has no lines
            insertions += int(inserted)
            deletions += int(deleted)
    return files, insertions, deletions


def decoded(text: bytes) -> str:
    """Decode git's output; NUL and invalid UTF-8 become U+FFFD, a name that git cannot read becomes empty."""
    value = text.decode("utf-8", errors="replace").replace("\0", "\ufffd")
    # git prints the placeholder itself where a commit's author line cannot be read.
    return "" if value in IDENTITY_FIELDS else value


def utc_time(seconds: bytes) -> datetime | None:
    """Turn git's seconds since 1970 into a naive UTC time; None for a date that Python cannot represent."""
    if not seconds.isdigit() or int(seconds) > LAST_SECOND:
        return None
    return EPOCH + timedelta(seconds=int(seconds))


def _read(
    repository: Repository, fields: Sequence[str], options: Sequence[str], hashes: Sequence[str] | None = None
) -> Iterator[list[bytes]]:
    if repository.head_hash is None or (hashes is not None and not hashes):
        return
    # A message may contain any byte, so the separator is random for every call: no commit can contain it.
    separator = secrets.token_hex(8)
    form = separator + separator.join(fields) + separator
    which = [repository.head_hash] if hashes is None else ["--no-walk=unsorted", "--stdin"]
    command = git_command(
        [*repository.mailmap_options, "log", "-z", f"--format={form}", *options, *which, "--"],
        repository.folder,
    )
    with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as complaints:
        names.writelines(f"{name}\n".encode() for name in hashes or ())
        names.seek(0)
        process = subprocess.Popen(
            command,
            env=git_environment(os.environ),
            stdin=names,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        )
        output = cast(IO[bytes], process.stdout)
        try:
            chunks = iter(lambda: output.read(CHUNK_BYTES), b"")
            yield from split_records(chunks, separator.encode(), len(fields) + 1)
        finally:
            # Also reached when the reader stops early: git ends when its pipe is closed.
            output.close()
            process.wait()
        if process.returncode:
            complaints.seek(0)
            error = GitFailed(complaints.read().decode("utf-8", errors="replace"))
            raise local_error(repository.folder, error) from error
