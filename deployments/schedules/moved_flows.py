"""The new modules of flows that earlier versions had elsewhere, so that an edited schedules file still works.

A deployment on a server names a module as well: `deployments.apply plan` shows the difference, `apply` updates it.
"""

from __future__ import annotations

# Module of an earlier version → where its flows are.
_MODULES = {
    "flows.pipeline": "flows.pipelines.full",
    "flows.transform": "flows.pipelines.transform",
    "flows.new_data": "flows.pipelines.new_data",
    "flows.reconcile": "flows.pipelines.reconcile",
    "flows.cloud_jobs": "flows.pipelines.cloud_job",
    "flows.history.maintenance": "flows.pipelines.history_maintenance",
    "flows.operations.audit": "flows.runbook.audit.flow",
    "flows.operations.compare": "flows.runbook.compare.flow",
    "flows.operations.full_refresh": "flows.runbook.full_refresh.flow",
    "flows.operations.health_check": "flows.runbook.health.flow",
    "flows.operations.payroll": "flows.runbook.payroll.flow",
    "flows.operations.pipeline_failure": "flows.runbook.pipeline_failure.flow",
    "flows.operations.scd2_repair": "flows.runbook.scd2.flow",
    "flows.operations.triage": "flows.runbook.triage.flow",
    "deployments.dbt_cloud.resync": "deployments.dbt_cloud.apply.resync",
}
_FUNCTIONS = {"flows.pipelines.transform.full_dbt_refresh": "flows.pipelines.transform.nightly_build"}


def present_entrypoint(entrypoint: str) -> str:
    """Return the current module and function of a flow; one that never moved is returned unchanged."""
    module, _, function = entrypoint.rpartition(".")
    moved = f"{_MODULES.get(module, module)}.{function}"
    return _FUNCTIONS.get(moved, moved)
