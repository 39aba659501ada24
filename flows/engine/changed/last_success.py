"""The last good state of a project on a target: what each node was last built from, and dbt's artifacts of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson

from flows.engine.artifacts.fingerprints import Inputs, Parts
from flows.engine.artifacts.manifest_file import MANIFEST
from flows.engine.context.state import LAST_GOOD, State
from infrastructure.errors import ConfigError
from infrastructure.private_files import opener, private_folder

# The version of nodes.json; another one is not read.
FORMAT = 1
# Earlier states that are kept, for readers of one while the next is written.
KEPT_STATES = 3
INTERRUPTED = "interrupted"
# Built well, with a part of its rows, or as a clone.
PARTIAL = "partial"
GOOD = frozenset({"success", "pass", "warn", "no-op"})

_NODES = "nodes.json"
# What another target needs of a state to compare itself with it.
ARTIFACTS = (MANIFEST, _NODES)


@dataclass(frozen=True, slots=True)
class Built:
    """How a node was last built or run.

    Attributes:
        status: dbt's; "interrupted" when the run was cut off in the middle of it, "partial" when it was built with a
            part of its rows (`--empty`, `--sample`, `--event-time-start`).
        at: when it ended, UTC, in ISO 8601.
        run: the run that built it last; the name of its folder.
        parts: what it was built from; None when it never came to a good end.
        parents: what it read: the run that had built each node, max_loaded_at of each source; None where not known.
        settings: fingerprint of what concerned every node at the time.
    """

    status: str
    at: str
    run: str
    parts: Parts | None
    parents: Mapping[str, str | None]
    settings: str

    @property
    def is_good(self) -> bool:
        """Return whether what stands in the warehouse is what `parts` say."""
        return self.parts is not None and self.status in GOOD


@dataclass(frozen=True)
class LastSuccess:
    """All that is known of what a target holds.

    Attributes:
        folder: holds dbt's artifacts, fit for `--state`; None before the first run.
        inputs: of the last parse.
        proof: what that parse depended on; see `Surroundings`.
        built: by unique id.
        runs: names of the runs whose outcome is in here.
    """

    folder: Path | None = None
    inputs: Inputs = field(default_factory=lambda: Inputs({}, {}, {}))
    proof: str = ""
    built: Mapping[str, Built] = field(default_factory=dict[str, Built])
    runs: tuple[str, ...] = ()


def read_last_good(state: State) -> LastSuccess | None:
    """Return the last good state; None before the first run.

    Raises:
        ConfigError: it is there and can't be read.
    """
    folder = latest_folder(state)
    return read_folder(folder) if folder else None


def latest_folder(state: State) -> Path | None:
    """Return the folder of the last good state, whose manifest.json is fit for dbt's --state; None before the first."""
    folders = _folders(state)
    return folders[-1] if folders else None


def read_folder(folder: Path) -> LastSuccess:
    """Read a last good state from its folder.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        document = cast(dict[str, Any], orjson.loads((folder / _NODES).read_bytes()))
        if document["format"] != FORMAT:
            raise KeyError("format")
        built = {key: _built(entry) for key, entry in document["built"].items()}
        inputs = Inputs.from_document(document["inputs"])
        return LastSuccess(folder, inputs, document["proof"], built, tuple(document["runs"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
        raise ConfigError(
            f"The last good state in {folder} can't be read: {_NODES} is missing, cut off or of another version."
        ) from exc


def write_last_good(state: State, last: LastSuccess, artifacts: Mapping[str, bytes]) -> None:
    """Write a state beside the earlier ones, whole or not at all: it is there when its folder has its name.

    Args:
        artifacts: content by file name, such as manifest.json.

    Raises:
        OSError: the disk is full, or the folder can't be written.
    """
    folders = _folders(state)
    number = int(folders[-1].name) + 1 if folders else 1
    home = state.folder / LAST_GOOD
    draft = home / f".draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    private_folder(draft)
    document = {
        "format": FORMAT,
        "proof": last.proof,
        "runs": last.runs,
        "built": last.built,
        "inputs": last.inputs,
    }
    try:
        for name, content in {**artifacts, _NODES: orjson.dumps(document)}.items():
            _write_through(draft / name, content)
        draft.rename(home / f"{number:08d}")
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    for old in _folders(state)[:-KEPT_STATES]:
        shutil.rmtree(old, ignore_errors=True)


def _write_through(path: Path, content: bytes) -> None:
    # A folder that has its name must not hold empty files after a power cut.
    with open(path, "wb", opener=opener) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _folders(state: State) -> list[Path]:
    home = state.folder / LAST_GOOD
    names: Iterable[Path] = home.iterdir() if home.is_dir() else ()
    return sorted(path for path in names if path.name.isdigit())


def _built(entry: Mapping[str, Any]) -> Built:
    known: dict[str, Any] = dict(entry)
    known["parts"] = Parts(**known["parts"]) if known["parts"] else None
    return Built(**known)
