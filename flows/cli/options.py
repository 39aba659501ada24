"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import yaml

from flows.engine.context.options import RETRIES, RunOptions
from infrastructure.errors import ConfigError
from infrastructure.program import PROGRAM_VARIABLE

_Command = TypeVar("_Command", bound=Callable[..., Any])

target_option = click.option("--target", "-t", default="dev", show_default=True, help="The environment to work on.")
select_option = click.option(
    "--select", "-s", multiple=True, metavar="NODES", help="dbt selection, such as tag:marts or stg_*+."
)
exclude_option = click.option("--exclude", multiple=True, metavar="NODES", help="dbt selection to leave out.")
selector_option = click.option("--selector", metavar="NAME", help="A named set of the project's selectors.yml.")
_project_option = click.option(
    "--project-dir", metavar="FOLDER", help="Another dbt project; the one in dbt/ when left out."
)
vars_option = click.option("--vars", "variables", metavar="YAML", help="dbt variables, as in '{day: 2026-01-31}'.")
full_refresh_option = click.option("--full-refresh", is_flag=True, help="Rebuild incremental models from nothing.")
changed_option = click.option(
    "--changed", is_flag=True, help="Only what changed in code or data since it was built last."
)
defer_to_option = click.option(
    "--defer-to",
    metavar="TARGET",
    help="Only what is modified compared with another target, from which everything else is read.",
)
allow_nothing_option = click.option(
    "--allow-nothing", is_flag=True, help="Take a selection that matches no node for what was meant."
)
# All of RunOptions, in the order in which help lists them.
_RUN_OPTIONS = (
    select_option,
    exclude_option,
    selector_option,
    full_refresh_option,
    vars_option,
    click.option("--freshness/--no-freshness", default=True, help="Stop before building when a source is too old."),
    click.option("--docs", is_flag=True, help="Generate the documentation site at the end."),
    click.option("--resume", is_flag=True, help="Do only what the last run like this left undone."),
    changed_option,
    defer_to_option,
    click.option("--wait/--no-wait", default=True, help="Wait for a run that is writing to the target."),
    click.option(
        "--retries",
        type=click.IntRange(0),
        default=RETRIES,
        show_default=True,
        help="How often a node is tried again that failed for a passing reason: a lost connection, a lock, a quota.",
    ),
    click.option(
        "--timeout-minutes",
        type=click.FloatRange(0, min_open=True),
        metavar="MINUTES",
        help="Stop the run after so long; by default it may take as long as it takes.",
    ),
    click.option("--fail-fast", is_flag=True, help="Begin no further node once one has failed."),
    click.option(
        "--threads",
        type=click.IntRange(1),
        metavar="COUNT",
        help="Nodes that run at a time; else the profile's.",
    ),
    allow_nothing_option,
)


def _use_dbt(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value:
        # A path is meant from here, which is not where everything below starts to look.
        os.environ[PROGRAM_VARIABLE] = str(Path(value).absolute()) if os.sep in value else value


def project_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which project a command works on, and with which dbt."""
    dbt_option = click.option(
        "--dbt",
        metavar="PATH",
        expose_value=False,
        callback=_use_dbt,
        help="Use this dbt for this run: a program, a virtual environment's folder, or a name on the PATH.",
    )
    return _project_option(dbt_option(command))


raw_schema_option = click.option("--raw-schema", default="raw", show_default=True, help="The schema to load into.")


def run_options(command: _Command) -> _Command:
    """Give a command every option of a run; `options_of` reads them."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def options_of(asked: dict[str, Any]) -> RunOptions:
    """Return what the options of a run came to, from the parameters that click hands over.

    Raises:
        ConfigError: they contradict each other, or --vars is no mapping.
    """
    given = dict(asked)
    given["vars"] = parse_vars(given.pop("variables"))
    if minutes := given.pop("timeout_minutes", None):
        given["timeout_seconds"] = minutes * 60
    for name in ("select", "exclude"):
        given[name] = " ".join(given[name]) or None
    return RunOptions(**given)


def examples(*lines: str) -> str:
    """Return the epilog of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def parse_vars(text: str | None) -> dict[str, Any]:
    """Return the variables that --vars was given.

    Raises:
        ConfigError: the text is no YAML mapping.
    """
    if not text:
        return {}
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"--vars is not valid YAML: {text!r}. Write it as '{{name: value}}'.") from exc
    if not isinstance(document, dict):
        raise ConfigError(f"--vars has to be a mapping, not {text!r}. Write it as '{{name: value}}'.")
    return {str(name): value for name, value in cast(dict[Any, Any], document).items()}
