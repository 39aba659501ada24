"""The folders that outlive a run: dbt's artifacts per project and target, and a folder per run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from infrastructure.errors import ConfigError
from infrastructure.targets import ROOT

STATE_VARIABLE = "TRIBUTARY_STATE"
# The files of a run's folder: our record, the text that people read, and what dbt itself writes, one JSON a line.
LEDGER = "ledger.jsonl"
TEXT_LOG = "run.log"
# Of a run with --changed: what becomes of each node, and why.
CHANGES = "changes.json"
_DBT_LOGS = "dbt"
_PARSED = "partial_parse.msgpack"

# Runs whose ledger and log are kept, per project and target; the oldest go first.
KEPT_RUNS = 50


@dataclass(frozen=True)
class State:
    """The folders of one dbt project on one target."""

    folder: Path

    @property
    def target_path(self) -> Path:
        """Return where dbt writes its artifacts; per target, so that two targets do not undo each other's parse."""
        return self.folder / "target"

    @property
    def manifest(self) -> Path:
        """Return the manifest of the last parse."""
        return self.target_path / "manifest.json"

    @property
    def profiles(self) -> Path:
        """Return the folder of the profiles.yml that the dbt child reads; it holds no secret."""
        return self.folder / "profiles"

    def part(self, name: str) -> State:
        """Return the folders of a part of the project that is built beside others, so that they don't meet in files.

        Raises:
            ConfigError: the folder can't be written.
        """
        part = State(self.folder / "parts" / _safe(name))
        _make(part.target_path)
        parsed = self.target_path / _PARSED
        if parsed.exists() and not (part.target_path / _PARSED).exists():
            # What the whole project was parsed to saves the part its first parse, the longest.
            shutil.copy2(parsed, part.target_path / _PARSED)
        return part

    def runs(self) -> list[Path]:
        """Return the folders of the runs that are kept, oldest first."""
        folder = self.folder / "runs"
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def new_run(self, started_at: datetime, run_id: str) -> Path:
        """Make the folder of a run, and drop those of the oldest runs beyond KEPT_RUNS.

        Raises:
            ConfigError: the folder can't be written.
        """
        # To the microsecond, so that the order of the names is the order of the runs.
        run = self.folder / "runs" / f"{started_at:%Y%m%dT%H%M%S.%fZ}-{_safe(run_id)[:40]}"
        _make(run)
        for old in self.runs()[:-KEPT_RUNS]:
            shutil.rmtree(old, ignore_errors=True)
        return run

    def write_profiles(self, text: str) -> Path:
        """Write the profiles.yml of the child whole or not at all, and return its folder."""
        _make(self.profiles)
        path = self.profiles / "profiles.yml"
        try:
            if not path.exists() or path.read_bytes() != text.encode():
                write_whole(path, text.encode())
        except OSError as exc:
            raise ConfigError(
                f"The profile for dbt can't be written to {path}: {exc.strerror}. "
                f"Free some space or choose another folder with {STATE_VARIABLE}."
            ) from exc
        return self.profiles


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)


def dbt_log_folder(run: Path) -> Path:
    """Return the folder that dbt writes its own log of a run into."""
    return run / _DBT_LOGS


def dbt_log(run: Path) -> Path:
    """Return dbt's own log of a run: JSON lines that the child itself has written."""
    return dbt_log_folder(run) / "dbt.log"


def state_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of all state: TRIBUTARY_STATE, or .tributary beside flows/."""
    return Path(environ.get(STATE_VARIABLE) or ROOT / ".tributary").expanduser().absolute()


def state_of(project_name: str, target: str, environ: Mapping[str, str]) -> State:
    """Return the state of a project on a target; the folders are made.

    Raises:
        ConfigError: the folder can't be written.
    """
    state = State(state_root(environ) / _safe(project_name) / _safe(target))
    _make(state.target_path)
    return state


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"The folder {folder} can't be made: {exc.strerror}. "
            f"Choose a folder that can be written to with {STATE_VARIABLE}."
        ) from exc


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)
