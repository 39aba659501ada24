"""The command line that runs again what failed, for a person to copy: pure functions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from flows.engine.context.command import DbtCommand
from infrastructure.commands import program

_RESUMED, _OF_A_RUN = "resume", "resume_run"

# Commands of ours that go on with what a dbt command left undone.
_COMMANDS = {"build": "run", **{verb: verb for verb in ("test", "seed", "snapshot")}}


def of_deployment(flow: str, deployment: str, accepted: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the command that starts a deployment again with the parameters of a run, and resumes it if it can.

    Args:
        accepted: the flow's parameters with their defaults.
        given: those of the run.
    """
    words = ["uv", "run", "prefect", "deployment", "run", f"{flow}/{deployment}"]
    for name, value in _changed_parameters(accepted, given).items():
        words += ["--param", f"{name}={value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"]
    return shlex.join(words)


def of_pipeline(accepted: Mapping[str, Any], given: Mapping[str, Any], command: str = "run") -> str:
    """Return the command line for a run of the pipeline without a deployment; see `of_deployment`."""
    words = [*program().split(), command]
    again = _changed_parameters(accepted, given)
    # The command line has it in minutes.
    again = {
        "timeout_minutes" if name == "timeout_seconds" else name: value / 60 if name == "timeout_seconds" else value
        for name, value in again.items()
    }
    # On the command line, the run is what --resume is given.
    again |= {_RESUMED: run} if (run := again.pop(_OF_A_RUN, None)) else {}
    for name, value in again.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            said = f"{value:g}" if isinstance(value, float) else json.dumps(value, sort_keys=True)
            words += [f"--{option}", value if isinstance(value, str) else said]
    return shlex.join(words)


def of_verb(verb: str, target: str, project_dir: str | None) -> str:
    """Return the command line for a command that takes a target and a project."""
    return shlex.join(
        [*program().split(), verb, "--target", target, *(("--project-dir", project_dir) if project_dir else ())]
    )


def of_command(command: DbtCommand, target: str, project_dir: str | None) -> str | None:
    """Return the command line for a dbt command outside of any pipeline; None where there is none for it."""
    name = _COMMANDS.get(command.verb)
    if name is None:
        return None
    given = {
        "target": target,
        "select": command.select,
        "exclude": command.exclude,
        "selector": command.selector,
        "full_refresh": command.full_refresh,
        "vars": dict(command.vars) or None,
        "project_dir": project_dir,
    }
    nothing: dict[str, Any] = {**dict.fromkeys(given), "full_refresh": False, _RESUMED: False}
    return of_pipeline(nothing, given, name)


def _changed_parameters(accepted: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that differ from their defaults, with `resume` where the flow takes it."""
    parameters = {
        name: value
        for name, value in given.items()
        if name != _RESUMED and (name == "target" or (value or None) != (accepted.get(name) or None))
    }
    return parameters | ({_RESUMED: True} if _RESUMED in accepted else {})
