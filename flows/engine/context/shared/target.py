"""What machines share of one project on one target: fetched into the working copy, and sent from there.

Below `<project>/<target>/`:

    head.json                one small document that names what is in force; replaced on condition that it is unchanged
    last_good/….tgz          the last good state, under a name of its own each time
    parsed/….gz              dbt's partial parse
    ledger/<run>/….jsonl     the ledger of a run that goes on, in pieces named by where they begin
    ledger/<run>.jsonl.gz    the same once the run is over, whole

What is known of a run elsewhere is a beginning of its ledger. So a run that was cut off looks as if that had happened
a few seconds sooner: what it did since is done again, and nothing counts as done that is not.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows.engine.context.reporting import current_reporter
from flows.engine.context.shared.bucket import Bucket
from flows.engine.context.shared.files import (
    LEVEL,
    WHOLE,
    SharedLedger,
    compressed,
    content_of,
    contiguous,
    decompressed,
    joined,
    writing_copy,
)
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.private_files import opener, private_folder, write_whole

if TYPE_CHECKING:
    from tarfile import TarInfo

# The version of head.json and of what it names; another one is not read.
FORMAT = 1
HEAD = "head.json"
_LEDGERS = "ledger"
_LAST_GOOD, _PARSED = "last_good", "parsed"
# In the working copy: what is in force elsewhere of what is here, and the lock of the process that changes that.
_KNOWN, _LOCK = ".shared.json", ".shared.lock"
# Where a run goes that only this machine knows, once another machine has gone on without it.
_APART = "unshared"


@dataclass(frozen=True)
class Names:
    """The names of the files that are shared, in the folder of a project on a target."""

    ledger: str
    last_good: str
    parsed: str
    kept_runs: int


@dataclass
class _Known:
    """What the working copy of a target has of what is in force elsewhere.

    Attributes:
        last_good, parsed: the objects that the files here came from or went to.
        stamp: size and time of the partial parse when it was last sent or fetched.
        whole: names of the runs whose ledger is whole here and there.
    """

    last_good: str = ""
    parsed: str = ""
    stamp: list[int] = field(default_factory=list[int])
    whole: list[str] = field(default_factory=list[str])


class SharedTarget:
    """What is shared of one project on one target.

    Args:
        root: of the working copy.
        say: says something to a person that is found out several times.
    """

    def __init__(self, bucket: Bucket, root: Path, folder: Path, names: Names, say: Callable[[str], None]) -> None:
        self._bucket = bucket
        self._folder = folder
        self._names = names
        self._say = say
        self._prefix = folder.relative_to(root).as_posix()

    @property
    def url(self) -> str:
        """Return the address of it all."""
        return self._bucket.url

    def fetch(self) -> None:
        """Bring the working copy to what is in force elsewhere; nothing is written there.

        Raises:
            TributaryError: see `Bucket`.
        """
        with self._locked():
            known = self._known()
            head = self._head()[0]
            self._fetch_last_good(head, known)
            self._fetch_parse(head, known)
            self._fetch_ledgers(known)
            self._write_known(known)

    def send_unsent(self) -> None:
        """Send what an earlier run of this machine could not: its ledger, where no other run came after it.

        Raises:
            TributaryError: see `Bucket`.
        """
        with self._locked():
            known = self._known()
            elsewhere = self._runs_elsewhere()
            for run in sorted(self._ledgers_here().keys() - set(known.whole)):
                if run >= max(elsewhere, default=""):
                    path = self._folder / "runs" / run / self._names.ledger
                    SharedLedger(self._bucket, f"{self._prefix}/{_LEDGERS}/{run}").send_whole(path.read_bytes())
                    known.whole.append(run)
            self._write_known(known)

    def ledger(self, run: str) -> SharedLedger:
        """Return the ledger of a run, to be sent."""
        return SharedLedger(self._bucket, f"{self._prefix}/{_LEDGERS}/{run}")

    def keep(self, run: str) -> None:
        """Send what a run that is over has left: the last good state and dbt's partial parse.

        Raises:
            TributaryError: see `Bucket`.
        """
        with self._locked():
            known = self._known()
            if (self._folder / "runs" / run).exists():
                known.whole.append(run)
            head, tag = self._head()
            before = dict(head or {})
            new = self._new_objects(run, known)
            if new:
                for name, content in new.values():
                    self._bucket.write(f"{self._prefix}/{name}", content)
                now = {"format": FORMAT, "run": run, "before": {key: before.get(key) for key in new}}
                document = json.dumps({**before, **now, **{key: name for key, (name, _) in new.items()}})
                if not self._bucket.replace(f"{self._prefix}/{HEAD}", document.encode(), tag):
                    self._bucket.remove([f"{self._prefix}/{name}" for name, _ in new.values()])
                    raise UpstreamUnavailable(
                        f"another run has written to {self._bucket.url}/{self._prefix} meanwhile, and its last good "
                        "state stands"
                    )
                known.last_good = new[_LAST_GOOD][0] if _LAST_GOOD in new else known.last_good
                known.parsed = new[_PARSED][0] if _PARSED in new else known.parsed
            self._write_known(known)
            self._clean(before)

    def _new_objects(self, run: str, known: _Known) -> dict[str, tuple[str, bytes]]:
        new: dict[str, tuple[str, bytes]] = {}
        folders = self._states()
        if folders and f"/{folders[-1].name}-" not in known.last_good:
            new[_LAST_GOOD] = f"{_LAST_GOOD}/{folders[-1].name}-{run}.tgz", _packed(folders[-1])
        parsed = self._folder / self._names.parsed
        if parsed.exists() and (stamp := _stamp(parsed)) != known.stamp:
            new[_PARSED] = f"{_PARSED}/{run}.gz", compressed(parsed.read_bytes())
            known.stamp = stamp
        return new

    def _clean(self, before: Mapping[str, Any]) -> None:
        """Remove what no reader takes any more: what was replaced before the last time, and the oldest runs."""
        older = cast(dict[str, str | None], before.get("before") or {})
        doomed = [f"{self._prefix}/{name}" for name in older.values() if name]
        elsewhere = self._runs_elsewhere()
        for run in sorted(elsewhere)[: -self._names.kept_runs]:
            doomed += elsewhere[run]
        self._bucket.remove(doomed)

    def _head(self) -> tuple[dict[str, Any] | None, str | None]:
        """Return head.json and its tag; None for a document that can't be read by this version."""
        found = self._bucket.read_tagged(f"{self._prefix}/{HEAD}")
        if found is None:
            return None, None
        content, tag = found
        try:
            head = cast(dict[str, Any], json.loads(content))
            if head["format"] == FORMAT:
                return head, tag
            said = f"is of format {head['format']}, and this version reads {FORMAT}"
        except (ValueError, LookupError, TypeError):
            said = "can't be read"
        self._say(
            f"{self._bucket.url}/{self._prefix}/{HEAD} {said}: the last good state begins anew with the next run."
        )
        return None, tag

    def _fetch_last_good(self, head: Mapping[str, Any] | None, known: _Known) -> None:
        name = str((head or {}).get(_LAST_GOOD) or "")
        if not name or (name == known.last_good and self._states()):
            return
        content = self._bucket.read(f"{self._prefix}/{name}")
        if content is None:
            raise UpstreamUnavailable(
                f"The last good state {self._bucket.url}/{self._prefix}/{name} is gone: a run that ended at this "
                "moment has replaced it, or it was deleted. Try again."
            )
        import tarfile

        home = self._folder / self._names.last_good
        draft = private_folder(home / f".draft-{os.getpid()}")
        try:
            with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as archive:
                archive.extractall(draft, filter="data")
            for old in self._states():
                shutil.rmtree(old, ignore_errors=True)
            draft.rename(home / name.rpartition("/")[2].partition("-")[0])
        except (tarfile.TarError, EOFError, OSError) as exc:
            raise ConfigError(
                f"The last good state {self._bucket.url}/{self._prefix}/{name} can't be unpacked to {home}: {exc}"
            ) from exc
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        known.last_good = name

    def _fetch_parse(self, head: Mapping[str, Any] | None, known: _Known) -> None:
        name, path = str((head or {}).get(_PARSED) or ""), self._folder / self._names.parsed
        # One's own is as good; dbt looks at what has changed since, and takes none of another version.
        if not name or path.exists():
            return
        content = self._bucket.read(f"{self._prefix}/{name}")
        if content is not None:
            private_folder(path.parent)
            write_whole(path, decompressed(content))
            known.parsed, known.stamp = name, _stamp(path)

    def _fetch_ledgers(self, known: _Known) -> None:
        elsewhere, here = self._runs_elsewhere(), self._ledgers_here()
        newest = max(elsewhere, default="")
        wanted: dict[str, list[str]] = {}
        for run in sorted(elsewhere.keys() | here.keys())[-self._names.kept_runs :]:
            if run in known.whole and run in here:
                continue
            objects, size_here = elsewhere.get(run, {}), here.get(run, -1)
            whole = [name for name in objects if name.endswith(WHOLE)]
            size = contiguous(objects)
            if not whole and size_here > size and run < newest:
                self._put_apart(run)
                size_here = -1
            if whole or size > max(size_here, 0):
                wanted[run] = whole or sorted(objects)
        contents = self._bucket.read_all([name for names in wanted.values() for name in names])
        for run, names in wanted.items():
            self._write_ledger(run, names, contents)
            known.whole += [run] if names[0].endswith(WHOLE) else []

    def _write_ledger(self, run: str, names: list[str], contents: Mapping[str, bytes]) -> None:
        there = {name: contents[name] for name in names if name in contents}
        whole = next((content for name, content in there.items() if name.endswith(WHOLE)), None)
        text = joined(there) if whole is None else decompressed(whole)
        path = self._folder / "runs" / run / self._names.ledger
        if text and content_of(path) != text:
            private_folder(path.parent)
            write_whole(path, text)

    def _put_apart(self, run: str) -> None:
        """Set a run aside of which this machine knows more than others, which have gone on without that."""
        apart = private_folder(self._folder / _APART)
        shutil.rmtree(apart / run, ignore_errors=True)
        (self._folder / "runs" / run).rename(apart / run)
        current_reporter().note(
            f"Other machines have run since {run.partition('.')[0]}, without what only this one knows of it: what "
            f"stands in {self._bucket.url} counts. The record of this machine is in {apart / run}."
        )

    def _runs_elsewhere(self) -> dict[str, dict[str, int]]:
        """Return the names and sizes of the objects of each run's ledger."""
        runs: dict[str, dict[str, int]] = {}
        folder = f"{self._prefix}/{_LEDGERS}/"
        for name, size in self._bucket.sizes(folder.rstrip("/")).items():
            run = name.removeprefix(folder).partition("/")[0].removesuffix(WHOLE)
            runs.setdefault(run, {})[name] = size
        return runs

    def _ledgers_here(self) -> dict[str, int]:
        found = (self._folder / "runs").glob(f"*/{self._names.ledger}")
        return {path.parent.name: path.stat().st_size for path in found}

    def _states(self) -> list[Path]:
        home = self._folder / self._names.last_good
        return sorted(path for path in home.iterdir() if path.name.isdigit()) if home.is_dir() else []

    def _known(self) -> _Known:
        try:
            return _Known(**json.loads((self._folder / _KNOWN).read_bytes()))
        except (OSError, ValueError, TypeError):
            return _Known()

    def _write_known(self, known: _Known) -> None:
        known.whole = sorted(set(known.whole))[-2 * self._names.kept_runs :]
        write_whole(self._folder / _KNOWN, json.dumps(vars(known)).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes of this machine from the same files for the time of the block."""
        with writing_copy(self._folder):
            private_folder(self._folder)
            with open(self._folder / _LOCK, "ab", opener=opener) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield


def _packed(folder: Path) -> bytes:
    import tarfile

    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=LEVEL) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=_without_owner)
    return content.getvalue()


def _without_owner(about: TarInfo) -> TarInfo:
    about.uid = about.gid = 0
    about.uname = about.gname = ""
    about.mode = 0o600
    return about


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
