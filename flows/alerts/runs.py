"""What came of one dbt command, written down for whoever is to hear of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.alerts.incident import Incident, Severity
from flows.alerts.incident_store import book_of
from flows.alerts.notify import deliver, write_down
from flows.alerts.retry_command import of_command
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import State
from infrastructure.errors import RunStopped, RunTimedOut, TributaryError
from infrastructure.plain_text import one_line

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

    from flows.engine.artifacts.manifest import Manifest
    from flows.engine.artifacts.results import DbtResult, NodeResult
    from flows.engine.context.command import DbtCommand
    from flows.engine.context.project import Project
    from infrastructure.profiles import Profile


# Worst first: there is time to call over so many alerts only.
_PAGED: tuple[Severity, ...] = ("critical", "error")


def report_nodes(
    result: DbtResult, command: DbtCommand, project: Project, profile: Profile, error: TributaryError | None = None
) -> None:
    """Write down what came of a command's nodes; its flow tells it at the end, without such a flow it is told now.

    Never raises. Call it while the target is held: the rows that failing tests found are read from it.

    Args:
        error: what the command ended with, where it failed.
    """
    try:
        _Report(result, command, project, profile, error).write()
    except Exception as exc:  # noqa: BLE001  (a run's outcome must not hang on who hears of it)
        current_reporter().note(f"Nobody was told what came of {result.command}: {one_line(str(exc))}")


class _Report:
    """One command's result, and what is needed to say what it means."""

    def __init__(
        self,
        result: DbtResult,
        command: DbtCommand,
        project: Project,
        profile: Profile,
        error: TributaryError | None,
    ) -> None:
        self._result = result
        self._command = command
        self._project = project
        self._profile = profile
        self._error = error

    def write(self) -> None:
        """Open and close incidents, and tell them where nobody else will."""
        result = self._result
        book = book_of(result.target, os.environ)
        known = {key: entry.incident for key, entry in book.read().incidents.items() if entry.closed_at is None}
        from flows.alerts.routes import load_routes

        routes = load_routes()
        severities: list[Severity] = [each for each in _PAGED if routes.may_page(result.target, each)]
        if not known and self._error is None and not result.of("failed", "warned") and not severities:
            return
        from flows.alerts.flow_runs import is_told_at_the_end
        from flows.alerts.nodes import incidents_of, mended, passed

        manifest = result.artifacts.manifest_if_any
        flow, flow_run = _current()
        link, again = self._whereabouts(flow, flow_run)
        found = incidents_of(result, manifest, link, again)
        opened = list(self._with_rows(found, manifest, known).values())
        closed = mended(result, manifest, known)
        whole = f"command/{result.command} of {State(result.target_path.parent).project}"
        if self._error is None or isinstance(self._error, RunStopped):
            # Whoever stopped it knows; that what it was to build is not built, the flow tells.
            closed.append(whole)
        elif isinstance(self._error, RunTimedOut) or not result.of("failed"):
            title = f"{result.command} did not get to its end"
            text = str(self._error)
            opened.append(Incident(whole, "error", title, text, result.target, link=link, retry_command=again))
        else:
            closed.append(whole)
        well = (incident for severity in severities for incident in passed(result, manifest, severity))
        write_down(result.target, opened, closed, well)
        if not is_told_at_the_end(result.target):
            deliver(result.target)

    def _whereabouts(self, flow: Flow[..., Any] | None, flow_run: FlowRun | None) -> tuple[str | None, str | None]:
        """Return the link to the run and the command that tries again."""
        from flows.alerts.flow_runs import link_to, retry_command
        from flows.engine.context.project import DEFAULT_PROJECT

        folder = None if self._project.folder == DEFAULT_PROJECT else str(self._project.folder)
        again = retry_command(flow, flow_run) if flow and flow_run else None
        again = again or of_command(self._command, self._result.target, folder)
        return (link_to(flow_run) if flow_run else None), again

    def _with_rows(
        self, found: Mapping[str, Incident], manifest: Manifest, known: Mapping[str, Incident]
    ) -> dict[str, Incident]:
        """Return incidents with the rows that failing tests found, or why there are none."""
        from flows.alerts.failing_rows import fetch_failing_rows, masked, why_hidden
        from flows.alerts.routes import load_routes

        incidents = dict(found)
        if isinstance(self._error, RunStopped):
            # Whoever sent a signal waits for this process to end.
            return incidents
        routes = load_routes()
        settings = routes.failing_rows
        asked: list[NodeResult] = []
        for node in self._result.of("failed", "warned"):
            incident = incidents[node.unique_id]
            # Where nobody is told, as on a laptop, nothing is asked: dbt takes some two seconds for it.
            if node.resource_type != "test" or not node.failures or not routes.destinations_of(incident):
                continue
            before = known.get(incident.key)
            hidden = why_hidden(manifest, node.unique_id, settings)
            if hidden:
                incidents[node.unique_id] = replace(incident, note=hidden)
            elif before and before.count == node.failures:
                incidents[node.unique_id] = replace(incident, failing_rows=before.failing_rows)
            else:
                asked.append(node)
        # What failed comes before what warns: there is room for a few only.
        asked.sort(key=lambda node: node.outcome != "failed")
        command, run_path = self._command, self._result.run_path
        fetched = fetch_failing_rows(asked, manifest, self._project, self._profile, command.vars, settings, run_path)
        for unique_id, rows in fetched.items():
            shown = masked(rows, manifest, unique_id, settings)
            incidents[unique_id] = replace(incidents[unique_id], failing_rows=shown)
        return incidents


def _current() -> tuple[Flow[..., Any] | None, FlowRun | None]:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return (context.flow, context.flow_run) if context else (None, None)
