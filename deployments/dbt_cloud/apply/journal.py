"""The journal of changes to jobs, written before and after each, to read and to undo them.

Where the state is at an address, a job is deleted once its journal is there, and any machine can put it back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import orjson

from flows.engine.context.reporting import current_reporter
from flows.engine.context.shared.state import why
from flows.engine.context.state import STATE_VARIABLE, shared_by
from infrastructure.errors import ConfigError, TributaryError
from infrastructure.private_files import opener, private_folder, write_whole

INTENT, DONE, FAILED = "intent", "done", "failed"


class Journal:
    """Append to one file; a line is on disk before the request that it is about is sent.

    As a context manager it is sent whole where other machines find it, at the end of the block.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{os.getpid()}.jsonl"
        shared = shared_by(os.environ)
        self._shared = shared.ledger(self.path) if shared and self.path.is_relative_to(shared.root) else None
        self._text = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._shared or not self._text:
            return
        try:
            self._shared.send_whole(self._text)
        except TributaryError as exc:
            current_reporter().note(
                f"The journal could not be kept for other machines: {why(exc)}. It is in {self.path}, and what was "
                "deleted is elsewhere too."
            )

    def write(self, phase: str, action: str, name: str, job_id: int | None, **what: Any) -> None:  # noqa: ANN401
        """Write one line.

        Raises:
            ConfigError: the folder can't be written, or the store at the address refuses a deletion's line. Nothing may
                be changed then either.
            UpstreamUnavailable: the store does not answer; likewise.
        """
        entry = {"at": datetime.now(UTC), "phase": phase, "action": action, "name": name, "job_id": job_id, **what}
        line = orjson.dumps(entry, default=str) + b"\n"
        # The only copy of a job that is about to be deleted.
        is_only_copy = phase == INTENT and action == "delete"
        try:
            if not self._text:
                private_folder(self.path.parent)
            with open(self.path, "ab", opener=opener) as file:
                file.write(line)
                file.flush()
                if is_only_copy:
                    os.fsync(file.fileno())
        except OSError as exc:
            raise ConfigError(
                f"The journal {self.path} can't be written: {exc.strerror}. Nothing was changed; "
                f"choose a folder with {STATE_VARIABLE}."
            ) from exc
        self._text += line
        if self._shared and is_only_copy:
            self._shared.send(self._text[self._shared.sent :])


def cloud_folder(state_root: Path, account_id: int) -> Path:
    """Return the folder of an account's journals and locks."""
    return state_root / "dbt_cloud" / str(account_id)


def fetch_journal(path: Path) -> None:
    """Fetch a journal of another machine to its place in the working copy, where the state is at an address.

    Raises:
        ConfigError: there is none of this name.
        TributaryError: see `Bucket`.
    """
    shared = shared_by(os.environ)
    text = shared.ledger(path).fetch() if shared and path.is_relative_to(shared.root) else b""
    if not text:
        raise ConfigError(f"There is no journal {path.name} in {shared.bucket.url if shared else path.parent}.")
    private_folder(path.parent)
    write_whole(path, text)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal, or of all journals in a folder, oldest first; a torn last line is left out.

    Raises:
        ConfigError: there is none.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    entries: list[dict[str, Any]] = []
    for file in files:
        try:
            lines = file.read_bytes().splitlines()
        except OSError as exc:
            raise ConfigError(f"The journal {file} can't be read: {exc.strerror}.") from exc
        for line in lines:
            try:
                entries.append(cast(dict[str, Any], orjson.loads(line)))
            except orjson.JSONDecodeError:
                continue
    return entries


def deleted_jobs(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the deletions of journals that were applied and not restored, each with the whole job."""
    before: Mapping[int, dict[str, Any]] = {
        it["job_id"]: it for it in entries if it["action"] == "delete" and it["phase"] == INTENT
    }
    done = [it["job_id"] for it in entries if it["action"] == "delete" and it["phase"] == DONE]
    put_back = {it.get("was") for it in entries if it["action"] == "restore" and it["phase"] == DONE}
    return [before[job_id] for job_id in dict.fromkeys(done) if job_id in before and job_id not in put_back]
