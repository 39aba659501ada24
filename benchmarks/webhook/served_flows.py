"""What benchmarks.webhook starts: `python -m benchmarks.webhook.served_flows PROJECT` serves two deployments."""

from __future__ import annotations

import asyncio
import sys

from prefect import aserve, flow
from prefect.types.entrypoint import EntrypointType

from flows.pipelines.transform import dbt_transformation_flow


@flow
def empty() -> None:
    """Do nothing: what a flow run needs to start, whatever it then does."""


async def main(project: str) -> None:
    """Serve the empty flow and the transformation of a project."""
    # This file runs as __main__, which is no name that a flow run could import it by.
    from benchmarks.webhook.served_flows import empty as importable

    as_module = EntrypointType.MODULE_PATH
    parameters = {"project_dir": project}
    await aserve(
        await importable.ato_deployment("served", entrypoint_type=as_module),
        await dbt_transformation_flow.ato_deployment("served", entrypoint_type=as_module, parameters=parameters),
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
