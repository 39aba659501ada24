"""Build one large project on several workers: a part per domain, each a flow run of its own, all of them one run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.engine.artifacts.graph import read_graph
from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.changed.run_memory import Memory
from flows.engine.context.command import DbtCommand
from flows.engine.context.deadline import require_time, time_limit
from flows.engine.context.project import Project, read_project
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import LEDGER, State, state_of, write_in_words
from flows.engine.ledger.failures import failure_of
from flows.engine.ledger.ledger import Ledger
from flows.engine.ledger.resume import fingerprint
from flows.engine.ledger.retries import Retries
from flows.engine.parts import Part, Split, domain_by, split
from flows.engine.process.listing import list_manifest
from flows.engine.run import run_dbt
from flows.engine.sinks.recorder import Recorder, prefect_sender
from flows.engine.target.file_lock import lease_name, one_writer, writing_for
from flows.pipelines import tasks
from infrastructure.errors import ConfigError, DbtRunFailed, TributaryError
from infrastructure.profiles import Profile, load_profile

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

    from flows.engine.artifacts.graph import Graph

# How often the parts are asked after, and the server while it is away.
_POLL_SECONDS = 1.0
_ARTIFACT = "tributary-part"


@dataclass(frozen=True)
class SplitResult:
    """What came of a build in parts.

    Attributes:
        build: all parts as one result.
        flow_runs: the flow run of each part that began, by its name.
        wall_seconds: how long each of them took, from its being asked for to its end.
    """

    split: Split
    build: DbtResult
    flow_runs: Mapping[str, str]
    wall_seconds: Mapping[str, float]


@with_alerts
@flow(flow_run_name="part-{part}-of-{target}", validate_parameters=True)
def build_part(
    target: str,
    part: str,
    nodes: list[str],
    lease: str,
    project_dir: str | None = None,
    full_refresh: bool = False,
    vars: dict[str, Any] | None = None,
    retries: int = tasks.RETRIES,
) -> None:
    """Build a part of a project for a run that holds the target; `split_build` starts it.

    Args:
        nodes: their unique ids.
        lease: names the holder's right to write to the target; without it nothing is written.

    Raises:
        UpstreamUnavailable: the run that this is a part of does not hold the target any more.
        DbtRunFailed: a node failed.
    """
    project, profile = read_project(project_dir), load_profile(target)
    flow_run = tasks.current_flow_run()
    assert flow_run is not None
    command = DbtCommand("build", full_refresh=full_refresh, vars=vars or {}, nodes=tuple(nodes))

    def recorder(state: State) -> Recorder:
        return Recorder(flow_run, prefect_sender, state.manifest)

    with writing_for(target, lease):
        run_dbt(
            command,
            project,
            profile,
            str(flow_run.id),
            recorder,
            Retries(retries),
            ended=lambda result, _: _hand_over(flow_run.id, result),
            part=part,
        )


@with_alerts
@flow(flow_run_name="split-{target}", validate_parameters=True)
def split_build(
    deployment: str,
    target: str = "prod",
    by: str = "group",
    workers: int = 2,
    select: str | None = None,
    exclude: str | None = None,
    full_refresh: bool = False,
    vars: dict[str, Any] | None = None,
    project_dir: str | None = None,
    wait: bool = True,
    retries: int = tasks.RETRIES,
    timeout_seconds: float | None = None,
) -> SplitResult:
    """Build and test a project in parts, so many at once, as runs of a deployment of `build_part`.

    This run holds the target; its parts write in its name, and stop when it loses the target. A part that fails keeps
    those from running that stand on it.

    Args:
        deployment: <flow>/<deployment> of `build_part`; its workers need the project and this code.
        by: what makes a part: "group", "folder", or "tag:" and tags; see `parts.domain_by`.
        workers: parts at once.
        wait: wait for a run that is writing to the target; otherwise fail at once.
        timeout_seconds: stop after so long, waiting included; None for as long as it takes.

    Raises:
        DbtRunFailed: a node failed, or a part ended without saying what came of its nodes.
        ConfigError: the warehouse takes one writing process only, or there is no such deployment.
    """
    project, profile = read_project(project_dir), load_profile(target)
    require_many_writers(profile)
    domain = domain_by(by)
    flow_run = tasks.current_flow_run()
    command = DbtCommand("build", select, exclude, None, full_refresh, vars or {})
    with ExitStack() as stack:
        stack.enter_context(time_limit(timeout_seconds))
        stack.enter_context(one_writer(target, holder=tasks.holder_name(flow_run), wait=wait))
        lease = lease_name(target)
        if lease is None:
            raise ConfigError(
                "Parts on other workers need a Prefect server that all of them know. Set PREFECT_API_URL, or start "
                "one: uv run prefect server start"
            )
        selected, manifest = list_manifest(command, project, profile)
        graph = read_graph(manifest)
        found = split(graph, selected, domain)
        current_reporter().note(described(found))
        shared = {
            "target": target,
            "lease": lease,
            "project_dir": project_dir,
            "full_refresh": full_refresh,
            "vars": dict(vars or {}),
            "retries": retries,
        }
        record = _Record(command, project, profile, str(flow_run.id) if flow_run else lease, manifest)
        outcome = _Parts(deployment, graph, shared, record, found).build(workers)
        result = record.finish(outcome.notes)
        error = failure_of(result, profile.warehouse) if result.of("failed") else None
        if error is None and outcome.notes:
            error = DbtRunFailed(f"{len(outcome.notes)} of {len(found.parts)} parts failed: {' '.join(outcome.notes)}")
        _tell(result, command, project, profile, error)
    if error is not None:
        error.result = result
        raise error
    return SplitResult(found, result, {name: str(run) for name, run in outcome.runs.items()}, outcome.seconds)


def require_many_writers(profile: Profile) -> None:
    """Refuse a warehouse that only one process at a time can write to.

    Raises:
        ConfigError: it is such a one.
    """
    if profile.warehouse == "duckdb":
        raise ConfigError(
            f"Target {profile.target} is a DuckDB file, which one process at a time can write to, so several workers "
            f"would wait for each other. Run it whole, with more threads: python -m flows run --target {profile.target}"
        )


def described(found: Split) -> str:
    """Return a split in a sentence."""
    parts = ", ".join(f"{part.name} ({len(part.nodes)} nodes)" for part in found.parts)
    return (
        f"{len(found.parts)} parts in {found.waves} waves; {found.cut} of {found.edges} edges lead from one part to "
        f"another: {parts}."
    )


class _Record:
    """The run as one: what the parts' nodes came to, in a ledger like any other run's."""

    def __init__(self, command: DbtCommand, project: Project, profile: Profile, run_id: str, manifest: bytes) -> None:
        self._command = command
        self._target = profile.target
        self._started_at = datetime.now(UTC)
        self._state = state_of(project.name, profile.target, os.environ)
        self._run_path = self._state.new_run(self._started_at, f"build-{run_id}")
        self._nodes: dict[str, NodeResult] = {}
        # Whoever reads the run's result looks for the manifest where dbt's own runs have it.
        write_in_words(self._state.manifest, manifest)
        memory = Memory(self._state, command, project, profile, self._run_path.name, run_id)
        head = {"kind": "run", "command": fingerprint(command), "target": profile.target, "at": self._started_at}
        self._ledger = Ledger(self._run_path / LEDGER)
        self._ledger.append(head | memory.entry())

    def take(self, nodes: Sequence[NodeResult]) -> None:
        """Make the results of a part this run's own."""
        for node in nodes:
            self._ledger.node(node.as_event(), 1)
            self._nodes[node.unique_id] = node

    def finish(self, notes: Sequence[str]) -> DbtResult:
        """Return what came of the whole."""
        nodes = tuple(sorted(self._nodes.values(), key=lambda node: node.finished_at))
        is_ok = not notes and not any(node.outcome == "failed" for node in nodes)
        with self._ledger:
            self._ledger.append({"kind": "end", "at": datetime.now(UTC), "is_ok": is_ok, "nodes": len(nodes)})
        return DbtResult(
            command=self._command.name,
            target=self._target,
            nodes=nodes,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            target_path=self._state.target_path,
            run_path=self._run_path,
            notes=tuple(notes),
        )


class _Parts:
    """The parts of a run while they are built."""

    def __init__(self, deployment: str, graph: Graph, shared: Mapping[str, Any], record: _Record, found: Split) -> None:
        self._deployment = deployment
        self._graph = graph
        self._shared = shared
        self._record = record
        self._waiting = list(found.parts)
        self._done: set[str] = set()
        self._failed: set[str] = set()
        self._begun_at: dict[str, float] = {}
        self.runs: dict[str, UUID] = {}
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    def build(self, workers: int) -> _Parts:
        """Build all parts; each begins when those that it stands on are done."""
        from prefect.client.orchestration import get_client

        running: dict[str, Part] = {}
        with get_client(sync_client=True) as client:
            try:
                while self._waiting or running:
                    self._skip()
                    for part in self._ready()[: max(0, workers - len(running))]:
                        self._waiting.remove(part)
                        self._start(part)
                        running[part.name] = part
                    if running:
                        require_time(f"The parts {', '.join(running)} were not done")
                        time.sleep(_POLL_SECONDS)
                    for name in list(running):
                        if (run := _ended(client, self.runs[name])) is not None:
                            self._take(client, running.pop(name), run)
            except BaseException:
                # Whatever ends this run ends its parts; those that hear nothing of it lose the target with it.
                for name in running:
                    _cancel(client, self.runs[name])
                raise
        return self

    def _ready(self) -> list[Part]:
        return [part for part in self._waiting if set(part.after) <= self._done]

    def _skip(self) -> None:
        """Leave out what stands on a part that failed."""
        for part in [part for part in self._waiting if self._failed & set(part.after)]:
            self._waiting.remove(part)
            because = ", ".join(sorted(self._failed & set(part.after)))
            self._failed.add(part.name)
            now = datetime.now(UTC)
            skipped = [
                NodeResult(
                    unique_id=key,
                    name=node.name,
                    resource_type=node.resource_type,
                    materialized=node.materialized,
                    status="skipped",
                    started_at=now,
                    finished_at=now,
                    message=f"Part {because} failed, on which this stands.",
                    relation=node.relation,
                    attempts=0,
                )
                for key in part.nodes
                if (node := self._graph.nodes[key]).materialized != "ephemeral"
            ]
            self._record.take(skipped)
            current_reporter().note(f"Part {part.name} is left out, as {because} failed.")

    def _start(self, part: Part) -> None:
        from prefect.deployments import run_deployment
        from prefect.exceptions import ObjectNotFound

        parameters = {**self._shared, "part": part.name, "nodes": list(part.nodes)}
        self._begun_at[part.name] = time.monotonic()
        try:
            started = cast("FlowRun", run_deployment(self._deployment, parameters=parameters, timeout=0))
        except ObjectNotFound as exc:
            raise ConfigError(
                f"There is no deployment {self._deployment!r} to build parts with. Make one of flows.split.build_part, "
                "or let this run start workers of its own: python -m flows split --workers 2"
            ) from exc
        self.runs[part.name] = started.id
        current_reporter().note(f"Part {part.name} is flow run {started.name}.")

    def _take(self, client: SyncPrefectClient, part: Part, run: FlowRun) -> None:
        """Add a part that has ended to the whole."""
        self.seconds[part.name] = time.monotonic() - self._begun_at[part.name]
        nodes = _handed_over(client, run.id)
        self._record.take(nodes)
        is_ok = run.state is not None and run.state.is_completed()
        (self._done if is_ok else self._failed).add(part.name)
        if not is_ok and not any(node.outcome == "failed" for node in nodes):
            said = (run.state.message if run.state else None) or "it did not say why"
            self.notes.append(f"Part {part.name} ended as {run.state_name} (flow run {run.name}): {said}")


def _ended(client: SyncPrefectClient, run_id: UUID) -> FlowRun | None:
    import httpx

    # A server that is away for a moment is asked again.
    with suppress(httpx.TransportError):
        run = client.read_flow_run(run_id)
        return run if run.state is not None and run.state.is_final() else None
    return None


def _cancel(client: SyncPrefectClient, run_id: UUID) -> None:
    import httpx
    from prefect.states import Cancelling

    with suppress(httpx.HTTPError):
        client.set_flow_run_state(run_id, Cancelling(message="The run that it is a part of was stopped."))


def _hand_over(run_id: UUID, result: DbtResult) -> None:
    """Leave the results of a part on the server, where the whole run finds them, on whatever machine it is."""
    import orjson
    from prefect.artifacts import Artifact

    rows = [{**asdict(node), "adapter_response": dict(node.adapter_response)} for node in result.nodes]
    plain = orjson.loads(orjson.dumps(rows, default=str))
    Artifact(type=_ARTIFACT, description=f"Nodes of flow run {run_id}", data=plain).create()


def _handed_over(client: SyncPrefectClient, run_id: UUID) -> list[NodeResult]:
    import orjson
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]), type=ArtifactFilterType(any_=[_ARTIFACT])
    )
    found = client.read_artifacts(artifact_filter=wanted)
    latest = max(found, key=lambda artifact: str(artifact.created), default=None)
    return [_node(row) for row in orjson.loads(str(latest.data))] if latest else []


def _node(row: Mapping[str, Any]) -> NodeResult:
    known = {field.name for field in fields(NodeResult)}
    values = {name: value for name, value in row.items() if name in known}
    for name in ("started_at", "finished_at"):
        values[name] = datetime.fromisoformat(values[name])
    return replace(NodeResult(**values), earlier_messages=tuple(values.get("earlier_messages") or ()))


def _tell(
    result: DbtResult, command: DbtCommand, project: Project, profile: Profile, error: TributaryError | None
) -> None:
    """Record the run as one, in the history, the Prefect UI and the alerts; see `tasks._run`."""
    from flows.alerts.runs import report_nodes
    from flows.history.record import record
    from flows.report.artifacts import publish
    from flows.report.html.summary import publish_overview

    record(result, command, project, profile, error)
    publish(result)
    report_nodes(result, command, project, profile, error)
    publish_overview(project.name, profile.target)
