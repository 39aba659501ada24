"""The monthly audit: check versions, late corrections, amounts against the source, and slow models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import flow_run_name, open_context
from flows.engine.target.file_lock import one_writer
from flows.history.rows import utc
from flows.history.store import history_store
from flows.report.artifacts import attaching, key_of
from flows.runbook.audit.checks import Section, accuracy, corrections, integrity, slow_models
from flows.runbook.audit.settings import load_settings
from flows.runbook.project_tables import read_declared
from flows.warehouses.door import open_warehouse
from infrastructure.commands import program
from infrastructure.errors import AuditFailed, ConfigError, preview
from infrastructure.plain_text import html_text, markdown_text
from infrastructure.private_files import private_folder, write_whole

_AUDITS = "audits"


@dataclass(frozen=True)
class AuditReport:
    """What an audit found on one target.

    Attributes:
        file: where the report was written.
    """

    target: str
    project: str
    made_at: datetime
    sections: tuple[Section, ...]
    file: Path | None = None

    def of(self, outcome: str) -> list[Section]:
        """Return the sections with this outcome."""
        return [section for section in self.sections if section.outcome == outcome]

    def sentence(self) -> str:
        """Return how the audit ended."""
        parts = [f"{len(self.of(name))} {name}" for name in ("error", "warning", "ok", "not made") if self.of(name)]
        return f"Audit of {self.project} on target {self.target}: {', '.join(parts)}."


@with_alerts
@flow(flow_run_name=flow_run_name("audit"), validate_parameters=True)
def monthly_audit(
    target: str = "dev",
    select: str | None = None,
    project_dir: str | None = None,
    settings: str | None = None,
    output: str | None = None,
) -> AuditReport:
    """Audit a target; it changes nothing.

    Args:
        select: dbt selection of the models and snapshots whose versions are checked; all when None.
        settings: a file like flows/runbook/audit/audit.yml, which is used when None.
        output: where to write the report, as .md or .html; in the folder of the target's state when None.

    Raises:
        AuditFailed: there are errors, or nothing could be checked; the report is written before.
        ConfigError: the settings, the project or a declaration are wrong.
    """
    chosen = load_settings(Path(settings) if settings else None)
    if output and Path(output).suffix not in (".md", ".html"):
        raise ConfigError(f"The report can be written as .md or .html, not as {output}.")
    # Data that a run is writing meanwhile would look like a fault.
    with open_context(target, project_dir) as run, one_writer(target, holder=run.holder):
        project, profile = run.project, run.profile
        declared = read_declared(project, profile, select)
        found = declared.versions()
        now = datetime.now(UTC)
        with open_warehouse(profile) as tables:
            sections = [
                integrity(tables, found, target),
                *corrections(tables, found, chosen.months),
                *(accuracy(tables, declared, check) for check in chosen.accuracy),
            ]
    with history_store(os.environ).reading(run.state.project, target) as history:
        sections.append(slow_models(history, chosen.slow_models, utc(now)))
    file = Path(output).expanduser().absolute() if output else None
    if file is None:
        file = run.state.folder / _AUDITS / f"audit-{now:%Y-%m-%d}.md"
    report = AuditReport(target, project.name, now, tuple(sections), file)
    _write(report, file)
    _publish(report)
    current_reporter().note(f"{report.sentence()} Report: {file}")
    if report.of("error"):
        reasons = preview([f"{section.title}: {section.sentence}" for section in report.of("error")])
        raise AuditFailed(f"{report.sentence()} {reasons} Report: {file}", report)
    if len(report.of("not made")) == len(sections):
        raise AuditFailed(
            f"{report.sentence()} Nothing could be checked, so nothing is proven to be right. "
            f"Build the target first: {program()} run --target {target}. Report: {file}",
            report,
        )
    return report


def as_markdown(report: AuditReport) -> str:
    """Return the report as Markdown."""
    lines = [f"# {markdown_text(report.sentence())}", "", f"Made {report.made_at:%Y-%m-%d %H:%M} UTC."]
    for section in report.sections:
        lines += ["", f"## {markdown_text(section.title)}: {section.outcome}", "", markdown_text(section.sentence)]
        if section.action:
            lines += ["", f"What to do: {markdown_text(section.action)}"]
        if section.rows:
            names = list(section.rows[0])
            lines += ["", f"| {' | '.join(map(markdown_text, names))} |", f"|{' --- |' * len(names)}"]
            lines += [f"| {' | '.join(markdown_text(str(row[name])) for name in names)} |" for row in section.rows]
    return "\n".join(lines) + "\n"


def as_html(report: AuditReport) -> str:
    """Return the report as a self-contained HTML page."""
    parts = [f"<h1>{html_text(report.sentence())}</h1><p>Made {report.made_at:%Y-%m-%d %H:%M} UTC.</p>"]
    for section in report.sections:
        kind = section.outcome.replace(" ", "-")
        parts.append(f'<h2>{html_text(section.title)} <span class="{kind}">{html_text(section.outcome)}</span></h2>')
        parts.append(f"<p>{html_text(section.sentence)}</p>")
        if section.action:
            parts.append(f"<p>What to do: {html_text(section.action)}</p>")
        if section.rows:
            parts.append(_html_table(section.rows))
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
        "table{border-collapse:collapse}th,td{border-bottom:1px solid #ddd;padding:.25rem .75rem;text-align:left}"
        "span{font-size:.8rem;padding:.1rem .5rem;border-radius:1rem;background:#ddd}"
        ".error{background:#b42318;color:#fff}.warning{background:#f5c451}.ok{background:#1a7f4b;color:#fff}"
    )
    title = html_text(f"Audit of {report.target}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def as_document(report: AuditReport) -> dict[str, Any]:
    """Return the report as JSON types; amounts are text, so that they stay exact."""
    return {
        "target": report.target,
        "project": report.project,
        "made_at": report.made_at,
        "file": report.file,
        "sections": [
            {
                "title": section.title,
                "outcome": section.outcome,
                "found": section.sentence,
                "what to do": section.action,
                "rows": [{name or "note": value for name, value in row.items()} for row in section.rows],
            }
            for section in report.sections
        ],
    }


def _html_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html_text(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{html_text(str(value))}</td>' for value in row.values())}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _write(report: AuditReport, file: Path) -> None:
    text = as_html(report) if file.suffix == ".html" else as_markdown(report)
    try:
        private_folder(file.parent)
        write_whole(file, text.encode(), keeps_mode=True)
    except OSError as exc:
        raise ConfigError(f"The report can't be written to {file}: {exc.strerror}. Name another file.") from exc


def _publish(report: AuditReport) -> None:
    from prefect.artifacts import create_markdown_artifact

    with attaching():
        create_markdown_artifact(as_markdown(report), key=key_of("audit", report.target), description=report.sentence())
