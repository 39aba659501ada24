"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from deployments.dbt_cloud.apply.applying import MAX_DELETIONS

Function = TypeVar("Function", bound=Callable[..., Any])


def together(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Return a decorator that adds several options to a command, in this order."""

    def add(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add


config_option = click.option(
    "--config",
    "files",
    multiple=True,
    metavar="FILE",
    help="A job file, folder or pattern; may be given more than once.",
)
vars_option = click.option(
    "--vars-yml", "variable_files", multiple=True, metavar="FILE", help="A YAML file with values for templates."
)
account_option = click.option("--account-id", type=int, help="Default: the file's, or DBTCLOUD_ACCOUNT_ID.")
where_options = together(
    click.option("--project-id", type=int, help="Default: the file's, or PROJECT_ID."),
    click.option("--environment-id", type=int, help="Default: the file's, or ENVIRONMENT_ID."),
    account_option,
)
team_option = click.option("--team", help="Default: the file's, or TEAM_NAME, or analytics-team.")
who_options = together(
    team_option,
    click.option("--branch", help="Default: CI_COMMIT_REF_NAME, or CI_COMMIT_REF_SLUG."),
    click.option("--user", help="Default: GITLAB_USER_LOGIN."),
    click.option("--production", "is_production", is_flag=True, help="The team's production jobs, not a branch's."),
)
only_option = click.option(
    "--limit-environment",
    "only_environments",
    type=int,
    multiple=True,
    metavar="ID",
    help="Only jobs of YAML files in this environment.",
)
allowed_options = together(
    click.option("--force", is_flag=True, help="Overwrite and delete jobs that were changed by hand."),
    click.option("--adopt", is_flag=True, help="Take over jobs of the same name that were not deployed by this tool."),
    click.option("--write-secrets", is_flag=True, help="Send secrets again, as they can't be compared."),
)
# Of what is planned and deployed alike.
job_options = together(config_option, vars_option, where_options, who_options, only_option, allowed_options)
details_option = click.option("--details", is_flag=True, help="Show all details.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
max_deletions_option = click.option(
    "--max-deletions",
    type=click.IntRange(0),
    default=MAX_DELETIONS,
    show_default=True,
    help="Refuse to delete more.",
)
