"""Triage failing tests: run them again, keep their rows, find what changed upstream, alert, start the clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.results import DbtResult, FailingRows, NodeResult
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import flow_run_name, open_context
from flows.engine.target.file_lock import one_writer
from flows.pipelines import tasks
from flows.report.artifacts import attaching, key_of
from flows.runbook.triage.changes import Changes, changes_since, failing_tests, keep_passes, last_state
from flows.warehouses.door import open_warehouse
from infrastructure.errors import DbtRunFailed, TributaryError, UpstreamUnavailable
from infrastructure.plain_text import count_of, markdown_block, markdown_code, markdown_text

if TYPE_CHECKING:
    from flows.engine.artifacts.manifest import Manifest
    from infrastructure.profiles import Profile

ROW_LIMIT = 20


@dataclass(frozen=True)
class Triaged:
    """One test that still fails.

    Attributes:
        failures: how many rows it found.
        rows: some of them, as they are in the warehouse; for the person who asked, not for a log.
        hidden: why there are none.
        affects: exposures downstream.
    """

    unique_id: str
    name: str
    is_critical: bool
    message: str
    failures: int | None
    rows: Sequence[Mapping[str, Any]]
    hidden: str
    changes: Changes
    owners: tuple[str, ...]
    affects: tuple[str, ...]


@dataclass(frozen=True)
class Triage:
    """The result of a triage.

    Attributes:
        failing: critical ones first.
        mended: names of tests that pass now; a field of the JSON document.
        clocks: keys of the incidents whose escalation clock runs.
    """

    target: str
    failing: tuple[Triaged, ...]
    mended: tuple[str, ...]
    clocks: tuple[str, ...]


@with_alerts
@flow(flow_run_name=flow_run_name("triage"), validate_parameters=True)
def triage(
    target: str = "dev",
    project_dir: str | None = None,
    limit: int = ROW_LIMIT,
    keep_rows: bool = False,
    who: str = "",
) -> Triage:
    """Run the tests again that failed last, and return the rows they find and what changed upstream.

    Alerts are sent, and the escalation clock of flows/alerts/routes.yml starts for each test that still fails. It stops
    when the incident is acknowledged or the test passes.

    Args:
        limit: rows to show of each test.
        keep_rows: keep the failing rows in dbt's tables of stored failures; otherwise they are dropped.
        who: acknowledges the incidents at once, so that no clock starts.

    Raises:
        ConfigError: nothing has been run on the target yet.
        DbtRunFailed: dbt could not run the tests.
    """
    from flows.alerts.escalation import acknowledge, start_clock
    from flows.alerts.nodes import key_of as incident_key

    with open_context(target, project_dir) as run, one_writer(target, holder=run.holder):
        project, profile, state = run.project, run.profile, run.state
        failed_before = failing_tests(last_state(state))
        # A test that is no longer in the project does not fail any more.
        nodes = Artifacts(state.target_path).manifest.nodes if failed_before else {}
        failed_before = [unique_id for unique_id in failed_before if unique_id in nodes]
        if not failed_before:
            current_reporter().note(f"No test of {project.name} fails on {target}.")
            return Triage(target, (), (), ())
        passes = keep_passes(state, failed_before)
        result = _tested(target, project_dir, list(failed_before))
        last = last_state(state)
        bad = {node.unique_id: node for node in result.nodes if node.outcome not in ("succeeded", "skipped")}
        manifest = result.artifacts.manifest_if_any
        # Rows that the project's own settings store are not dropped.
        stored = {unique_id for unique_id, node in manifest.nodes.items() if node.stores_failures}
        kept = set(bad) if keep_rows else stored.intersection(bad)
        rows = _rows(profile, list(bad.values()), limit, kept)
        keep_passes(state, bad)
    failing = [
        _triaged(node, manifest, rows, changes_since(passes.get(unique_id), last, unique_id))
        for unique_id, node in bad.items()
    ]
    failing.sort(key=lambda each: (not each.is_critical, each.name))
    mended = tuple(node.name for node in result.of("succeeded"))
    keys = [incident_key(each.unique_id, state.project) for each in failing]
    clocks: list[str] = []
    if who:
        acknowledge(keys, target, who)
    else:
        clocks = start_clock(keys, target)
    found = Triage(target, tuple(failing), mended, tuple(clocks))
    _publish(found, manifest)
    return found


@with_alerts
@flow(flow_run_name="escalate-{target}", validate_parameters=True)
def escalate_alerts(target: str = "prod") -> list[str]:
    """Escalate incidents that are not acknowledged in time; run it on a schedule, every few minutes.

    Returns:
        A line for each step of the escalation that is due.
    """
    from flows.alerts.escalation import escalate

    return [incident.title for incident in escalate(target)]


def _tested(target: str, project_dir: str | None, failed: Sequence[str]) -> DbtResult:
    try:
        return tasks.test(target, project_dir=project_dir, store_failures=True, nodes=failed)
    except DbtRunFailed as exc:
        if exc.finished_result is None:
            raise
        return exc.finished_result


def _rows(
    profile: Profile, nodes: Sequence[NodeResult], limit: int, kept: Collection[str]
) -> dict[str, tuple[list[dict[str, Any]], str]]:
    """Return the rows that each test stored, or why there are none."""
    found: dict[str, tuple[list[dict[str, Any]], str]] = {}
    stored = [node for node in nodes if node.resource_type == "test" and node.relation]
    if not stored:
        return found
    try:
        with open_warehouse(profile) as tables:
            for node in stored:
                relation = str(node.relation)
                try:
                    if tables.exists(relation):
                        found[node.unique_id] = (tables.rows(f"select * from {relation} limit {limit}"), "")
                        if node.unique_id not in kept:
                            tables.drop(relation)
                except UpstreamUnavailable:
                    raise
                except TributaryError as exc:
                    found[node.unique_id] = ([], f"They can't be read: {exc}")
    except TributaryError as exc:
        for node in stored:
            found.setdefault(node.unique_id, ([], f"They can't be read: {exc}"))
    return found


def _triaged(
    node: NodeResult,
    manifest: Manifest,
    rows: Mapping[str, tuple[list[dict[str, Any]], str]],
    changes: Changes,
) -> Triaged:
    shown, hidden = rows.get(node.unique_id, ([], "It has stored none."))
    return Triaged(
        node.unique_id,
        node.name,
        manifest.is_critical(node.unique_id),
        node.message.strip(),
        node.failures,
        shown,
        hidden,
        changes,
        manifest.owners(node.unique_id),
        manifest.affects(node.unique_id),
    )


def _publish(found: Triage, manifest: Manifest) -> None:
    """Create artifacts of the tests and their rows, masked as in routes.yml."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    from flows.alerts.failing_rows import mask_rows, why_hidden
    from flows.alerts.routes import load_routes

    settings = load_routes().failing_rows
    with attaching():
        create_markdown_artifact(
            as_markdown(found), key=key_of("triage", found.target), description=f"Failing tests of {found.target}"
        )
        for each in found.failing:
            if not each.rows or why_hidden(manifest, each.unique_id, settings):
                continue
            columns = tuple(each.rows[0])
            values = tuple(tuple("null" if v is None else str(v) for v in row.values()) for row in each.rows)
            shown = mask_rows(FailingRows(columns, values), manifest, each.unique_id, settings)
            create_table_artifact(
                [dict(zip(shown.columns, row, strict=True)) for row in shown.rows],
                key=key_of("triage", found.target, each.name),
                description=f"Rows that {each.name} found",
            )


def as_markdown(found: Triage) -> str:
    lines = [f"## {count_of(len(found.failing), 'failing test')} on {markdown_code(found.target)}", ""]
    for each in found.failing:
        lines.append(f"### {markdown_code(each.name)}{' (critical)' if each.is_critical else ''}")
        lines += ["", f"{each.failures or 0:,} rows.", "", markdown_block(each.message), ""]
        if each.affects:
            lines += [f"Affects: {markdown_text(', '.join(each.affects))}.", ""]
        passed = each.changes.passed_at
        lines.append(
            f"Changed since it passed at {passed[:16]} UTC:" if passed else "It is unknown when it last passed."
        )
        lines += ["", *(f"- {markdown_text(str(change))}" for change in each.changes.nodes), ""]
    if found.mended:
        lines.append(f"Passing again: {markdown_text(', '.join(found.mended))}.")
    return "\n".join(lines)
