"""A bucket, through fsspec: whole objects, written on conditions where the store knows any, in limited time."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote
from uuid import uuid4

from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.plain_text import one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# How long an answer is waited for, and for how many bytes a second more than that.
ANSWER_SECONDS = 10.0
_BYTES_A_SECOND = 500_000
# After a store was silent for so long it is not waited for again at once: several questions follow each other.
_SPARED_SECONDS = 10.0
# How many objects are read at a time.
_AT_ONCE = 32
# The library of each kind of address, and the extra that installs it.
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
# What a store says when a condition is not met, by HTTP status: 409 where two writers meet at the very moment.
_UNMET = frozenset({409, 412})
# What a store says that knows no conditions.
_UNKNOWN = 501
_ADVICE = "Give this process access to it, or name another place with TRIBUTARY_STATE."


class Bucket:
    """The objects below one address, by their names below it.

    Args:
        url: an address that fsspec knows, such as s3://bucket/path, gs://bucket/path or az://container/path.

    Every method raises:
        ConfigError: the store refuses, the bucket does not exist, or the library for it is not installed.
        UpstreamUnavailable: the store does not answer, or fails.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._protocol = url.partition("://")[0]
        self._opened: tuple[AbstractFileSystem, str] | None = None
        # By the clock of `time.monotonic`.
        self._spared_until = 0.0

    def read(self, name: str) -> bytes | None:
        """Return an object; None where there is none."""
        with self._errors("read"):
            try:
                return cast(bytes, self._ask("cat_file", self._path(name)))
            except FileNotFoundError:
                return None

    def read_tagged(self, name: str) -> tuple[bytes, str] | None:
        """Return an object with the tag of its version, for `replace`; None where there is none."""
        with self._errors("read"):
            try:
                # In this order: a tag that is older than the content makes the next `replace` fail, and no more.
                tag = self._tag(self._ask("info", self._path(name)))
                return cast(bytes, self._ask("cat_file", self._path(name))), tag
            except FileNotFoundError:
                return None

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return several objects at once, without those that are gone."""
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        with self._errors("read"):
            files, _ = self._filesystem()
            if files.async_impl:
                found = self._finish(self._contents(list(paths)), 3 * ANSWER_SECONDS)
            else:
                found = {path: self._one(files, path) for path in paths}
            contents: dict[str, bytes] = {}
            for path, content in found.items():
                if isinstance(content, FileNotFoundError):
                    continue
                if isinstance(content, BaseException):
                    raise content
                contents[paths[path]] = content
            return contents

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size of each object below a folder, by the name below this bucket's address."""
        with self._errors("listed"):
            _, root = self._filesystem()
            try:
                found = self._ask("find", self._path(folder), detail=True, seconds=3 * ANSWER_SECONDS)
            except FileNotFoundError:
                return {}
            above = f"{root.strip('/')}/"
            return {path.lstrip("/").removeprefix(above): int(each["size"] or 0) for path, each in found.items()}

    def folders(self) -> list[str]:
        """Return the names of the folders at the top."""
        with self._errors("listed"):
            _, root = self._filesystem()
            try:
                found = self._ask("ls", root, detail=True)
            except FileNotFoundError:
                # Nothing is under this path yet, in a bucket that exists.
                self._require_bucket()
                return []
            return [each["name"].rstrip("/").rpartition("/")[2] for each in found if each["type"] == "directory"]

    def _require_bucket(self) -> None:
        files, root = self._filesystem()
        if files.async_impl:
            try:
                self._ask("info", root.partition("/")[0])
            except PermissionError:
                return  # It may be allowed to see what is below its path alone.

    def write(self, name: str, content: bytes) -> None:
        """Write an object whole, whatever is there."""
        with self._errors("written to"):
            self._put(name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that must not be there yet, whole; return False where it is."""
        with self._errors("written to"):
            return self._on_condition(lambda: self._put(name, content, mode="create"), name, content)

    def replace(self, name: str, content: bytes, tag: str | None) -> bool:
        """Write an object whole where it is still the one that was read; return False where it is another.

        A store that knows no conditions is written to in any case: the target's lease is what orders writers then.

        Args:
            tag: from `read_tagged`; None where there was none.
        """
        if tag is None:
            return self.create(name, content)
        with self._errors("written to"):
            try:
                return self._on_condition(lambda: self._put_on(name, content, tag), name, content)
            except FileNotFoundError:
                # What S3 says of an object that was deleted since it was read.
                return False

    def remove(self, names: Iterable[str]) -> None:
        """Delete objects; those that are gone are no matter."""
        with self._errors("written to"):
            for name in names:
                try:
                    self._ask("rm_file", self._path(name))
                except FileNotFoundError:
                    continue

    def _on_condition(self, put: Callable[[], None], name: str, content: bytes) -> bool:
        try:
            put()
        except Exception as exc:
            status = _status_of(exc)
            if isinstance(exc, FileExistsError) or status in _UNMET:
                return False
            if status != _UNKNOWN and not isinstance(exc, NotImplementedError):
                raise
            self._put(name, content)
        return True

    def _put(self, name: str, content: bytes, **how: Any) -> None:  # noqa: ANN401  (the library's own)
        files, _ = self._filesystem()
        if not files.async_impl:
            if how and files.exists(self._path(name)):
                raise FileExistsError(name)
            files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            how = {}
        self._ask(
            "pipe_file", self._path(name), content, seconds=ANSWER_SECONDS + len(content) / _BYTES_A_SECOND, **how
        )

    def _put_on(self, name: str, content: bytes, tag: str) -> None:
        files: Any
        files, _ = self._filesystem()
        match self._protocol:
            case "s3" | "s3a":
                self._put(name, content, IfMatch=tag)
            case "gs" | "gcs":
                bucket, _, key = self._path(name).partition("/")
                address = f"{files._location}/upload/storage/v1/b/{quote(bucket)}/o"
                # In two parts, as the library itself sends objects; it knows no other condition than "not there yet".
                about, body = _two_parts({"name": key}, content)
                self._ask(
                    "call", "POST", address, data=body, headers=about, uploadType="multipart", ifGenerationMatch=tag
                )
            case "az" | "abfs" | "abfss":
                from azure.core import MatchConditions  # pyright: ignore[reportMissingImports]

                self._put(name, content, etag=tag, match_condition=MatchConditions.IfNotModified)
            case _:
                self._put(name, content)

    def _tag(self, about: dict[str, Any]) -> str:
        return str(about.get("generation") or about.get("ETag") or about.get("etag") or "")

    def _one(self, files: AbstractFileSystem, path: str) -> bytes | FileNotFoundError:
        try:
            return cast(bytes, files.cat_file(path))
        except FileNotFoundError as exc:
            return exc

    async def _contents(self, paths: list[str]) -> dict[str, bytes | BaseException]:
        """Return each object, or why it can't be had."""
        import asyncio

        files: Any
        files, _ = self._filesystem()
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def one(path: str) -> bytes:
            async with at_once:
                return await files._cat_file(path)

        # Not the library's own `cat`: it looks for patterns in names, and each library has its way with what is gone.
        found = await asyncio.gather(*map(one, paths), return_exceptions=True)
        return dict(zip(paths, found, strict=True))

    def _path(self, name: str) -> str:
        _, root = self._filesystem()
        return f"{root}/{name}".rstrip("/")

    def _filesystem(self) -> tuple[AbstractFileSystem, str]:
        if self._opened is None:
            import fsspec

            # What other machines write must be seen, so that nothing of a listing is kept.
            options = {"use_listings_cache": False, "skip_instance_cache": True}
            self._opened = cast("tuple[AbstractFileSystem, str]", fsspec.core.url_to_fs(self.url, **options))
        return self._opened

    def _ask(self, method: str, *of: Any, seconds: float | None = None, **more: Any) -> Any:  # noqa: ANN401
        """Call a method of the file system, and give it up when it takes too long."""
        files: Any
        files, _ = self._filesystem()
        if not files.async_impl:
            return getattr(files, method)(*of, **more)
        return self._finish(getattr(files, f"_{method}")(*of, **more), ANSWER_SECONDS if seconds is None else seconds)

    def _finish(self, asked: Coroutine[Any, Any, Any], limit: float) -> Any:  # noqa: ANN401
        """Return what comes of a request, and give it up when it takes longer than `limit`, in seconds."""
        import asyncio
        from concurrent.futures import TimeoutError as FutureTimeout

        files: Any
        files, _ = self._filesystem()
        if time.monotonic() < self._spared_until:
            asked.close()
            raise TimeoutError(errno.ETIMEDOUT, "it did not answer a moment ago")
        future = asyncio.run_coroutine_threadsafe(asked, files.loop)
        try:
            return future.result(limit)
        except FutureTimeout as exc:
            future.cancel()
            self._spared_until = time.monotonic() + _SPARED_SECONDS
            raise TimeoutError(errno.ETIMEDOUT, f"there was no answer for {limit:.0f} s") from exc

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Raise what fsspec and its libraries raise inside the block as errors of this project."""
        try:
            yield
        except (ConfigError, UpstreamUnavailable):
            raise
        except (ImportError, ValueError) as exc:
            extra = EXTRAS.get(self._protocol)
            how = f"uv sync --extra {extra}" if extra and isinstance(exc, ImportError) else "see docs/shared-state.md"
            raise ConfigError(f"The state at {self.url} can't be {what}: {one_line(str(exc))} ({how}).") from exc
        except (PermissionError, FileNotFoundError) as exc:
            said = one_line(str(exc)) or "it is refused"
            raise ConfigError(f"The state at {self.url} can't be {what}: {said}. {_ADVICE}") from exc
        # Each library has errors of its own.
        except Exception as exc:
            said = one_line(f"{type(exc).__name__}: {exc}" if not isinstance(exc, OSError) else str(exc), 300)
            if _status_of(exc) in (401, 403) or "credentials" in type(exc).__name__.lower():
                raise ConfigError(f"The state at {self.url} can't be {what}: {said}. {_ADVICE}") from exc
            raise UpstreamUnavailable(
                f"The state at {self.url} can't be {what} now: {said}. Try again when the store answers."
            ) from exc


def _two_parts(about: Mapping[str, str], content: bytes) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a request that sends an object together with what is said of it."""
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(about)}\r\n"
    head += f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return {"Content-Type": f'multipart/related; boundary="{boundary}"'}, body


def _status_of(exc: BaseException) -> int | None:
    """Return the HTTP status that an error of any of the libraries is about; None where it tells none."""
    for error in (exc, exc.__cause__):
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            about = cast(dict[str, Any], response)
            return cast(int, about.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        for name in ("status_code", "code", "status"):
            status = getattr(error, name, None)
            if isinstance(status, int) or (isinstance(status, str) and status.isdigit()):
                return int(status)
    return None
