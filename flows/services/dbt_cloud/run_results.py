"""What a run in dbt Cloud came to, in the same form as a run on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import orjson

from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.state import TEXT_LOG, State
from flows.services.dbt_cloud.client import CloudClient, Json
from infrastructure.private_files import write_whole

MANIFEST, RUN_RESULTS, SOURCES = "manifest.json", "run_results.json", "sources.json"


async def fetch_artifacts(client: CloudClient, run: Json, folder: Path) -> list[Json]:
    """Save a run's artifacts in a folder, and return the run_results of all its steps, in their order.

    dbt Cloud keeps one run_results.json per step: the last one alone would leave out the models of a run that ends in
    `dbt test`.
    """
    run_id = int(run["id"])
    there = set(await client.artifacts(run_id))
    wanted = [name for name in (MANIFEST, SOURCES, "catalog.json") if name in there]
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
    documents: list[Json] = []
    seen: set[str] = set()
    for content in stepwise:
        document = _parsed(content)
        # A step that is no dbt command of its own can be answered with the file of the step before it.
        invocation = str((document.get("metadata") or {}).get("invocation_id") or len(seen))
        if document and invocation not in seen:
            seen.add(invocation)
            documents.append(document)
            write_whole(folder / RUN_RESULTS, content or b"")
    return documents


def result_of_run(job: Json, runs: Sequence[Json], documents: Sequence[Json], state: State, target: str) -> DbtResult:
    """Return the result of a run and those that retried it; of each node its last outcome."""
    first, last = runs[0], runs[-1]
    started_at = _moment(first.get("started_at") or first.get("created_at"))
    finished_at = _moment(last.get("finished_at") or last.get("updated_at"))
    run_path = state.new_run(started_at, str(last["id"]))
    write_whole(run_path / TEXT_LOG, _log_of(job, runs).encode())
    manifest = _parsed(state.manifest.read_bytes()) if state.manifest.exists() else {}
    nodes: dict[str, NodeResult] = {}
    for document in documents:
        for node in _nodes(document, manifest, finished_at):
            # A test comes last where a model and its tests are run by several steps; the last word on each counts.
            nodes.pop(node.unique_id, None)
            nodes[node.unique_id] = node
    notes = () if documents else ("The run left no run_results.json: what came of each node is not known.",)
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


def _nodes(document: Json, manifest: Json, fallback: datetime) -> Iterable[NodeResult]:
    sections = [cast(Json, manifest.get(name) or {}) for name in ("nodes", "sources", "unit_tests")]
    for entry in cast(list[Json], document.get("results") or []):
        unique_id = str(entry["unique_id"])
        known: Mapping[str, Any] = next((it[unique_id] for it in sections if unique_id in it), {})
        started_at, finished_at = _times(entry, document, fallback)
        response = {name: it for name, it in (entry.get("adapter_response") or {}).items() if it not in (None, "")}
        status = str(entry.get("status") or "error").lower()
        is_well = status in ("success", "pass")
        yield NodeResult(
            unique_id=unique_id,
            name=str(known.get("name") or _name_in(unique_id)),
            resource_type=str(known.get("resource_type") or unique_id.partition(".")[0]),
            materialized=str((known.get("config") or {}).get("materialized") or ""),
            status=status,
            started_at=started_at,
            finished_at=finished_at,
            message="" if is_well else str(entry.get("message") or ""),
            failures=entry.get("failures"),
            relation=entry.get("relation_name"),
            adapter_response=response,
        )


def _name_in(unique_id: str) -> str:
    # A test's id ends in a digest: test.<project>.<name>.<digest>.
    parts = unique_id.split(".")
    return parts[2] if parts[0] == "test" and len(parts) > 3 else parts[-1]


def _times(entry: Json, document: Json, fallback: datetime) -> tuple[datetime, datetime]:
    timing = [
        it for it in cast(list[Json], entry.get("timing") or []) if it.get("started_at") and it.get("completed_at")
    ]
    if timing:
        begun, ended = min(it["started_at"] for it in timing), max(it["completed_at"] for it in timing)
        return _moment(begun), _moment(ended)
    generated = (document.get("metadata") or {}).get("generated_at")
    ended_at = _moment(generated) if generated else fallback
    return ended_at - timedelta(seconds=float(entry.get("execution_time") or 0.0)), ended_at


def _log_of(job: Json, runs: Sequence[Json]) -> str:
    lines: list[str] = []
    for run in runs:
        lines.append(f"{job['name']}, run {run['id']}: {run.get('status_humanized') or run.get('status')}")
        lines += [f"  {run['status_message']}"] if run.get("status_message") else []
        for step in cast(list[Json], run.get("run_steps") or []):
            lines.append(f"== {step.get('index')}. {step.get('name')}")
            lines.append(str(step.get("logs") or "").rstrip())
    return "\n".join([*lines, ""])


def _parsed(content: bytes | None) -> Json:
    try:
        document = orjson.loads(content or b"")
    except orjson.JSONDecodeError:
        return {}
    return cast(Json, document) if isinstance(document, dict) else {}


def _moment(text: object) -> datetime:
    # With a T or a space, with an offset or none: dbt Cloud sends all of these, and dbt a Z. All are UTC.
    if not isinstance(text, str):
        return datetime.now(UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
