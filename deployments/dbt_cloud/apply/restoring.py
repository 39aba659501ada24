"""Put back what was deleted, from the journal: the same jobs, under new ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from deployments.dbt_cloud.apply.journal import DONE, INTENT, Journal
from deployments.dbt_cloud.model.job_object import Json, sendable
from flows.services.dbt_cloud.client import CloudClient
from flows.services.dbt_cloud.transport import AnswerLost


async def restore(client: CloudClient, entries: Sequence[Mapping[str, Any]], journal: Journal) -> dict[str, int]:
    """Create deleted jobs again, with their variables, and return their new ids by name.

    A job that is there again by name is left as it is. Secrets are not in a journal: they are to be set anew.
    """
    restored: dict[str, int] = {}
    new_ids: dict[int, int] = {}
    # A job that was started by another one comes after it: it has to be told the other's new id.
    for entry in sorted(entries, key=lambda it: _upstream(it) in {other["job_id"] for other in entries}):
        before = cast(Json, entry["before"])
        there = await _named(client, before)
        if there is not None:
            restored[before["name"]] = new_ids[entry["job_id"]] = there["id"]
            continue
        wanted = sendable(before, {})
        if (upstream := _upstream(entry)) in new_ids:
            condition = before["job_completion_trigger_condition"]["condition"]
            wanted["job_completion_trigger_condition"] = {"condition": {**condition, "job_id": new_ids[upstream]}}
        if wanted.get("deferring_job_definition_id") == before["id"]:
            # Its own former id; the new one is set below.
            wanted["deferring_job_definition_id"] = None
        journal.write(INTENT, "restore", before["name"], None, was=entry["job_id"])
        try:
            created = await client.create_job(wanted)
        except AnswerLost:
            created = await _named(client, before) or await client.create_job(wanted)
        job_id = int(created["id"])
        if before.get("deferring_job_definition_id") == before["id"]:
            await client.update_job(job_id, sendable(created, {"deferring_job_definition_id": job_id}))
        for name, value in cast(dict[str, str], entry.get("variables") or {}).items():
            await client.set_variable(before["project_id"], job_id, name, value)
        journal.write(DONE, "restore", before["name"], job_id, was=entry["job_id"])
        restored[before["name"]] = new_ids[entry["job_id"]] = job_id
    return restored


def _upstream(entry: Mapping[str, Any]) -> int | None:
    trigger = cast(Json, entry["before"].get("job_completion_trigger_condition") or {})
    return cast(Json, trigger.get("condition") or {}).get("job_id")


async def _named(client: CloudClient, job: Json) -> Json | None:
    found = await client.jobs(project_ids=[job["project_id"]], name_contains=job["name"])
    return next((it for it in found if it["name"] == job["name"]), None)
