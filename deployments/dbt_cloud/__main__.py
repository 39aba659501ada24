"""The command line: `python -m deployments.dbt_cloud deploy | plan | list | cleanup | validate | import | …`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import click

from deployments.dbt_cloud import options
from deployments.dbt_cloud.apply.applying import Applied, check_budget, check_values
from deployments.dbt_cloud.apply.work import clean, cleanup_plan, deploy, listed, planned, with_client
from deployments.dbt_cloud.model.changes import BLOCKED, ChangeSet
from deployments.dbt_cloud.plan.cleanup import OLDER_THAN_DAYS, git_branches
from deployments.dbt_cloud.plan.planning import Options
from deployments.dbt_cloud.plan.request import (
    JobsRequest,
    described,
    load,
    number,
    owner_of,
    scope_of,
    team_of,
    warnings_of,
    with_values,
)
from flows.engine.context.state import state_root
from flows.services.dbt_cloud.client import CloudClient
from flows.services.dbt_cloud.settings import CloudSettings, settings_from
from infrastructure.console import EntryGroup, dumps, json_option
from infrastructure.errors import ConfigError, ExitCode
from infrastructure.screen import echo, styled

_COMMAND = "python -m deployments.dbt_cloud"


@click.group(
    cls=EntryGroup,
    stopped="Stopped. The journal lists what was done; deploy again to do the rest.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
def main() -> None:
    """Deploy dbt Cloud jobs from .tfvars files, or from YAML of dbt-jobs-as-code."""


@main.command("validate")
@options.together(options.config_option, options.vars_option, options.where_options, options.only_option, json_option)
@click.option("--online", is_flag=True, help="Also check that environments and variables exist in dbt Cloud.")
def validate_command(online: bool, as_json: bool, **asked: Any) -> None:  # noqa: ANN401
    """Check the files; only --online needs dbt Cloud."""
    config = load(_request(asked), os.environ)
    found = warnings_of(config)
    if online:
        from deployments.dbt_cloud.plan.online_checks import check_online

        with_client(_settings(config.account_id), lambda client: check_online(client, config))
    if as_json:
        echo(dumps({"jobs": [job.key for job in config.jobs], "warnings": found}))
        return
    for warning in found:
        echo(styled(f"  ! {warning}", fg="yellow"))
    echo(f"{described(config.jobs)}: no mistakes{', and dbt Cloud has what they need' if online else ''}.")


@main.command("plan")
@options.together(options.job_options, json_option)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Save the plan for `deploy --plan`.")
def plan_command(out: Path | None, as_json: bool, **asked: Any) -> None:  # noqa: ANN401
    """Show what a deployment would change; exit code 3 when there are changes."""
    changes = _planned(asked)
    if out is not None:
        out.write_text(json.dumps(changes.as_document(), indent=2), encoding="utf-8")
    _print_plan(changes, as_json, details=True)
    sys.exit(changes.exit_code)


@main.command("deploy")
@options.together(
    options.job_options,
    options.max_deletions_option,
    options.dry_run_option,
    options.details_option,
    json_option,
)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Apply this plan; fail if the changes would differ from it.",
)
def deploy_command(
    max_deletions: int,
    dry_run: bool,
    details: bool,
    as_json: bool,
    plan_file: Path | None,
    **asked: Any,  # noqa: ANN401
) -> None:
    """Create, change and delete jobs in dbt Cloud as the files declare."""
    if dry_run:
        changes = _planned(asked)
        check_budget(changes, max_deletions)
        check_values(changes)
        _print_plan(changes, as_json, details)
        return
    request = _request(asked)
    config = with_values(load(request, os.environ), os.environ)
    scope = scope_of(request, os.environ, config)
    expected = ChangeSet.of_document(json.loads(plan_file.read_text(encoding="utf-8"))) if plan_file else None
    changes, applied, journal = with_client(
        _settings(config.account_id),
        lambda client: deploy(
            client, config, scope, state_root(os.environ), _allowances(asked), max_deletions, expected
        ),
    )
    _finish(changes, applied, journal, as_json, details)


@main.command("cleanup")
@options.together(
    options.team_option,
    options.where_options,
    options.max_deletions_option,
    options.dry_run_option,
    options.details_option,
    json_option,
)
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    default=OLDER_THAN_DAYS,
    show_default=True,
    metavar="DAYS",
    help="Delete branch jobs that were last deployed earlier than this.",
)
@click.option(
    "--deleted-branches", metavar="REMOTE", help="Also delete jobs of branches that this git remote does not have."
)
@click.option("--force", is_flag=True, help="Also delete jobs that were changed by hand.")
def cleanup_command(
    older_than: float,
    deleted_branches: str | None,
    force: bool,
    max_deletions: int,
    dry_run: bool,
    details: bool,
    as_json: bool,
    **asked: Any,  # noqa: ANN401
) -> None:
    """Delete old branch jobs of a team; jobs without a valid stamp are left alone."""
    request = _request(asked)
    team = team_of(request, os.environ)
    branches = git_branches(deleted_branches) if deleted_branches else None
    project = request.project_id or number(os.environ, "PROJECT_ID")
    projects = [project] if project is not None else []
    settings = _settings(request.account_id)
    allowed = Options(force=force)

    async def work(client: CloudClient) -> tuple[ChangeSet, Applied | None, Path | None]:
        changes = await cleanup_plan(client, team, projects, older_than, branches, allowed)
        check_budget(changes, max_deletions)
        if dry_run:
            return changes, None, None
        return changes, *(await clean(client, changes, state_root(os.environ), max_deletions))

    changes, applied, journal = with_client(settings, work)
    if applied is None or journal is None:
        _print_plan(changes, as_json, details)
        return
    _finish(changes, applied, journal, as_json, details)


@main.command("list")
@options.together(options.team_option, options.where_options, options.details_option, json_option)
@click.option("--all", "all_jobs", is_flag=True, help="List all jobs of the account.")
def list_command(all_jobs: bool, details: bool, as_json: bool, **asked: Any) -> None:  # noqa: ANN401
    """List the jobs of a team."""
    request = _request(asked)
    team = None if all_jobs else team_of(request, os.environ)
    project = request.project_id or number(os.environ, "PROJECT_ID")
    jobs = with_client(
        _settings(request.account_id),
        lambda client: client.jobs(
            project_ids=[project] if project is not None else [],
            environment_id=request.environment_id,
            name_contains=f"{team}-" if team else None,
        ),
    )
    rows = listed(jobs, team)
    if as_json:
        echo(dumps({"jobs": rows}))
        return
    for row in rows:
        echo(_row_text(row, details))
    echo(f"{described(rows)} {f'of {team}' if team else 'in the account'}.")


@main.command("import")
@options.together(options.where_options, options.team_option, json_option)
@click.option(
    "--filter", "filters", multiple=True, metavar="REGEX", help="Only jobs whose names match this regular expression."
)
@click.option("--branch", help="Only jobs of this branch; with --user.")
@click.option("--user", help="See --branch.")
@click.option("--format", "form", type=click.Choice(["tfvars", "yaml"]), default="tfvars", show_default=True)
@click.option("--linked", is_flag=True, help="YAML: include the ids, so that a deployment takes the jobs over.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; default: print it.")
def import_command(
    filters: tuple[str, ...],
    form: str,
    linked: bool,
    out: Path | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401
) -> None:
    """Export the jobs in dbt Cloud to a file."""
    from deployments.dbt_cloud.files.importing import import_jobs, only
    from deployments.dbt_cloud.files.job_yaml import write_job_yaml
    from deployments.dbt_cloud.files.tfvars import write_tfvars
    from deployments.dbt_cloud.plan.planning import variables_of

    request = _request(asked)
    settings = _settings(request.account_id)
    owner = owner_of(request, os.environ) if request.branch else None
    project = request.project_id or number(os.environ, "PROJECT_ID")

    async def work(client: CloudClient) -> tuple[list[dict[str, Any]], dict[int, dict[str, str]]]:
        found = await client.jobs(
            project_ids=[project] if project is not None else [],
            environment_id=request.environment_id,
            with_variables=True,
        )
        chosen = only(found, owner, filters)
        return chosen, await variables_of(client, chosen)

    jobs, left = import_jobs(*with_client(settings, work), cron_only=form == "yaml", linked=linked)
    text = write_job_yaml(jobs, settings.account_id) if form == "yaml" else write_tfvars(jobs)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    if as_json:
        echo(dumps({"jobs": [job.model_dump(exclude_defaults=True) for job in jobs], "left_out": left}))
    elif out is None:
        echo(text, nl=False)
    for line in left:
        echo(styled(f"  ! left out: {line}", fg="yellow"), err=True)
    echo(f"{described(jobs)} imported{f' to {out}' if out else ''}.", err=True)


@main.command("restore")
@options.together(options.account_option, options.dry_run_option, json_option)
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    required=True,
    help="A journal, or a folder of journals. Where the state is at an address, also one of another machine.",
)
@click.option("--name", "names", multiple=True, help="Only these jobs; default: all deleted ones.")
def restore_command(
    journal: Path, names: tuple[str, ...], dry_run: bool, as_json: bool, account_id: int | None
) -> None:
    """Restore deleted jobs from the journal of the deployment or cleanup that deleted them."""
    from deployments.dbt_cloud.apply.journal import Journal, cloud_folder, deleted_jobs, fetch_journal, read_journal
    from deployments.dbt_cloud.apply.restoring import restore

    if not journal.exists():
        journal = cloud_folder(state_root(os.environ), _settings(account_id).account_id) / "journal" / journal.name
        fetch_journal(journal)
    entries = [it for it in deleted_jobs(read_journal(journal)) if not names or it["name"] in names]
    if missing := sorted(set(names) - {it["name"] for it in entries}):
        raise ConfigError(f"The journal {journal} has no deletion of {', '.join(missing)}.")
    restored: dict[str, int] = {}
    if not dry_run and entries:
        settings = _settings(account_id)
        with Journal(cloud_folder(state_root(os.environ), settings.account_id) / "journal") as own:
            restored = with_client(settings, lambda client: restore(client, entries, own))
    if as_json:
        echo(dumps({"deleted": [it["name"] for it in entries], "restored": restored}))
        return
    for entry in entries:
        new = restored.get(entry["name"])
        echo(f"  + {entry['name']} (was {entry['job_id']}{f', is {new}' if new else ''})")
    echo(f"{described(entries)} {'to restore' if dry_run else 'restored'}.")


@main.command("schedules")
@options.together(options.config_option, options.vars_option, options.where_options)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write, such as utc.auto.tfvars.json; default: print it.",
)
def schedules_command(out: Path | None, **asked: Any) -> None:  # noqa: ANN401
    """Write the UTC cron lines of jobs with a time zone for Terraform, which can't compute them."""
    from datetime import UTC, datetime

    from deployments.dbt_cloud.model.time_zones import utc_cron

    now = datetime.now(UTC)
    config = load(_request(asked), os.environ)
    compiled = {
        job.key: utc_cron(job.local_cron, job.schedule_tz or "UTC", now) for job in config.jobs if job.local_cron
    }
    text = json.dumps({"utc_schedules": compiled}, indent=2) + "\n"
    if out is None:
        echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


def _planned(asked: dict[str, Any]) -> ChangeSet:
    request = _request(asked)
    config = with_values(load(request, os.environ), os.environ)
    scope = scope_of(request, os.environ, config)
    allowed = _allowances(asked)
    changes, _ = with_client(_settings(config.account_id), lambda client: planned(client, config, scope, allowed))
    return changes


def _request(asked: dict[str, Any]) -> JobsRequest:
    names = JobsRequest.__dataclass_fields__
    return JobsRequest(**{name: value for name, value in asked.items() if name in names})


def _allowances(asked: dict[str, Any]) -> Options:
    names = Options.__dataclass_fields__
    return Options(**{name: value for name, value in asked.items() if name in names})


def _settings(account_id: int | None) -> CloudSettings:
    return settings_from(os.environ, account_id=account_id)


def _print_plan(changes: ChangeSet, as_json: bool, details: bool) -> None:
    if as_json:
        echo(dumps(changes.as_document()))
    else:
        echo(changes.text(details))


def _finish(changes: ChangeSet, applied: Applied, journal: Path, as_json: bool, details: bool) -> None:
    """Print the result, and end with its exit code."""
    is_well = not applied.failed and not changes.of(BLOCKED)
    if as_json:
        from dataclasses import asdict

        echo(
            dumps({**asdict(applied), "blocked": [it.as_document() for it in changes.of(BLOCKED)], "journal": journal})
        )
        sys.exit(ExitCode.DONE if is_well else ExitCode.FAILED)
    echo(changes.text(details))
    for note in applied.notes:
        echo(f"  {note}")
    for name, why in applied.failed.items():
        echo(styled(f"  ! {name}: {why}", fg="red"))
    echo(
        f"{len(applied.created)} created, {len(applied.updated)} changed, {len(applied.deleted)} deleted"
        + (f", {len(applied.failed)} failed" if applied.failed else "")
        + (f". Journal: {journal}" if journal.exists() else ".")
    )
    if applied.deleted:
        echo(f"To restore what was deleted: {_COMMAND} restore --journal {journal}")
    sys.exit(ExitCode.DONE if is_well else ExitCode.FAILED)


def _row_text(row: dict[str, Any], details: bool) -> str:
    line = f"  {row['id']:>8}  {row['name']}"
    if row["by_hand"]:
        line += f"  ({row['by_hand']})"
    if not details:
        return line
    whose = f"{row['branch']} of {row['user']}" if row["branch"] else row["kind"]
    deployed = f", deployed {row['deployed_at']:%Y-%m-%d %H:%M} UTC" if row["deployed_at"] else ""
    clock = row["local_schedule"] or row["schedule"] or "no schedule"
    steps = " && ".join(cast(list[str], row["steps"]))
    return f"{line}\n            {whose}{deployed}; {clock}; environment {row['environment_id']}\n            {steps}"


if __name__ == "__main__":
    main(prog_name=_COMMAND)
