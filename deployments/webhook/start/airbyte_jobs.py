"""Ask Airbyte about a sync, for deliveries that have to be confirmed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from deployments.webhook.start.prefect_api import PrefectApi
from deployments.webhook.start.verdict import JobState

if TYPE_CHECKING:
    from flows.services.airbyte.client import AirbyteClient, Job

_LOOK_BACK = timedelta(days=2)
# Setting → environment variable; the block on the Prefect server has the setting's name.
_PLACES = {
    "airbyte-api-url": "AIRBYTE_API_URL",
    "airbyte-client-id": "AIRBYTE_CLIENT_ID",
    "airbyte-client-secret": "AIRBYTE_CLIENT_SECRET",
}


class ApiJobs:
    """Ask Airbyte's API."""

    def __init__(self, airbyte: AirbyteClient) -> None:
        self._airbyte = airbyte

    def job(self, connection_id: str, job_id: int) -> JobState | None:
        """Return a job; None when Airbyte has it for another connection."""
        job = self._airbyte.job(job_id)
        return self._state(job) if job.connection_id.lower() == connection_id else None

    def newest_ended(self, connection_id: str) -> JobState | None:
        """Return the newest ended sync of a connection within the last days."""
        jobs = self._airbyte.loads_since(connection_id, datetime.now(UTC) - _LOOK_BACK)
        ended = [job for job in jobs if job.has_ended]
        return self._state(ended[-1]) if ended else None

    def _state(self, job: Job) -> JobState:
        reason = self._airbyte.failure_reason(job.job_id) if job.status == "failed" else None
        return JobState(job.job_id, job.connection_id.lower(), job.status, reason or "")


async def find_jobs(prefect: PrefectApi, environ: Mapping[str, str] | None = None) -> ApiJobs | None:
    """Return the Airbyte of the environment or of setup's blocks; None where there is none.

    Raises:
        UpstreamUnavailable: it is not in the environment, and Prefect does not answer.
    """
    environ = os.environ if environ is None else environ
    values = [environ.get(variable) for variable in _PLACES.values()]
    if not values[0]:
        values = [await prefect.read_secret(name) for name in _PLACES]
    if not values[0]:
        return None
    from flows.services.airbyte.client import AirbyteClient

    return ApiJobs(AirbyteClient(values[0], values[1], values[2]))
