"""Build only what differs from another target, and read everything else from there: continuous integration, slim."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from flows.engine.artifacts.fingerprints import Inputs, Values
from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import MANIFEST, load_manifest, manifest_of, read_whole
from flows.engine.artifacts.manifest_fingerprints import CALLED_BY_DBT, inputs_of
from flows.engine.artifacts.reworded import reworded
from flows.engine.changed.last_success import ARTIFACTS, LastSuccess, latest_folder, read_folder
from flows.engine.changed.parse_inputs import surroundings_of
from flows.engine.context.command import DbtCommand
from flows.engine.context.exact_selection import flags_beside
from flows.engine.context.project import Project
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import STATE_VARIABLE, State, shared_target, state_of
from flows.engine.ledger.undone import is_run_by
from flows.engine.process.listing import list_manifest
from infrastructure.commands import program
from infrastructure.errors import ConfigError, UpstreamUnavailable, preview
from infrastructure.private_files import private_folder

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

_OUR_OWN_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def deferred(
    command: DbtCommand, project: Project, profile: Profile, defer_to: str, is_resumed: bool = False
) -> DbtCommand:
    """Return the command that builds what is modified compared with another target's last good state.

    Nodes outside of that are read from the other target, always: a table of the same name that an earlier run left in
    this target is from other code.

    Args:
        defer_to: a target whose runs keep their state under the same folder, or a folder or fsspec URL that holds the
            files of a last good state.
        is_resumed: compare with the very state that the run which is resumed was compared with.

    Raises:
        ConfigError: there is no such state, or it can't be read.
        DbtRunFailed: the project does not compile.
    """
    if defer_to == profile.target:
        raise ConfigError(
            f"Target {defer_to} can't defer to itself: name the target to compare with, such as --defer-to prod. "
            "To build what changed since its own last run, use --changed."
        )
    own = state_of(project, profile.target, os.environ)
    copy = own.folder / "deferred" / "".join(letter if letter.isalnum() else "_" for letter in defer_to)
    if not (is_resumed and (copy / MANIFEST).exists()):
        try:
            _fetch(defer_to, project, own, copy)
        except OSError as exc:
            raise ConfigError(
                f"The state of {defer_to} can't be copied to {copy}: {exc.strerror or exc}. Free some space or choose "
                f"another folder with {STATE_VARIABLE}, then run again."
            ) from exc
    last = _read(copy, defer_to)
    flags = (*command.flags, "--defer", "--favor-state", "--state", str(copy))
    modified, manifest, unseen = _modified(replace(command, flags=flags), project, profile, last, copy)
    if unseen:
        names = preview([manifest.nodes[unique_id].name for unique_id in unseen])
        current_reporter().note(f"Modified too, though dbt's state:modified does not see it: {names}.")
    chosen = manifest.with_all_after(modified | set(unseen))
    if command.select or command.exclude or command.selector:
        chosen &= set(list_manifest(command, project, profile)[0])
    nodes = tuple(key for key in manifest.nodes if key in chosen and is_run_by(command.verb, key, manifest))
    return replace(command, nodes=nodes, flags=flags_beside(flags))


def _fetch(defer_to: str, project: Project, own: State, copy: Path) -> None:
    """Copy a state, so that it stays as it is while this run reads it."""
    shutil.rmtree(copy, ignore_errors=True)
    private_folder(copy)
    if "/" in defer_to or os.sep in defer_to:
        _fetch_from(defer_to, copy)
        return
    theirs = State(own.folder.parent / defer_to)
    shared_target(theirs, os.environ)
    folder = latest_folder(theirs)
    if folder is None:
        raise ConfigError(
            f"Target {defer_to} has no last good state of project {project.name} under {own.folder.parent}, so there "
            f"is nothing to compare with. Run it once: {program()} run --target {defer_to}. If its runs "
            f"keep their state elsewhere, name that place with {STATE_VARIABLE} or as --defer-to FOLDER_OR_URL."
        )
    for name in ARTIFACTS:
        if (folder / name).exists():
            shutil.copy(folder / name, copy / name)


def _read(copy: Path, defer_to: str) -> LastSuccess:
    try:
        load_manifest(copy / MANIFEST)
        return read_folder(copy)
    except ConfigError as exc:
        raise ConfigError(
            f"The last good state of {defer_to} can't be used: {' or '.join(ARTIFACTS)} is missing or cut off. "
            "Run that target once more, which writes it again."
        ) from exc


def _fetch_from(place: str, copy: Path) -> None:
    # Prefect depends on fsspec; the client of a bucket (s3fs, gcsfs, adlfs) is for users who have one.
    import fsspec

    try:
        files, path = cast(tuple[Any, str], fsspec.core.url_to_fs(place))
        for name in ARTIFACTS:
            files.get_file(f"{path.rstrip('/')}/{name}", str(copy / name))
    except FileNotFoundError as exc:
        raise ConfigError(
            f"There is no last good state in {place}: {exc.args[-1]} is missing. Give the folder that holds "
            f"{' and '.join(ARTIFACTS)}, such as the newest under .tributary/<project>/<target>/last_good."
        ) from exc
    except (ImportError, ValueError) as exc:
        raise ConfigError(f"--defer-to {place} can't be read: {exc}") from exc
    except OSError as exc:
        if exc.errno in _OUR_OWN_DISK:
            raise
        raise UpstreamUnavailable(f"--defer-to {place} can't be read now: {exc}") from exc


def _modified(
    command: DbtCommand, project: Project, profile: Profile, last: LastSuccess, copy: Path
) -> tuple[set[str], Manifest, list[str]]:
    """Return the nodes that dbt calls modified, and those whose code or macros differ although it does not.

    The former without those whose code is written in other words alone. The latter are seeds above 1 MB, macros that
    only a hook or a test's argument names, materializations.
    """
    # Their tests come with all that is downstream.
    flags = (*command.flags, "--indirect-selection", "empty")
    question = replace(command, select="state:modified", exclude=None, flags=flags)
    seen, content = list_manifest(question, project, profile)
    manifest = cast(dict[str, Any], orjson.loads(content))
    values = surroundings_of(command, project, profile).values
    inputs: Inputs = inputs_of(manifest, values)
    everything = inputs.settings[CALLED_BY_DBT] != last.inputs.settings.get(CALLED_BY_DBT)
    unseen: list[str] = []
    for unique_id, node in inputs.nodes.items():
        built = last.built.get(unique_id)
        if unique_id in seen or built is None or built.parts is None:
            continue
        then, now = built.parts, node.parts
        if everything or (then.code, then.macros) != (now.code, now.macros):
            unseen.append(unique_id)
    modified_in_wording = _reworded(seen, inputs, last, copy, manifest, values)
    return set(seen) - modified_in_wording, manifest_of(manifest), unseen


def _reworded(
    seen: list[str], inputs: Inputs, last: LastSuccess, copy: Path, manifest: dict[str, Any], values: Values
) -> frozenset[str]:
    codes: dict[str, str] = {}
    for key in seen:
        built, node = last.built.get(key), inputs.nodes.get(key)
        then = built.parts if built and built.is_good else None
        # Where it is, and the values that it looks up, are another target's.
        if then and node and (then.macros, then.config) == (node.parts.macros, node.parts.config):
            codes[key] = then.code
    whole = read_whole(copy / MANIFEST) if codes else None
    return reworded(codes, whole.document, manifest, values) if whole else frozenset()
