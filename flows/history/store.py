"""The files of the history, in a folder or a bucket: one per run, older ones merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flows.engine.context.shared.bucket import EXTRAS
from flows.engine.context.state import shared_by, state_root
from flows.history.columns import COLUMNS
from flows.history.rows import Row, utc
from flows.history.views import RUN_KEY, create_views, literal, parquet
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.private_files import private_folder, shut

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from fsspec import AbstractFileSystem

URL_VARIABLE = "TRIBUTARY_HISTORY"
KEPT_DAYS = 400
SEPARATE_HOURS = 24
# How long a file stays after its rows were merged into another: no reader takes longer.
GRACE = timedelta(hours=1)
# Of compressed files. Read, they take about ten times as much memory.
_SMALL_BYTES = 4_000_000
# Sorts after the names of single runs, which begin with a digit: readers take the last file that has a run.
_TOGETHER = "together"


@dataclass(frozen=True)
class Compacted:
    """How many files were found, how many merged files were written, and how many files were removed."""

    found: int
    made: int
    removed: int


class HistoryStore:
    """The Parquet files under one address; every method works on folders and buckets alike.

    Args:
        url: a folder, or an address that fsspec knows, such as s3://bucket/path or gs://bucket/path.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._is_local = "://" not in self.url
        if self._is_local:
            self.url = str(Path(self.url).expanduser().absolute())

    def write(self, rows: Sequence[Row]) -> str:
        """Write the rows of one run to a file of its own, and return its address.

        A reader sees the whole file or none, also when several runs end at the same moment.

        Raises:
            ConfigError: the address can't be written to.
            UpstreamUnavailable: the bucket did not answer.
        """
        run = rows[0]
        folder = f"{self.url}/{_safe(run['project'])}/{_safe(run['target'])}"
        address = f"{folder}/{_safe(run['run_id'])}.parquet"
        with self._connection() as connection:
            _load(connection, rows)
            self._save(connection, "select * from run order by unique_id", address)
        return address

    def files(self) -> list[str]:
        """Return the addresses of all files, sorted."""
        with self.errors():
            if self._is_local:
                return sorted(str(path) for path in Path(self.url).glob("**/*.parquet"))
            protocol = self.url.partition("://")[0]
            found = self._filesystem().find(self.url)
            return sorted(f"{protocol}://{path.lstrip('/')}" for path in found if path.endswith(".parquet"))

    @contextmanager
    def reading(self, project: str | None = None, target: str | None = None) -> Iterator[DuckDBPyConnection]:
        """Yield a connection with the views of `create_views` that can read nothing but the history.

        Args:
            project, target: limit the views to these; all when None.

        Raises:
            ConfigError: the address can't be read.
            UpstreamUnavailable: the bucket did not answer.
        """
        with self._connection() as connection:
            with self.errors():
                # A query may read the history, but no other files of this machine and no other addresses.
                connection.execute(f"set allowed_directories = [{', '.join(map(literal, self._spellings()))}]")
                connection.execute("set enable_external_access = false")
                connection.execute("set lock_configuration = true")
                asked = {"project": project, "target": target}
                where = [f"{name} = {literal(value)}" for name, value in asked.items() if value is not None]
                files = self.files()
                create_views(connection, files, " and ".join(where) or "true", bool(where) and self._is_small(files))
            yield connection

    def _is_small(self, files: Sequence[str]) -> bool:
        """Say whether all rows fit into memory, so that a report's queries need not open every file, and many times."""
        return self._is_local and sum(Path(file).stat().st_size for file in files) <= _SMALL_BYTES

    def compact(
        self, keep_days: int = KEPT_DAYS, separate_hours: int = SEPARATE_HOURS, now: datetime | None = None
    ) -> Compacted:
        """Merge the files of older runs into one per target and month, and delete what is too old.

        It may run beside writers, readers and another compaction: a file whose rows were merged stays for GRACE, since
        it may be being read, and readers take each run from one file only.

        Args:
            keep_days: a file is deleted when its newest run is older.
            separate_hours: younger runs keep a file of their own.
            now: for tests; the present moment when None.
        """
        files = self.files()
        now = now or datetime.now(UTC)
        before, keep_after = now - timedelta(hours=separate_hours), now - timedelta(days=keep_days)
        removed, made = 0, 0
        with self._connection() as connection, self.errors():
            groups: dict[tuple[str, str], list[str]] = {}
            for file in _stored(connection, files):
                is_old = file.newest < utc(keep_after)
                if is_old or (file.last and _made_at(file.last) < now - GRACE):
                    self._remove(file.name)
                    removed += 1
                elif not file.last and file.newest < utc(before):
                    groups.setdefault((file.name.rpartition("/")[0], f"{file.newest:%Y-%m}"), []).append(file.name)
            for (folder, month), members in groups.items():
                if len(members) > 1:
                    query = f"select * exclude (filename) from {parquet(members)}"
                    name = f"{_TOGETHER}-{month}-{now:%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}.parquet"
                    self._save(connection, f"{query} order by run_started_at, run_id, unique_id", f"{folder}/{name}")
                    made += 1
        return Compacted(len(files), made, removed)

    def _save(self, connection: DuckDBPyConnection, query: str, address: str) -> None:
        with self.errors():
            if not self._is_local:
                # An object appears in a bucket only when it is complete.
                _copy(connection, query, address)
                return
            path = Path(address)
            private_folder(path.parent)
            draft = path.with_name(f".{path.name}.{uuid4().hex[:8]}.draft")
            try:
                _copy(connection, query, str(draft))
                shut(draft)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)

    def _remove(self, address: str) -> None:
        with suppress(FileNotFoundError):
            if self._is_local:
                Path(address).unlink()
            else:
                self._filesystem().rm_file(address)

    @contextmanager
    def _connection(self) -> Iterator[DuckDBPyConnection]:
        import duckdb

        connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"})
        try:
            # All times in the history are UTC, so `now()` has to be.
            connection.execute("set timezone = 'UTC'")
            if not self._is_local:
                connection.register_filesystem(self._filesystem())
            yield connection
        finally:
            connection.close()

    def _spellings(self) -> list[str]:
        """Return the address as it was given, and with an empty bucket name, as some libraries spell it."""
        protocol, _, path = self.url.partition("://")
        return [self.url] if self._is_local else [self.url, f"{protocol}:///{path}"]

    def _filesystem(self) -> AbstractFileSystem:
        import fsspec

        protocol = self.url.partition("://")[0]
        try:
            return fsspec.filesystem(protocol)
        except ImportError as exc:
            extra = EXTRAS.get(protocol)
            how = f"uv sync --extra {extra}" if extra else "install the fsspec library for it"
            raise ConfigError(f"The history is at {self.url}, and {protocol}:// needs a library: {how}.") from exc
        except ValueError as exc:
            raise ConfigError(
                f"{URL_VARIABLE} is {self.url!r}: fsspec does not know {protocol}://. "
                "Give a folder, or an address such as s3://bucket/path or gs://bucket/path."
            ) from exc

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise what a folder or bucket raises inside the block as errors of this project."""
        import duckdb

        try:
            yield
        except (PermissionError, FileNotFoundError) as exc:
            raise ConfigError(
                f"The history at {self.url} can't be used: {exc}. Give this process access to it, or name another "
                f"place with {URL_VARIABLE}."
            ) from exc
        except (OSError, duckdb.Error) as exc:
            # An error of fsspec inside DuckDB comes with a traceback; its last line is the reason.
            reason = str(exc).strip().splitlines()[-1 if "Traceback" in str(exc) else 0]
            raise UpstreamUnavailable(
                f"The history at {self.url} could not be reached: {reason}. Try again later."
            ) from exc


def history_store(environ: Mapping[str, str]) -> HistoryStore:
    """Return the store that TRIBUTARY_HISTORY names, else one with the state, in a folder or at an address."""
    shared = shared_by(environ)
    beside = f"{shared.bucket.url}/history" if shared else str(state_root(environ) / "history")
    return HistoryStore(environ.get(URL_VARIABLE) or beside)


def _load(connection: DuckDBPyConnection, rows: Sequence[Row]) -> None:
    # A list per column: 5,000 rows in a tenth of a second, where one statement per row takes ten.
    columns = ", ".join(f"unnest(${n}::{kind}[]) as {name}" for n, (name, kind) in enumerate(COLUMNS.items(), start=1))
    values: list[list[Any]] = [[row.get(name) for row in rows] for name in COLUMNS]
    connection.execute(f"create or replace temp table run as select {columns}", values)


def _copy(connection: DuckDBPyConnection, query: str, address: str) -> None:
    connection.execute(f"copy ({query}) to {literal(address)} (format parquet, compression zstd)")


@dataclass(frozen=True)
class _Stored:
    """A file, the start of its newest run, and the merged file with all of its runs; empty for none."""

    name: str
    newest: datetime
    last: str


def _stored(connection: DuckDBPyConnection, files: Sequence[str]) -> list[_Stored]:
    if not files:
        return []
    found = connection.execute(
        f"""
        with stored as (
            select filename, {RUN_KEY}, max(run_started_at) as newest from {parquet(files)} group by all
        ),
        placed as (
            select *, max(filename) over (partition by {RUN_KEY}) as last_file from stored
        )
        select filename, max(newest), case when bool_and(last_file <> filename) then min(last_file) else '' end
        from placed
        group by filename
        order by filename
        """
    )
    return [_Stored(*row) for row in found.fetchall()]


def _made_at(name: str) -> datetime:
    return datetime.strptime(name.rsplit("-", 2)[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in name)
