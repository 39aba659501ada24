"""Options that several commands share."""

from __future__ import annotations

from typing import Any, cast

import click
import yaml

from infrastructure.errors import ConfigError

target_option = click.option("--target", "-t", default="dev", show_default=True, help="The environment to work on.")
select_option = click.option(
    "--select", "-s", multiple=True, metavar="NODES", help="dbt selection, such as tag:marts or stg_*+."
)
exclude_option = click.option("--exclude", multiple=True, metavar="NODES", help="dbt selection to leave out.")
selector_option = click.option("--selector", metavar="NAME", help="A named set of the project's selectors.yml.")
project_option = click.option(
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
raw_schema_option = click.option("--raw-schema", default="raw", show_default=True, help="The schema to load into.")


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
