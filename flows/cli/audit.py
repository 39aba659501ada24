"""`tributary audit`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import examples, project_option, select_option, target_option
from infrastructure.console import dumps, json_option, let_go, quiet_prefect, say
from infrastructure.errors import ExitCode
from infrastructure.screen import echo, screen, styled

if TYPE_CHECKING:
    from flows.runbook.audit.flow import AuditReport

_COLOURS = {"error": "red", "warning": "yellow", "ok": "green", "not made": None}


@click.command(
    epilog=examples(
        "tributary audit --target prod",
        "tributary audit --target prod --output audit.html",
        "tributary audit --json | jq '.sections[] | select(.outcome == \"error\")'",
    )
)
@target_option
@select_option
@project_option
@click.option("--settings", metavar="FILE", help="Settings to use in place of flows/runbook/audit/audit.yml.")
@click.option("--output", "-o", metavar="FILE", help="Where to write the report, as .md or .html.")
@json_option
def audit(
    target: str,
    select: tuple[str, ...],
    project_dir: str | None,
    settings: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Check versions, late corrections, amounts and slow models; exit code 1 when there are errors."""
    from infrastructure.errors import AuditFailed

    quiet_prefect()
    try:
        report = _run(target, " ".join(select) or None, project_dir, settings, output)
    except AuditFailed as exc:
        report: AuditReport = exc.report
        let_go(exc)
    if as_json:
        from flows.runbook.audit.flow import as_document

        echo(dumps(as_document(report)))
    else:
        _print(report)
    if report.of("error"):
        sys.exit(ExitCode.FAILED)


def _run(*arguments: Any) -> AuditReport:  # noqa: ANN401  (the flow's own parameters)

    from flows.engine.context.reporting import reporting_to
    from flows.report.terminal import TerminalReporter
    from flows.runbook.audit.flow import monthly_audit
    from infrastructure.server.local_server import prefect_server
    from infrastructure.setup_profiles import ensure_target

    with (
        TerminalReporter(screen(stderr=True)) as reporter,
        reporting_to(reporter),
        prefect_server(say, targets=[arguments[0]]),
    ):
        for sentence in ensure_target(arguments[0]):
            say(sentence)
        return monthly_audit(*arguments)


def _print(report: AuditReport) -> None:
    from rich.table import Table

    console = screen()
    for section in report.sections:
        outcome = styled(f"{section.outcome:<9}", fg=_COLOURS[section.outcome])
        echo(f"{outcome} {section.title}: {section.sentence}")
        if section.rows and section.outcome in ("error", "warning"):
            table = Table(*section.rows[0])
            for row in section.rows[:20]:
                table.add_row(*map(str, row.values()))
            console.print(table)
            if len(section.rows) > 20:
                echo(f"          and {len(section.rows) - 20} more in the report")
        if section.action:
            echo(f"          do: {section.action}")
    echo(f"\n{report.sentence()}\nReport: {report.file}")
