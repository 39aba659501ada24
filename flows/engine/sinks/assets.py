"""What a dbt command built, as Prefect's assets: an event for each relation, which automations can wait for.

Keys, names and owners are those of prefect-dbt, and so is the switch `meta: {prefect: {enable_assets: false}}`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, cast
from uuid import uuid5

import orjson

from flows.engine.artifacts.manifest import DATA_TYPES, TEST_TYPES, Manifest, Node
from flows.engine.artifacts.results import OUTCOMES, NodeResult
from flows.engine.context.run_context import FlowRun
from flows.engine.ledger.addresses import plain_relation
from flows.engine.sinks.task_runs import task_run_id

# The commands that build what they name.
BUILDING = frozenset({"build", "run", "seed", "snapshot"})
# dbt 1.12's words for what it left as it was.
_NOT_BUILT = frozenset({"no-op", "reused"})
# Prefect's: it refuses a description that is longer, and an event with more related resources (100).
_DESCRIPTION_CHARACTERS = 2500
_MOST_READ = 90


def asset_key(adapter: str, relation: str) -> str:
    """Return the key of a relation, such as snowflake://shop/marts/orders, as prefect-dbt has it."""
    from prefect.types.names import MAX_ASSET_KEY_LENGTH, RESTRICTED_ASSET_CHARACTERS

    path = relation.replace('"', "").replace(".", "/")
    for character in RESTRICTED_ASSET_CHARACTERS:
        path = path.replace(character, "")
    return f"{adapter}://{path}"[:MAX_ASSET_KEY_LENGTH]


def asset_events(flow_run: FlowRun, results: Iterable[NodeResult], manifest: Manifest) -> list[dict[str, Any]]:
    """Return an event for each relation that was built or failed to be, and one for each source that was read.

    Args:
        results: of one dbt command, with its tests.
    """
    known = {result.unique_id: result for result in results}
    tests = manifest.tests_among(key for key, result in known.items() if result.resource_type in TEST_TYPES)
    read: dict[str, tuple[Node, NodeResult]] = {}
    events: list[dict[str, Any]] = []
    for result in known.values():
        node = manifest.nodes.get(result.unique_id)
        if node is None or not _is_asset(node, result):
            continue
        before = [manifest.nodes[key] for key in manifest.read_by(result.unique_id) if key in manifest.nodes]
        before = [each for each in before if each.relation]
        read |= {each.unique_id: (each, result) for each in before if each.unique_id not in known}
        of_tests = Counter(known[test].outcome for test in tests.get(result.unique_id, ()))
        events.append(_materialized(flow_run, result, node, before, of_tests, manifest.adapter))
    references = [_referenced(flow_run, node, result, manifest.adapter) for node, result in read.values()]
    return references + events


def _is_asset(node: Node, result: NodeResult) -> bool:
    settings = node.meta.get("prefect")
    is_wanted = not isinstance(settings, dict) or cast(dict[str, Any], settings).get("enable_assets") is not False
    is_built = result.outcome in ("succeeded", "warned", "failed") and result.status not in _NOT_BUILT
    return is_built and is_wanted and result.resource_type in DATA_TYPES and bool(node.relation)


def _materialized(
    flow_run: FlowRun,
    result: NodeResult,
    node: Node,
    before: Iterable[Node],
    tests: Mapping[str, int],
    adapter: str,
) -> dict[str, Any]:
    state = "failed" if result.outcome == "failed" else "succeeded"
    resource = _resource(node, adapter)
    # What a trigger can match: that a table is there does not say that it is good.
    resource["tributary.tests"] = next(
        (outcome for outcome in ("failed", "skipped", "warned", "succeeded") if tests.get(outcome)), "none"
    )
    upstream = [
        {"prefect.resource.id": asset_key(adapter, each.relation or ""), "prefect.resource.role": "asset"}
        for each in before
    ]
    related = [
        *upstream[:_MOST_READ],
        {"prefect.resource.id": "dbt", "prefect.resource.role": "asset-materialized-by"},
        {
            "prefect.resource.id": f"prefect.task-run.{task_run_id(flow_run, result.unique_id)}",
            "prefect.resource.role": "task-run",
            "prefect.resource.name": result.name,
        },
    ]
    payload = {
        "unique_id": result.unique_id,
        "materialized": result.materialized,
        "seconds": round(result.seconds, 3),
        "rows": result.row_count,
        "bytes": result.bytes_processed,
        "query_id": result.query_id,
        "attempts": result.attempts,
        "tests": {outcome: tests[outcome] for outcome in OUTCOMES if tests.get(outcome)},
        "tags": list(node.tags),
    }
    payload = {name: value for name, value in payload.items() if value not in (None, "", [], {})}
    return _event(flow_run, f"prefect.asset.materialization.{state}", resource, related, result, payload)


def _referenced(flow_run: FlowRun, node: Node, by: NodeResult, adapter: str) -> dict[str, Any]:
    return _event(flow_run, "prefect.asset.referenced", _resource(node, adapter), [], by, {})


def _resource(node: Node, adapter: str) -> dict[str, str]:
    relation = node.relation or ""
    found = {
        "prefect.resource.id": asset_key(adapter, relation),
        "prefect.resource.name": plain_relation(relation),
        "prefect.asset.description": node.description[:_DESCRIPTION_CHARACTERS],
        "prefect.asset.url": str(node.meta.get("url") or ""),
        "prefect.asset.owners": orjson.dumps(node.owners).decode() if node.owners else "",
    }
    return {name: value for name, value in found.items() if value}


def _event(
    flow_run: FlowRun,
    name: str,
    resource: dict[str, str],
    related: list[dict[str, str]],
    result: NodeResult,
    payload: dict[str, Any],
) -> dict[str, Any]:
    moment = result.finished_at.isoformat()
    of_flow = {
        "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
        "prefect.resource.role": "flow-run",
        "prefect.resource.name": flow_run.name,
    }
    return {
        # The same event sent twice, after a lost answer, is recorded once.
        "id": str(uuid5(flow_run.id, f"{name}:{resource['prefect.resource.id']}:{moment}")),
        "occurred": moment,
        "event": name,
        "resource": resource,
        "related": [of_flow, *related],
        "payload": payload,
    }
