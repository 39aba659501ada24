"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import yaml

from flows.cli import completion
from flows.engine.context.options import DBT_OPTIONS, RETRIES, RunOptions
from flows.engine.context.packages import NO_DEPS_VARIABLE
from infrastructure.errors import ConfigError
from infrastructure.program import PROGRAM_VARIABLE

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _default_target() -> str:
    from infrastructure.targets.target_file import default_target

    return default_target()


target_option = click.option(
    "--target",
    "-t",
    default=_default_target,
    show_default="the `default` of targets.yml",
    shell_complete=completion.targets,
    help="The environment to work on.",
)
select_option = click.option(
    "--select",
    "-s",
    multiple=True,
    metavar="NODES",
    shell_complete=completion.nodes,
    help="dbt selection, such as tag:marts or stg_*+.",
)
exclude_option = click.option(
    "--exclude", multiple=True, metavar="NODES", shell_complete=completion.nodes, help="dbt selection to exclude."
)
selector_option = click.option(
    "--selector",
    metavar="NAME",
    shell_complete=completion.selectors,
    help="A selector of the project's selectors.yml.",
)
_project_option = click.option(
    "--project",
    "--project-dir",
    "project_dir",
    metavar="NAME|FOLDER",
    shell_complete=completion.projects,
    help="The dbt project, by its name in the workspace or its folder; default: that of the workspace.",
)
vars_option = click.option("--vars", "variables", metavar="YAML", help="dbt variables, as in '{day: 2026-01-31}'.")
full_refresh_option = click.option("--full-refresh", is_flag=True, help="Rebuild incremental models from scratch.")
changed_option = click.option(
    "--changed", is_flag=True, help="Build only what changed in code or data since its last build."
)
defer_to_option = click.option(
    "--defer-to",
    metavar="TARGET",
    shell_complete=completion.targets,
    help="Build only what differs from another target, and read everything else from there.",
)
allow_nothing_option = click.option(
    "--allow-nothing", is_flag=True, help="Succeed, rather than fail, when the selection matches no node."
)
indirect_selection_option = click.option(
    "--indirect-selection",
    type=click.Choice(["eager", "cautious", "buildable", "empty"]),
    help="Which tests of the selected nodes come along; default: eager, those of every selected node.",
)
# What --resume stands for where no run is named.
_LAST = "last"
# All of RunOptions by field, in the order in which help lists them.
_RUN_OPTIONS: Mapping[str, Callable[[Any], Any]] = {
    "select": select_option,
    "exclude": exclude_option,
    "selector": selector_option,
    "full_refresh": full_refresh_option,
    "vars": vars_option,
    "freshness": click.option(
        "--freshness/--no-freshness", default=True, help="Stop before building when a source is too old."
    ),
    "docs": click.option("--docs", is_flag=True, help="Generate the documentation site at the end."),
    "resume": click.option(
        "--resume",
        is_flag=False,
        flag_value=_LAST,
        metavar="[RUN]",
        help="Do only what the last run with these options left undone, or the named run, with its own options.",
    ),
    "changed": changed_option,
    "defer_to": defer_to_option,
    "wait": click.option("--wait/--no-wait", default=True, help="Wait while another run writes to the target."),
    "retries": click.option(
        "--retries",
        type=click.IntRange(0),
        default=RETRIES,
        show_default=True,
        help="How often to retry a node after a transient failure: a lost connection, a lock, a quota.",
    ),
    "timeout_seconds": click.option(
        "--timeout-minutes",
        type=click.FloatRange(0, min_open=True),
        metavar="MINUTES",
        help="Stop the run after so many minutes; default: no limit.",
    ),
    "fail_fast": click.option("--fail-fast", is_flag=True, help="Start no further node after a failure."),
    "threads": click.option(
        "--threads",
        type=click.IntRange(1),
        metavar="COUNT",
        help="How many nodes run at a time; default: as in the profile.",
    ),
    "empty": click.option("--empty", is_flag=True, help="Build every table without rows, to see that the SQL works."),
    "sample": click.option(
        "--sample", metavar="WINDOW", help="Build from the rows of a window of time alone, such as '3 days'."
    ),
    "event_time_start": click.option(
        "--event-time-start", metavar="TIME", help="Build the batches of microbatch models from this day or time on."
    ),
    "event_time_end": click.option(
        "--event-time-end", metavar="TIME", help="Up to this day or time, which no longer belongs to it."
    ),
    "store_failures": click.option(
        "--store-failures", is_flag=True, help="Keep the rows that each test finds in a table."
    ),
    "indirect_selection": indirect_selection_option,
    "allow_nothing": allow_nothing_option,
}
# Of a whole run alone.
_OF_A_BUILD = frozenset({"freshness", "docs", "changed", "defer_to"})


def _use_dbt(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value:
        # A path is relative to the current folder, which is not where the code below starts to look.
        os.environ[PROGRAM_VARIABLE] = str(Path(value).absolute()) if os.sep in value else value


def _without_deps(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ[NO_DEPS_VARIABLE] = "1"


def project_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the project that a command works on, and for its dbt."""
    dbt_option = click.option(
        "--dbt",
        metavar="PATH",
        expose_value=False,
        callback=_use_dbt,
        help="The dbt to use: a program, a virtual environment's folder, or a name on the PATH.",
    )
    deps_option = click.option(
        "--no-deps",
        is_flag=True,
        expose_value=False,
        callback=_without_deps,
        help="Do not install the project's packages when they are missing.",
    )
    return _project_option(dbt_option(deps_option(command)))


raw_schema_option = click.option("--raw-schema", default="raw", show_default=True, help="The schema to load into.")


def run_options(verb: str = "build") -> Callable[[_Command], _Command]:
    """Give a command every option of a run that its dbt command has; `options_of` reads them."""

    def add(command: _Command) -> _Command:
        for name, option in reversed(list(_RUN_OPTIONS.items())):
            is_dbts = verb in DBT_OPTIONS[name].since if name in DBT_OPTIONS else True
            if is_dbts and (verb == "build" or name not in _OF_A_BUILD):
                command = option(command)
        return command

    return add


def options_of(asked: dict[str, Any]) -> RunOptions:
    """Return the options of a run from the parameters that click passes.

    Raises:
        ConfigError: they contradict each other, or --vars is not a mapping.
    """
    given = dict(asked)
    given["vars"] = parse_vars(given.pop("variables"))
    if minutes := given.pop("timeout_minutes", None):
        given["timeout_seconds"] = minutes * 60
    named = given.pop("resume", None)
    given |= {"resume": named is not None, "resume_run": None if named == _LAST else named}
    for name in ("select", "exclude"):
        given[name] = " ".join(given.get(name, ())) or None
    return RunOptions(**given)


def examples(*lines: str) -> str:
    """Return the epilog of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def parse_vars(text: str | None, option: str = "--vars") -> dict[str, Any]:
    """Return the variables in the text of --vars, or of another option that takes a mapping.

    Raises:
        ConfigError: the text is not a YAML mapping.
    """
    if not text:
        return {}
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"{option} is not valid YAML: {text!r}. Write it as '{{name: value}}'.") from exc
    if not isinstance(document, dict):
        raise ConfigError(f"{option} has to be a mapping, not {text!r}. Write it as '{{name: value}}'.")
    return {str(name): value for name, value in cast(dict[Any, Any], document).items()}
