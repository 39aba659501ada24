"""Read and write dbt Cloud's jobs, environment variables, runs and artifacts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, cast

from flows.services.dbt_cloud.settings import CloudSettings
from flows.services.dbt_cloud.token_bucket import TokenBucket
from flows.services.dbt_cloud.transport import RequestRefused, Transport
from infrastructure.errors import UpstreamUnavailable

Json = dict[str, Any]

# dbt Cloud refuses larger pages.
PAGE_SIZE = 100
# A list that shrinks while it is read may lose an entry between two pages: it is read again, so often.
READINGS = 3
NOT_FOUND = 404

SUCCESS, ERROR, CANCELLED = 10, 20, 30


class CloudClient:
    """Work with one dbt Cloud account; use it with `async with`."""

    def __init__(self, settings: CloudSettings, bucket: TokenBucket | None = None) -> None:
        self.settings = settings
        self.transport = Transport(settings, bucket)
        self._v2 = f"/api/v2/accounts/{settings.account_id}"
        self._v3 = f"/api/v3/accounts/{settings.account_id}"

    async def __aenter__(self) -> CloudClient:
        await self.transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.transport.__aexit__(kind, exc, trace)

    async def jobs(
        self,
        *,
        project_ids: Iterable[int] = (),
        environment_id: int | None = None,
        name_contains: str | None = None,
        with_variables: bool = False,
    ) -> list[Json]:
        """Return the active jobs by id.

        Args:
            name_contains: regardless of case.
            with_variables: with the environment variables each job overrides, where dbt Cloud includes them.
        """
        params: dict[str, str | int] = {"order_by": "id"}
        if projects := sorted(set(project_ids)):
            params["project_id__in"] = "[" + ",".join(str(project) for project in projects) + "]"
        if environment_id is not None:
            params["environment_id"] = environment_id
        if name_contains is not None:
            params["name__icontains"] = name_contains
        if with_variables:
            params["include_related"] = '["custom_environment_variables"]'
        return await self._list(f"{self._v2}/jobs/", params)

    async def job(self, job_id: int) -> Json | None:
        """Return one job; None when there is none, or it is deleted."""
        try:
            found = cast(Json, (await self.transport.read(f"{self._v2}/jobs/{job_id}/")).get("data") or {})
        except RequestRefused as exc:
            if exc.status == NOT_FOUND:
                return None
            raise
        return found if found.get("state", 1) == 1 else None

    async def create_job(self, job: Mapping[str, Any]) -> Json:
        """Create a job and return it.

        Raises:
            AnswerLost: it may have been created or not; look before you try again.
        """
        return await self.transport.write(f"{self._v2}/jobs/", job, repeatable=False)

    async def update_job(self, job_id: int, job: Mapping[str, Any]) -> Json:
        """Replace a job by a whole one and return it."""
        return await self.transport.write(f"{self._v2}/jobs/{job_id}/", job, repeatable=True)

    async def delete_job(self, job_id: int) -> bool:
        """Delete a job; return whether it was there."""
        return await self._delete(f"{self._v2}/jobs/{job_id}/")

    async def job_variables(self, project_id: int, job_id: int) -> dict[str, Json]:
        """Return the variables that a job overrides: name to `{"id": …, "value": …}`; secrets read back masked."""
        document = await self.transport.read(
            f"{self._v3}/projects/{project_id}/environment-variables/job/", {"job_definition_id": job_id}
        )
        data = cast(dict[str, Json], document.get("data") or {})
        return {name: scopes["job"] for name, scopes in data.items() if scopes.get("job")}

    async def project_variables(self, project_id: int) -> set[str]:
        """Return the names of the variables that a project declares."""
        document = await self.transport.read(f"{self._v3}/projects/{project_id}/environment-variables/environment/")
        return set(cast(Json, document.get("data") or {}).get("variables") or {})

    async def set_variable(
        self, project_id: int, job_id: int, name: str, value: str, variable_id: int | None = None
    ) -> None:
        """Override a variable for a job: a new override, or the one with this id."""
        body = {
            "account_id": self.settings.account_id,
            "project_id": project_id,
            "name": name,
            "type": "job",
            "job_definition_id": job_id,
            "raw_value": value,
        }
        path = f"{self._v3}/projects/{project_id}/environment-variables/"
        if variable_id is not None:
            path += f"{variable_id}/"
        # The caller looks up a new override of the same name and job before it repeats the request.
        await self.transport.write(path, body, repeatable=variable_id is not None)

    async def delete_variable(self, project_id: int, variable_id: int) -> bool:
        """Delete an override; return whether it was there."""
        return await self._delete(f"{self._v3}/projects/{project_id}/environment-variables/{variable_id}/")

    async def environments(self, project_id: int) -> list[Json]:
        """Return the environments of a project."""
        return await self._list(f"{self._v3}/projects/{project_id}/environments/", {})

    async def runs(self, job_id: int, *, newest: int = PAGE_SIZE) -> list[Json]:
        """Return the newest runs of a job, newest first, with what caused each."""
        params: dict[str, str | int] = {
            "job_definition_id": job_id,
            "order_by": "-id",
            "limit": min(newest, PAGE_SIZE),
            "include_related": '["trigger"]',
        }
        document = await self.transport.read(f"{self._v2}/runs/", params)
        return cast(list[Json], document.get("data") or [])

    async def run(self, run_id: int) -> Json:
        """Return one run with its steps."""
        params = {"include_related": '["trigger","run_steps"]'}
        return cast(Json, (await self.transport.read(f"{self._v2}/runs/{run_id}/", params))["data"])

    async def trigger(self, job_id: int, body: Mapping[str, Any]) -> Json:
        """Start a run of a job and return it.

        Raises:
            AnswerLost: it may have started or not; look for its cause before you try again.
        """
        return await self.transport.write(f"{self._v2}/jobs/{job_id}/run/", body, repeatable=False)

    async def retry(self, run_id: int) -> Json:
        """Start a run that does the rest of a failed one, and return it.

        Raises:
            AnswerLost: it may have started or not.
        """
        return await self.transport.write(f"{self._v2}/runs/{run_id}/retry/", None, repeatable=False)

    async def cancel(self, run_id: int) -> Json:
        """Stop a run and return it."""
        return await self.transport.write(f"{self._v2}/runs/{run_id}/cancel/", None, repeatable=True)

    async def artifacts(self, run_id: int) -> list[str]:
        """Return the paths of a run's artifacts."""
        document = await self.transport.read(f"{self._v2}/runs/{run_id}/artifacts/")
        return cast(list[str], document.get("data") or [])

    async def artifact(self, run_id: int, path: str, step: int | None = None) -> bytes | None:
        """Return an artifact of a run's last step, or of a given one; None when that step wrote none."""
        try:
            params = {"step": step} if step is not None else None
            return await self.transport.send("GET", f"{self._v2}/runs/{run_id}/artifacts/{path}", params=params)
        except RequestRefused as exc:
            if exc.status == NOT_FOUND:
                return None
            raise

    async def _delete(self, path: str) -> bool:
        try:
            await self.transport.send("DELETE", path)
        except RequestRefused as exc:
            if exc.status == NOT_FOUND:
                return False
            raise
        return True

    async def _list(self, path: str, params: Mapping[str, str | int]) -> list[Json]:
        """Read all pages at once; the first one says how many there are."""
        for _ in range(READINGS):
            first, total = await self._page(path, params, 0)
            rest = await asyncio.gather(
                *(self._page(path, params, offset) for offset in range(PAGE_SIZE, total, PAGE_SIZE))
            )
            totals = [total, *(later for _, later in rest)]
            found = {item["id"]: item for page in (first, *(page for page, _ in rest)) for item in page}
            # New entries come at the end, by id. A deleted one moves those behind it to an earlier page, where they
            # may have been read already or not.
            if min(totals) == total and len(found) >= total:
                return [found[key] for key in sorted(found)]
        raise UpstreamUnavailable(
            f"The list {path} of dbt Cloud shrank in each of {READINGS} readings. Try again later."
        )

    async def _page(self, path: str, params: Mapping[str, str | int], offset: int) -> tuple[Sequence[Json], int]:
        document = await self.transport.read(path, {**params, "limit": PAGE_SIZE, "offset": offset})
        data = cast(list[Json], document.get("data") or [])
        pagination = cast(Json, (document.get("extra") or {}).get("pagination") or {})
        return data, int(pagination.get("total_count", len(data)))
