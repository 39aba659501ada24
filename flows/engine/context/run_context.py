"""What a run works on: its project, its profile, its state, its flow run; found out once, and known from there on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from flows.engine.context.project import Project, project_folder, project_to_run
from flows.engine.context.reporting import Reporter, current_reporter
from flows.engine.context.state import State, state_of
from infrastructure.errors import TributaryError

if TYPE_CHECKING:
    from pathlib import Path

    from infrastructure.profiles import Profile


@dataclass(frozen=True)
class FlowRun:
    """The flow run that node task runs belong to.

    Attributes:
        flow: the flow's own name.
    """

    id: UUID
    name: str
    flow: str = ""


def current_flow_run() -> FlowRun | None:
    """Return the flow run that this code runs in; None outside of one."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    return FlowRun(context.flow_run.id, context.flow_run.name, context.flow.name if context.flow else "")


def flow_run_name(verb: str, *named: str) -> Callable[[], str]:
    """Return a function that names a flow run `<project> <verb> <target>`, so that two projects can be told apart.

    Args:
        named: parameters of the flow whose values stand after the verb.
    """

    def name() -> str:
        from prefect.runtime import flow_run

        parameters = flow_run.get_parameters()
        target = str(parameters.get("target"))
        about = (value for each in named if (value := parameters.get(each)))
        words = [verb, *("+".join(map(str, it)) if isinstance(it, list | tuple) else str(it) for it in about), target]
        # The flow itself says what is wrong with a project.
        with suppress(TributaryError):
            words.insert(0, state_of(project_at(parameters.get("project_dir")), target, os.environ).project)
        return " ".join(words)

    return name


def is_on_its_own() -> bool:
    """Say whether the flow run was started by its own process: by no deployment and no other flow."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run is not None and run.deployment_id is None and run.parent_task_run_id is None


def current_holder() -> str:
    """Return the text that runs waiting for a target of this code show."""
    return _holder(current_flow_run())


def _holder(flow_run: FlowRun | None) -> str:
    return f"flow run {flow_run.name}" if flow_run else f"a task of process {os.getpid()}"


@dataclass(frozen=True)
class RunContext:
    """A project on a target, and who works on it.

    Attributes:
        flow_run: None outside of one.
        run_id: names the folders of its dbt commands; the flow run's id where there is one.
    """

    project: Project
    profile: Profile
    flow_run: FlowRun | None = None
    run_id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def target(self) -> str:
        """Return the name of the target."""
        return self.profile.target

    @cached_property
    def state(self) -> State:
        """Return the folders of the project on the target.

        Raises:
            ConfigError: they can't be made.
        """
        return state_of(self.project, self.target, os.environ)

    @property
    def holder(self) -> str:
        """Return the text that runs waiting for the target show."""
        return _holder(self.flow_run)

    @property
    def reporter(self) -> Reporter:
        """Return the current reporter."""
        return current_reporter()


_open: ContextVar[Mapping[tuple[str, Path], RunContext]] = ContextVar("tributary_run_contexts")


@contextmanager
def open_context(target: str, project: Project | str | None = None) -> Iterator[RunContext]:
    """Find out what a run works on, once: what is opened inside the block for the same target and project is the same.

    Args:
        project: its folder or its name in the workspace, where it was not read yet; the workspace's when None.

    Raises:
        ConfigError: the target is not set up, or the folder is no dbt project; see `project_to_run`.
    """
    from infrastructure.profiles import load_profile

    known = _open.get({})
    folder = project.folder if isinstance(project, Project) else project_folder(project)
    flow_run = current_flow_run()
    outer = known.get((target, folder))
    if outer is None:
        found = project if isinstance(project, Project) else project_to_run(project)
        profile = load_profile(target)
        run = RunContext(found, replace(profile, dbt=found.dbt) if found.dbt else profile, flow_run)
    else:
        run = outer if outer.flow_run == flow_run else replace(outer, flow_run=flow_run)
    if flow_run and run.run_id != str(flow_run.id):
        run = replace(run, run_id=str(flow_run.id))
    token = _open.set({**known, (target, folder): run})
    try:
        yield run
    finally:
        _open.reset(token)


def project_at(folder: str | None) -> Project:
    """Return the project of a folder as an open context knows it; read where none does, see `project_to_run`."""
    place = project_folder(folder)
    known = next((run.project for (_, opened), run in _open.get({}).items() if opened == place), None)
    return known or project_to_run(folder)
