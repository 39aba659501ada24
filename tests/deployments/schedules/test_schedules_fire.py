"""A schedule on the server that these packages make up has to lead to runs."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.deployments.runner import RunnerDeployment

from tests.support.processes import wait_until


def test_a_cron_schedule_of_the_pipeline_makes_runs(prefect_server: str) -> None:
    """With sqlalchemy 2.1 the scheduler of Prefect 3.8.8 failed, and nothing but its own log said so."""
    deployment = RunnerDeployment.from_entrypoint(
        "flows.pipelines.full.dbt_full_pipeline", name="hourly", cron="0 * * * *", parameters={"target": "dev"}
    )
    deployment_id = deployment.apply()
    with get_client(sync_client=True) as client:
        only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
        try:
            wait_until(
                lambda: client.read_flow_runs(deployment_filter=only, limit=1), "the scheduler plans a run", 90.0
            )
            run = client.read_flow_runs(deployment_filter=only, limit=1)[0]
            assert run.parameters == {"target": "dev"}
            assert run.state
            assert run.state.is_scheduled()
        finally:
            client.delete_deployment(deployment_id)
