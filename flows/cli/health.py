"""`tributary health`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from flows.cli.options import examples, project_option, target_option
from infrastructure.console import dumps, json_option, let_go, quiet_prefect, say
from infrastructure.errors import ExitCode
from infrastructure.screen import echo, screen, styled

if TYPE_CHECKING:
    from flows.runbook.health.flow import HealthReport

_COLOURS = {"passed": "green", "warned": "yellow", "failed": "red", "could not run": "red"}


@click.command(
    epilog=examples(
        "tributary health",
        "tributary health --target prod --quick",
        "tributary health --json | jq '.checks[] | select(.outcome != \"passed\")'",
    )
)
@target_option
@project_option
@click.option(
    "--quick", is_flag=True, help="Check only freshness, the last test results, row counts and lag; run no tests."
)
@click.option("--thresholds", metavar="FILE", help="Thresholds to use in place of flows/history/health.yml.")
@json_option
def health(target: str, project_dir: str | None, quick: bool, thresholds: str | None, as_json: bool) -> None:
    """Check freshness, runs, tests, tables and schedules against their thresholds; exit code 1 when one fails."""
    from infrastructure.errors import HealthCheckFailed

    quiet_prefect()
    try:
        report = _check(target, project_dir, quick, thresholds)
    except HealthCheckFailed as exc:
        report: HealthReport = exc.report
        let_go(exc)
    if as_json:
        from flows.runbook.health.flow import table_rows

        echo(
            dumps(
                {
                    "target": target,
                    "checked_at": report.checked_at,
                    "checks": table_rows(report),
                    "left_out": report.left_out,
                }
            )
        )
    else:
        _print(report)
    if report.unhealthy:
        sys.exit(ExitCode.FAILED)


def _check(target: str, project_dir: str | None, quick: bool, thresholds: str | None) -> HealthReport:

    from flows.engine.context.reporting import reporting_to
    from flows.report.terminal import TerminalReporter
    from flows.runbook.health.flow import check_transform_health, morning_health_check
    from infrastructure.server.local_server import prefect_server
    from infrastructure.setup_profiles import ensure_target

    check = check_transform_health if quick else morning_health_check
    with (
        TerminalReporter(screen(stderr=True)) as reporter,
        reporting_to(reporter),
        prefect_server(say, targets=[target]),
    ):
        for sentence in ensure_target(target):
            say(sentence)
        return check(target, project_dir, thresholds)


def _print(report: HealthReport) -> None:
    for checked in report.checks:
        finding = checked.finding
        name = checked.name.replace("_", " ")
        echo(f"{styled(f'{finding.outcome:<13}', fg=_COLOURS[finding.outcome])} {name:<20} {finding.found}")
        if finding.outcome == "passed":
            continue
        for item in finding.items[:5]:
            echo(f"{'':35}- {item}")
        if len(finding.items) > 5:
            echo(f"{'':35}  and {len(finding.items) - 5} more")
        echo(f"{'':35}normal: {checked.check.normal}")
        echo(f"{'':35}do:     {checked.check.action}")
    echo(f"\n{report.sentence()}")
