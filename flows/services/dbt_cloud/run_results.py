"""The result of a run in dbt Cloud, in the same form as that of a local run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from flows.engine.artifacts.artifacts import (
    CATALOG,
    RUN_RESULTS,
    SOURCES,
    Artifacts,
    ResultsFile,
    moment_of,
    results_file,
)
from flows.engine.artifacts.manifest_file import MANIFEST
from flows.engine.artifacts.results import DbtResult, NodeResult, results_alone
from flows.engine.context.state import TEXT_LOG, State
from flows.services.dbt_cloud.client import CloudClient, Json
from infrastructure.private_files import write_whole


async def fetch_artifacts(client: CloudClient, run: Json, folder: Path) -> list[ResultsFile]:
    """Save a run's artifacts in a folder, and return the run_results of all its steps, in their order.

    dbt Cloud keeps one run_results.json per step: the last one alone would leave out the models of a run that ends in
    `dbt test`.
    """
    run_id = int(run["id"])
    there = set(await client.artifacts(run_id))
    wanted = [name for name in (MANIFEST, SOURCES, CATALOG) if name in there]
    steps = [int(step["index"]) for step in cast(list[Json], run.get("run_steps") or [])]
    if RUN_RESULTS not in there:
        steps = []
    whole, stepwise = await asyncio.gather(
        asyncio.gather(*(client.artifact(run_id, name) for name in wanted)),
        asyncio.gather(*(client.artifact(run_id, RUN_RESULTS, step) for step in steps)),
    )
    if not any(stepwise) and RUN_RESULTS in there:
        stepwise = [await client.artifact(run_id, RUN_RESULTS)]
    for name, content in zip(wanted, whole, strict=True):
        if content is not None:
            write_whole(folder / name, content)
    found: dict[object, ResultsFile] = {}
    for content in stepwise:
        results = results_file(content or b"")
        # For a step without a dbt command, dbt Cloud may send the file of the step before it.
        invocation = results.invocation_id or len(found)
        if results.document and invocation not in found:
            found[invocation] = results
            write_whole(folder / RUN_RESULTS, content or b"")
    return list(found.values())


def result_of_run(
    job: Json, runs: Sequence[Json], steps: Sequence[ResultsFile], state: State, target: str
) -> DbtResult:
    """Return the result of a run and its retries, with the last outcome of each node."""
    first, last = runs[0], runs[-1]
    started_at = _moment(first.get("started_at") or first.get("created_at"))
    finished_at = _moment(last.get("finished_at") or last.get("updated_at"))
    run_path = state.new_run(started_at, str(last["id"]))
    write_whole(run_path / TEXT_LOG, _log_of(job, runs).encode())
    manifest = Artifacts(state.target_path).manifest_if_any
    nodes: dict[str, NodeResult] = {}
    for step in steps:
        for node in results_alone(step, manifest, finished_at):
            # Several steps may run a node; its last result counts.
            nodes.pop(node.unique_id, None)
            nodes[node.unique_id] = node
    notes = () if steps else ("The run left no run_results.json: the outcome of each node is unknown.",)
    return DbtResult(
        f"dbt Cloud {job['name']}",
        target,
        tuple(nodes.values()),
        started_at,
        finished_at,
        state.target_path,
        run_path,
        notes,
    )


def _log_of(job: Json, runs: Sequence[Json]) -> str:
    lines: list[str] = []
    for run in runs:
        lines.append(f"{job['name']}, run {run['id']}: {run.get('status_humanized') or run.get('status')}")
        lines += [f"  {run['status_message']}"] if run.get("status_message") else []
        for step in cast(list[Json], run.get("run_steps") or []):
            lines.append(f"== {step.get('index')}. {step.get('name')}")
            lines.append(str(step.get("logs") or "").rstrip())
    return "\n".join([*lines, ""])


def _moment(text: object) -> datetime:
    return moment_of(text) or datetime.now(UTC)
