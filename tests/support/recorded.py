"""What a Prefect server recorded of a flow run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.support.prefect_api import ask, post
from tests.support.processes import wait_until

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


class Recorded:
    """Read one flow run from the server's API."""

    def __init__(self, api: str, flow_run_id: UUID) -> None:
        self._api = api
        self._id = str(flow_run_id)

    def flow_run(self) -> dict[str, Any]:
        """Return the flow run."""
        return ask("GET", f"{self._api}/flow_runs/{self._id}").json()

    def node_runs(self, count: int) -> dict[str, dict[str, Any]]:
        """Return the task runs of dbt's nodes by unique id, when as many as expected have ended there."""
        found: dict[str, dict[str, Any]] = {}

        def are_there() -> bool:
            found.clear()
            found.update({run["dynamic_key"]: run for run in self._of("task_runs") if run["task_key"] == "dbt-node"})
            return sum(run["state_type"] in ENDED for run in found.values()) >= count

        wait_until(are_there, f"{count} nodes are recorded")
        return found

    def task_runs(self) -> list[dict[str, Any]]:
        """Return the task runs of the flow's own tasks."""
        return [run for run in self._of("task_runs") if run["task_key"] != "dbt-node"]

    def logs(self) -> list[dict[str, Any]]:
        """Return the log lines."""
        return self._of("logs", {"logs": {"flow_run_id": {"any_": [self._id]}}})

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """Return the artifacts that have a key, by key; Prefect keeps results as artifacts without one."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [self._id]}}}
        return {artifact["key"]: artifact for artifact in self._of("artifacts", wanted) if artifact["key"]}

    def assets(self, count: int) -> dict[str, dict[str, Any]]:
        """Return the events of what the flow run built by the name of the asset, when as many as expected are there."""
        found: list[dict[str, Any]] = []
        wanted = {
            "filter": {
                "event": {"prefix": ["prefect.asset.materialization."]},
                "related": {"id": [f"prefect.flow-run.{self._id}"]},
            },
            "limit": 50,
        }

        def are_there() -> bool:
            found[:] = post(self._api, "/events/filter", wanted)["events"]
            return len(found) >= count

        wait_until(are_there, f"{count} assets are recorded")
        return {event["resource"]["prefect.resource.name"]: event for event in found}

    def _of(self, kind: str, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        body = body or {"flow_runs": {"id": {"any_": [self._id]}}}
        found: list[dict[str, Any]] = []
        while True:
            page = post(self._api, f"/{kind}/filter", body | {"limit": 200, "offset": len(found)})
            found += page
            if len(page) < 200:
                return found
