"""Turn the result of one dbt command into incidents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.alerts.incident import Incident, Severity
from flows.alerts.incident_store import store_of
from flows.alerts.notify import deliver, write_down
from flows.alerts.retry_command import of_command, of_verb
from flows.engine.context.command import flags_in, is_on_a_part
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import State
from infrastructure.errors import DbtRunFailed, RunStopped, RunTimedOut, TributaryError
from infrastructure.plain_text import one_line

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

    from flows.engine.artifacts.manifest import Manifest
    from flows.engine.artifacts.results import DbtResult, NodeResult
    from flows.engine.context.command import DbtCommand
    from flows.engine.context.project import Project
    from flows.engine.ledger.explanation import Explanation
    from infrastructure.profiles import Profile


# Worst first: there is time to close only so many alerts.
_PAGED: tuple[Severity, ...] = ("critical", "error")


def report_nodes(
    result: DbtResult, command: DbtCommand, project: Project, profile: Profile, error: TributaryError | None = None
) -> None:
    """Record the incidents of a command's nodes; the flow sends them at its end, or they are sent now without a flow.

    Never raises. Call it while the target is held: the rows that failing tests found are read from it.

    Args:
        error: what the command ended with, where it failed.
    """
    try:
        _Report(result, command, project, profile, error).write()
    except Exception as exc:  # noqa: BLE001  (a run must not depend on its alerts)
        current_reporter().note(f"No alert was sent about {result.command}: {one_line(str(exc))}")


class _Report:
    """One command's result, and what is needed to describe it."""

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
        """Open and close incidents, and send them unless the flow does so at its end."""
        result = self._result
        store = store_of(result.target, os.environ)
        known = {key: entry.incident for key, entry in store.read().incidents.items() if entry.closed_at is None}
        from flows.alerts.routes import load_routes

        routes = load_routes()
        severities: list[Severity] = [each for each in _PAGED if routes.may_page(result.target, each)]
        if not known and self._error is None and not result.of("failed", "warned") and not severities:
            return
        from flows.alerts.flow_runs import is_sent_at_flow_end
        from flows.alerts.nodes import closed_keys, incidents_of, passed, renamed_keys

        manifest = result.artifacts.manifest_if_any
        flow, flow_run = _current()
        link, retry = self._link_and_retry(flow, flow_run)
        explanation = self._explained(link, retry)
        state = State(result.target_path.parent)
        found = incidents_of(result, manifest, link, retry, state.project, explanation)
        opened = list(self._with_rows(found, manifest, known).values())
        # What is well on a part of the rows says nothing of the rest.
        is_whole = not is_on_a_part([*self._command.flags, *flags_in(os.environ)])
        others = {home.name for home in state.folder.parent.parent.glob("*")}
        renamed = renamed_keys(result, known, state.project, others) if is_whole else []
        if renamed:
            current_reporter().note(
                f"Incidents of packages are told apart by project now: {len(renamed)} that an earlier version of "
                f"Tributary opened on target {result.target} end, and what still fails of them begins anew."
            )
        closed = [*closed_keys(result, manifest, known, state.project), *renamed] if is_whole else []
        whole = f"command/{result.command} of {state.project}"
        if self._error is None or isinstance(self._error, RunStopped):
            # The person who stopped it knows; the flow says that its nodes are not built.
            closed.append(whole)
        elif isinstance(self._error, RunTimedOut) or not result.of("failed"):
            title = f"{result.command} did not finish"
            text = str(self._error)
            opened.append(Incident(whole, "error", title, text, result.target, link=link, retry_command=retry))
        else:
            closed.append(whole)
        pageable = severities if is_whole else []
        well = (incident for severity in pageable for incident in passed(result, manifest, severity, state.project))
        write_down(result.target, opened, closed, well)
        if not is_sent_at_flow_end(result.target):
            deliver(result.target)

    def _link_and_retry(self, flow: Flow[..., Any] | None, flow_run: FlowRun | None) -> tuple[str | None, str | None]:
        """Return the link to the run and the command that runs it again."""
        from flows.alerts.flow_runs import link_to, retry_command

        retry = retry_command(flow, flow_run) if flow and flow_run else None
        retry = retry or of_command(self._command, self._result.target, self._folder())
        return (link_to(flow_run) if flow_run else None), retry

    def _with_rows(
        self, found: Mapping[str, Incident], manifest: Manifest, known: Mapping[str, Incident]
    ) -> dict[str, Incident]:
        """Return incidents with the rows that failing tests found, or why there are none."""
        from flows.alerts.failing_rows import TEST_LIMIT, fetch_failing_rows, mask_rows, why_hidden
        from flows.alerts.routes import load_routes

        incidents = dict(found)
        if isinstance(self._error, RunStopped):
            # The sender of the signal waits for this process to end.
            return incidents
        routes = load_routes()
        settings = routes.failing_rows
        asked: list[NodeResult] = []
        unseen: dict[str, str] = {}
        for node in self._result.of("failed", "warned"):
            incident = incidents[node.unique_id]
            # Of a warning that is sent nowhere, no rows are read: dbt takes some two seconds for it.
            is_wanted = node.outcome == "failed" or routes.destinations_of(incident)
            if node.resource_type != "test" or not node.failures or not is_wanted:
                continue
            before = known.get(incident.key)
            hidden = why_hidden(manifest, node.unique_id, settings)
            if hidden:
                incidents[node.unique_id] = replace(incident, note=f"{hidden} {incident.note}".rstrip())
                unseen[node.unique_id] = hidden
            elif before and before.failing_rows and before.count == node.failures:
                incidents[node.unique_id] = replace(incident, failing_rows=before.failing_rows)
            else:
                asked.append(node)
        # Failures before warnings: only a few are read.
        # Those that are told whole come first.
        explanation = self._error.explanation if isinstance(self._error, DbtRunFailed) else None
        order = [each.unique_id for each in explanation.failed] if explanation else []
        asked.sort(key=lambda node: order.index(node.unique_id) if node.unique_id in order else len(order))
        command, run_path = self._command, self._result.run_path
        fetched = fetch_failing_rows(asked, manifest, self._project, self._profile, command.vars, settings, run_path)
        for unique_id, rows in fetched.items():
            shown = mask_rows(rows, manifest, unique_id, settings)
            incidents[unique_id] = replace(incidents[unique_id], failing_rows=shown)
        for node in asked[:TEST_LIMIT]:
            if node.unique_id not in fetched:
                unseen[node.unique_id] = f"Its rows could not be read within {settings.patience_seconds:g} s."
        if isinstance(self._error, DbtRunFailed) and explanation:
            there = {key: each.failing_rows for key, each in incidents.items() if each.failing_rows}
            self._error.explanation = explanation.with_rows(there, unseen)
        return incidents

    def _explained(self, link: str | None, retry: str | None) -> Explanation | None:
        """Have the error say where to look and what to do; return its explanation, None where it has none."""
        if not isinstance(self._error, DbtRunFailed) or not self._error.explanation:
            return None
        explanation: Explanation = replace(self._error.explanation, link=link, commands=tuple(self._next(retry)))
        self._error.explanation = explanation
        return explanation

    def _next(self, retry: str | None) -> Iterator[tuple[str, str]]:
        """Yield what to do about a failure: purpose and command."""
        from flows.alerts.flow_runs import in_the_same_manner, retry_command

        target, folder = self._result.target, self._folder()
        if self._command.verb == "source freshness":
            yield "Find the loader that stopped", in_the_same_manner(of_verb("pipeline-failure", target, folder))
            flow, flow_run = _current()
            if flow and flow_run and (build := retry_command(flow, flow_run, without_freshness=True)):
                yield "Build all the same", build
            return
        if retry:
            yield "Do the rest, once it is mended", retry
        if any(node.resource_type == "test" for node in self._result.of("failed")):
            yield "See the rows, and what changed", in_the_same_manner(of_verb("triage", target, folder))

    def _folder(self) -> str | None:
        from flows.engine.context.project import project_folder

        return None if self._project.folder == project_folder(None) else str(self._project.folder)


def _current() -> tuple[Flow[..., Any] | None, FlowRun | None]:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return (context.flow, context.flow_run) if context else (None, None)
