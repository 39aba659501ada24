"""Ask dbt a question beside its runs, above all which nodes a selection means."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from flows.engine.command import DbtCommand, Place, arguments
from flows.engine.environment import child_environment
from flows.engine.events import DbtEvent, parse_line
from flows.engine.failures import crash_of
from flows.engine.graph import Graph, load_graph
from flows.engine.process import DbtProcess
from flows.engine.project import Project
from flows.engine.state import State, state_of

if TYPE_CHECKING:
    from infrastructure.profiles import Profile


def list_nodes(command: DbtCommand, project: Project, profile: Profile) -> tuple[list[str], Graph]:
    """Return the unique ids that a selection means, and the graph they stand in; it connects to nothing.

    Raises:
        ConfigError: the project or the selection is wrong.
        DbtRunFailed: the project's SQL or Jinja does not compile.
    """
    found = list_ids(command, project, profile)
    return found, load_graph(plan_state(project, profile).manifest)


def list_ids(command: DbtCommand, project: Project, profile: Profile) -> list[str]:
    """Return the unique ids that a selection means, and leave the manifest in `plan_state`; see `list_nodes`."""
    keys = ("--output", "json", "--output-keys", "unique_id")
    found: list[str] = []

    def take(event: DbtEvent) -> None:
        if event.name == "PrintEvent" or event.name.startswith("ListCmdOut"):
            found.append(orjson.loads(event.text)["unique_id"])

    ask(replace(command, verb="ls", flags=(*command.flags, *keys)), project, profile, take)
    return found


def plan_state(project: Project, profile: Profile) -> State:
    """Return folders apart from the runs', so that a question never disturbs a run that is going on."""
    state = State(state_of(project.name, profile.target, os.environ).folder / "plan")
    state.target_path.mkdir(parents=True, exist_ok=True)
    return state


def ask(
    command: DbtCommand,
    project: Project,
    profile: Profile,
    take: Callable[[DbtEvent], None],
    failing_is_an_answer: bool = False,
) -> None:
    """Run a dbt command that changes nothing, and hand on every line that it logs.

    Args:
        failing_is_an_answer: take exit code 1 for an answer too, such as that of a freshness check.

    Raises:
        ConfigError: the project or the selection is wrong.
        DbtRunFailed: dbt could not answer.
    """
    plan = plan_state(project, profile)
    place = Place(
        project=project.folder,
        profiles=plan.write_profiles(profile.profiles_yml(project.profile)),
        profile=project.profile,
        target_path=plan.target_path,
        log_path=plan.folder,
    )
    argv = [*arguments(command, place, profile.target), "--log-level-file", "none"]
    environment = child_environment(project.folder, profile)
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
        raise crash_of(command.name, profile.target, code, "\n".join(said[:10]), plan.folder, profile.warehouse)
