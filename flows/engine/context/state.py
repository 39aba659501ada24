"""The folders that outlive a run: dbt's artifacts per project and target, and a folder per run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.engine.context.home import home_of
from flows.engine.context.project import Project
from flows.engine.context.reporting import current_reporter
from flows.engine.context.shared.files import Merge, SharedFile
from flows.engine.context.shared.state import SharedState, is_address, shared_state, working_copy
from flows.engine.context.shared.target import Names, SharedTarget
from infrastructure.errors import ConfigError
from infrastructure.private_files import private_folder, write_whole
from infrastructure.workspace import workspace

STATE_VARIABLE = "TRIBUTARY_STATE"
# The files of a run's folder: our record, the text that people read, and what dbt itself writes, one JSON a line.
LEDGER = "ledger.jsonl"
TEXT_LOG = "run.log"
# Of a run with --changed: what it does with each node, and why.
CHANGES = "changes.json"
# The folder of the last good states; see last_good.py.
LAST_GOOD = "last_good"
# Of a run that tries again: which batches of a model are to be built again.
BATCHES = "batches.json"
_DBT_LOGS = "dbt"
# What dbt keeps of its last parse, beside its artifacts.
PARSED = "partial_parse.msgpack"
_OWN_ROOT = ".tributary"

# Runs whose ledger and log are kept, per project and target; the oldest go first.
KEPT_RUNS = 50
# What this process found out. A folder that two checkouts of one repository share is not looked at again in each call.
_homes: dict[tuple[Path, str, Path], Path] = {}


@dataclass(frozen=True)
class State:
    """The folders of one dbt project on one target."""

    folder: Path

    @property
    def project(self) -> str:
        """Return what tells the project from all others: its name, with a number where another one had that before."""
        return self.folder.parent.name

    @property
    def target_path(self) -> Path:
        """Return where dbt writes its artifacts; per target, so that two targets do not undo each other's parse."""
        return self.folder / "target"

    @property
    def parsed(self) -> Path:
        """Return what dbt keeps of its last parse, which makes the next one short."""
        return self.target_path / PARSED

    @property
    def profiles(self) -> Path:
        """Return the folder of the profiles.yml that the dbt child reads; it holds no secret."""
        return self.folder / "profiles"

    def runs(self) -> list[Path]:
        """Return the folders of the runs that are kept, oldest first."""
        folder = self.folder / "runs"
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def new_run(self, started_at: datetime, run_id: str) -> Path:
        """Make the folder of a run, and drop those of the oldest runs beyond KEPT_RUNS.

        Raises:
            ConfigError: the folder can't be written.
        """
        # To the microsecond, so that the order of the names is the order of the runs, also where the clock of the
        # machine that ran last is ahead.
        last = _begun(self.runs()[-1:])
        if last and last >= started_at:
            started_at = last + timedelta(microseconds=1)
        run = self.folder / "runs" / f"{started_at:%Y%m%dT%H%M%S.%fZ}-{_safe(run_id)[:40]}"
        _make(run)
        for old in self.runs()[:-KEPT_RUNS]:
            shutil.rmtree(old, ignore_errors=True)
        return run

    def belongings(self) -> list[Path]:
        """Return what earlier runs have left here for later ones: their records, and the last good state."""
        last = sorted((self.folder / LAST_GOOD).glob("*"))[-1:]
        return [*(run / LEDGER for run in self.runs() if (run / LEDGER).exists()), *last]

    def write_profiles(self, text: str) -> Path:
        """Write the profiles.yml of the child whole or not at all, and return its folder.

        Raises:
            ConfigError: the folder can't be written.
        """
        _make(self.profiles)
        path = self.profiles / "profiles.yml"
        if not path.exists() or path.read_bytes() != text.encode():
            write_in_words(path, text.encode())
        return self.profiles


def lost_sentence(state: State, before: Sequence[Path]) -> str:
    """Say what of a state's belongings was deleted since; empty when all are there."""
    gone = [path for path in before if not path.exists()]
    records = sum(path.name == LEDGER for path in gone)
    what = [
        *([f"the records of {records} earlier runs, which can't be resumed any more"] if records else []),
        *(
            ["the last good state, so that the next run with --changed builds everything"]
            if len(gone) > records
            else []
        ),
    ]
    if not what:
        return ""
    return f"Something deleted what {state.folder} held while this run went on. Gone for good: {'; '.join(what)}."


def write_in_words(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; see `write_whole`.

    Raises:
        ConfigError: it can't be written.
    """
    try:
        write_whole(path, content)
    except OSError as exc:
        raise ConfigError(
            f"{path} can't be written: {exc.strerror}. "
            f"Free some space or choose another folder with {STATE_VARIABLE}, then run again."
        ) from exc


def dbt_log_folder(run: Path) -> Path:
    """Return the folder that dbt writes its own log of a run into."""
    return run / _DBT_LOGS


def dbt_log(run: Path, has_own: bool = False) -> Path:
    """Return the record that the child itself keeps of a run, as JSON lines.

    Args:
        has_own: dbt was asked for a log of its own, which has that name then, and tells more than can be relied on.
    """
    beside = dbt_log_folder(run) / "events.log"
    return beside if has_own or beside.exists() else dbt_log_folder(run) / "dbt.log"


def state_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of all state: TRIBUTARY_STATE, else .tributary in the workspace; for an address, its copy."""
    given = environ.get(STATE_VARIABLE) or str(workspace(environ).folder / _OWN_ROOT)
    return working_copy(given, environ) if is_address(given) else Path(given).expanduser().absolute()


def shared_by(environ: Mapping[str, str]) -> SharedState | None:
    """Return the state that machines share; None where TRIBUTARY_STATE is a folder."""
    given = environ.get(STATE_VARIABLE) or ""
    return shared_state(given, environ) if is_address(given) else None


def shared_target(state: State, environ: Mapping[str, str], is_run: bool = False) -> SharedTarget | None:
    """Return what machines share of a state, after it is fetched; None where TRIBUTARY_STATE is a folder.

    Args:
        is_run: a run that holds the target begins: fetch also where that was done a moment ago, and claim the folder
            of the project. All others only read.

    Raises:
        ConfigError: the store refuses.
        UpstreamUnavailable: the store does not answer.
    """
    shared = shared_by(environ)
    names = Names(LEDGER, LAST_GOOD, f"target/{PARSED}", KEPT_RUNS)
    if shared is None:
        return None
    target = shared.fetch(state.folder, names, anew=is_run)
    if is_run:
        shared.claim(state.folder.parent)
    return target


def shared_file(path: Path, environ: Mapping[str, str], merge: Merge) -> SharedFile | None:
    """Return a file below the state folder as machines share it; None where TRIBUTARY_STATE is a folder."""
    shared = shared_by(environ)
    return shared.file(path, merge) if shared else None


def state_of(project: Project, target: str, environ: Mapping[str, str]) -> State:
    """Return the state of a project on a target; the folders are made.

    Two projects of one name have a state each; see `home_of`. That one has moved is said once.

    Where it is at an address, what other machines left there is fetched first.

    Raises:
        ConfigError: the folder can't be written, or the store at the address refuses.
        UpstreamUnavailable: the store at the address does not answer.
    """
    root = state_root(environ)
    key = root, project.name, project.folder
    home = _homes.get(key)
    if home is None or not home.is_dir():
        if shared := shared_by(environ):
            shared.fetch_places(_safe(project.name))
        try:
            home, said = home_of(root, _safe(project.name), project.folder)
        except OSError as exc:
            raise _unmade(root / _safe(project.name), exc) from exc
        _homes[key] = home
        if said:
            current_reporter().note(said)
    state = _state_in(home, target, root)
    shared_target(state, environ)
    return state


def state_of_job(name: str, target: str, environ: Mapping[str, str]) -> State:
    """Return the state of what runs elsewhere and is no project on this disk; the folders are made.

    Raises:
        ConfigError: the folder can't be written.
    """
    root = state_root(environ)
    return _state_in(root / _safe(name), target, root)


def _state_in(home: Path, target: str, root: Path) -> State:
    state = State(home / _safe(target))
    # The root itself may be a folder of others, but not where it has our name.
    _make(state.target_path, root.parent if root.name == _OWN_ROOT else root)
    return state


def _make(folder: Path, root: Path | None = None) -> None:
    try:
        private_folder(folder, root)
    except OSError as exc:
        raise _unmade(folder, exc) from exc


def _unmade(folder: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"The folder {folder} can't be made: {exc.strerror}. "
        f"Choose a folder that can be written to with {STATE_VARIABLE}."
    )


def _begun(runs: Sequence[Path]) -> datetime | None:
    """Return when a run began by the name of its folder; None without one."""
    try:
        return datetime.strptime(runs[0].name.partition("Z")[0], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except (ValueError, IndexError):
        return None


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)
