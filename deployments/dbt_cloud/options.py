"""The options of the command line, each written once, and exit codes that mean one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from deployments.dbt_cloud.applying import MAX_DELETIONS

EXIT_FAILED = 1
EXIT_CHANGES = 2
EXIT_INTERRUPTED = 130

Function = TypeVar("Function", bound=Callable[..., Any])


class Commands(click.Group):
    """Commands whose wrong use ends with 1: click's own 2 would look like "there are changes"."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401
    ) -> click.Context:
        with _usage():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        with _usage():
            return super().invoke(ctx)


class _Misuse(click.UsageError):
    exit_code = EXIT_FAILED


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except click.UsageError as exc:
        raise _Misuse(exc.format_message(), exc.ctx) from exc


def together(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Put several options on a command, in this order."""

    def add(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add


config_option = click.option("--config", "files", multiple=True, metavar="FILE", help="May be given more than once.")
vars_option = click.option(
    "--vars-yml", "variable_files", multiple=True, metavar="FILE", help="Values of YAML templates."
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
    click.option("--production", "is_production", is_flag=True, help="The team's own jobs, not a branch's."),
)
only_option = click.option(
    "--limit-environment",
    "only_environments",
    type=int,
    multiple=True,
    metavar="ID",
    help="Of YAML files: only jobs in this environment.",
)
allowed_options = together(
    click.option("--force", is_flag=True, help="Overwrite and delete what somebody changed by hand."),
    click.option("--adopt", is_flag=True, help="Take over jobs of the right name that were not deployed from here."),
    click.option("--write-secrets", is_flag=True, help="Send secrets again; they can't be compared."),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document for a program to read.")
details_option = click.option("--details", is_flag=True, help="Say all there is to say.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
max_deletions_option = click.option(
    "--max-deletions", type=click.IntRange(0), default=MAX_DELETIONS, show_default=True, help="Refuse to delete more."
)
