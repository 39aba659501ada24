"""The journal of changes to jobs, written before and after each, to read and to undo them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import orjson

from flows.engine.context.state import STATE_VARIABLE
from infrastructure.errors import ConfigError
from infrastructure.private_files import opener, private_folder

INTENT, DONE, FAILED = "intent", "done", "failed"


class Journal:
    """Append to one file; a line is on disk before the request that it is about is sent."""

    def __init__(self, folder: Path, now: datetime | None = None) -> None:
        moment = now or datetime.now(UTC)
        self.path = folder / f"{moment:%Y%m%dT%H%M%S.%fZ}-{os.getpid()}.jsonl"
        self._is_made = False

    def write(self, phase: str, action: str, name: str, job_id: int | None, **what: Any) -> None:  # noqa: ANN401
        """Write one line.

        Raises:
            ConfigError: the folder can't be written, in which case nothing may be changed either.
        """
        entry = {"at": datetime.now(UTC), "phase": phase, "action": action, "name": name, "job_id": job_id, **what}
        try:
            if not self._is_made:
                private_folder(self.path.parent)
                self._is_made = True
            with open(self.path, "ab", opener=opener) as file:
                file.write(orjson.dumps(entry, default=str) + b"\n")
                file.flush()
                if phase == INTENT and action == "delete":
                    # The only copy of a job that is about to be deleted.
                    os.fsync(file.fileno())
        except OSError as exc:
            raise ConfigError(
                f"The journal {self.path} can't be written: {exc.strerror}. Nothing was changed; "
                f"choose a folder with {STATE_VARIABLE}."
            ) from exc


def cloud_folder(state_root: Path, account_id: int) -> Path:
    """Return the folder of an account's journals and locks."""
    return state_root / "dbt_cloud" / str(account_id)


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
