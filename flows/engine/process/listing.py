"""Ask dbt a question beside its runs, above all which nodes a selection means."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import orjson

from flows.engine.artifacts.graph import Graph, read_graph
from flows.engine.context.command import DbtCommand, Place, arguments
from flows.engine.context.events import DbtEvent, parse_line
from flows.engine.context.exact_selection import hand_over
from flows.engine.context.project import Project
from flows.engine.context.state import MANIFEST, STATE_VARIABLE, State, state_of
from flows.engine.ledger.failures import crash_of
from flows.engine.process.environment import child_environment
from flows.engine.process.process import DbtProcess
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.private_files import private_folder

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


# What a question that was killed leaves behind is removed by a later one, once nobody can be waiting for it any more.
_LEFT_BEHIND_SECONDS = 86_400
_QUESTION = "question-"


def list_nodes(command: DbtCommand, project: Project, profile: Profile) -> tuple[list[str], Graph]:
    """Return the unique ids that a selection means, and the graph they stand in; it connects to nothing.

    Raises:
        ConfigError: the project or the selection is wrong.
        DbtRunFailed: the project's SQL or Jinja does not compile.
    """
    found, manifest = list_manifest(command, project, profile)
    return found, read_graph(manifest)


def list_ids(command: DbtCommand, project: Project, profile: Profile) -> list[str]:
    """Return the unique ids that a selection means; see `list_nodes`."""
    return list_manifest(command, project, profile)[0]


def list_manifest(command: DbtCommand, project: Project, profile: Profile) -> tuple[list[str], bytes]:
    """Return the unique ids that a selection means, and the manifest of the parse that found them; see `list_nodes`."""
    keys = ("--output", "json", "--output-keys", "unique_id", "--no-print")
    found: list[str] = []

    def take(event: DbtEvent) -> None:
        if event.name == "PrintEvent" or event.name.startswith("ListCmdOut"):
            # dbt lists as a model prints: a line of the project's own is no node.
            with contextlib.suppress(ValueError, LookupError, TypeError):
                found.append(orjson.loads(event.text)["unique_id"])

    question = replace(command, verb="ls", flags=(*command.flags, *keys))
    manifest = ask(question, project, profile, take, artifact=MANIFEST)
    if manifest is None:
        raise DbtRunFailed(
            f"{question.name} on target {profile.target} ended well and wrote no {MANIFEST}. "
            "Is DBT_WRITE_JSON set to false? Take that out."
        )
    return found, manifest


def ask(
    command: DbtCommand,
    project: Project,
    profile: Profile,
    take: Callable[[DbtEvent], None],
    failing_is_an_answer: bool = False,
    artifact: str | None = None,
) -> bytes | None:
    """Run a dbt command that changes nothing, and hand on every line that it logs.

    Args:
        failing_is_an_answer: take exit code 1 for an answer too, such as that of a freshness check.
        artifact: the file of dbt's target folder to return the content of; None is returned when dbt wrote none.

    Raises:
        ConfigError: the project or the selection is wrong.
        DbtRunFailed: dbt could not answer.
    """
    plan = State(state_of(project.name, profile.target, os.environ).folder / "plan")
    profiles = plan.write_profiles(profile.profiles_yml(project.profile))
    with _own_target_path(plan) as target_path:
        place = Place(project.folder, profiles, project.profile, target_path, log_path=plan.folder)
        _ask(command, place, profile, take, failing_is_an_answer)
        return (target_path / artifact).read_bytes() if artifact and (target_path / artifact).exists() else None


@contextmanager
def _own_target_path(plan: State) -> Iterator[Path]:
    """Make a folder for what dbt writes while it answers one question, apart from runs and from other questions.

    What the project was parsed to is taken from the last question, and left for the next.
    """
    parsed = plan.parsed
    try:
        private_folder(parsed.parent)
        for left in plan.folder.glob(f"{_QUESTION}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        own = Path(mkdtemp(prefix=_QUESTION, dir=plan.folder))
    except OSError as exc:
        raise ConfigError(
            f"A question to dbt needs a folder in {plan.folder}, which can't be made: {exc.strerror}. "
            f"Free some space or choose another folder with {STATE_VARIABLE}."
        ) from exc
    try:
        # Without it the question takes longer, no more.
        with contextlib.suppress(OSError):
            shutil.copy2(parsed, own / parsed.name)
        yield own
        with contextlib.suppress(OSError):
            (own / parsed.name).replace(parsed)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _ask(
    command: DbtCommand, place: Place, profile: Profile, take: Callable[[DbtEvent], None], failing_is_an_answer: bool
) -> None:
    argv = [*arguments(command, place, profile.target), "--log-level-file", "none"]
    environment = child_environment(place.project, profile)
    environment |= hand_over(command.nodes, place.selection, environment)
    said: list[str] = []
    with DbtProcess(argv, environment, Path.cwd()) as child:
        for line in child.lines():
            event = parse_line(line)
            if event is None:
                continue
            take(event)
            if event.level == "error" or not event.name:
                said.append(event.text)
        code = child.wait()
    if code != 0 and not (code == 1 and failing_is_an_answer):
        raise crash_of(command.name, profile.target, code, "\n".join(said[:10]), place.log_path, profile.warehouse)
