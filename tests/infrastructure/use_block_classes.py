"""A flow of one's own with prefect-dbt's classes; runs in an environment that has them.

Reads {"target": …, "project": …} from standard input, and builds the project of that target in each documented way.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

from tests.support.block_libraries import READY

print(READY, flush=True)
warnings.simplefilter("ignore")

from prefect import flow  # noqa: E402
from prefect_dbt import PrefectDbtRunner, PrefectDbtSettings  # noqa: E402  # pyright: ignore[reportMissingImports]
from prefect_dbt.cli import DbtCliProfile, DbtCoreOperation  # noqa: E402  # pyright: ignore[reportMissingImports]

from flows.tasks import dbt_environment  # noqa: E402


@flow
def with_an_operation(target: str, project: str) -> list[str]:
    """Build in a shell, with the profile that Tributary writes."""
    dbt = f"{sys.executable} -m dbt.cli.main"
    with dbt_environment(target) as variables:
        return DbtCoreOperation(commands=[f"{dbt} build --select first"], project_dir=project, env=variables).run()


@flow
def with_a_profile_block(target: str, project: str, profiles: str) -> list[str]:
    """Build in a shell, with the profile that prefect-dbt writes from the block."""
    block = DbtCliProfile.load(f"dbt-cli-profile-{target}")
    dbt = f"{sys.executable} -m dbt.cli.main"
    with dbt_environment(target) as variables:
        operation = DbtCoreOperation(
            commands=[f"{dbt} build --select second"],
            project_dir=project,
            profiles_dir=profiles,
            dbt_cli_profile=block,
            overwrite_profiles=True,
            env=variables,
        )
        return operation.run()


@flow
def with_a_runner(target: str, project: str) -> bool:
    """Build in this process, with each node a task run."""
    with dbt_environment(target) as variables:
        os.environ.update(variables)
        settings = PrefectDbtSettings(project_dir=project, profiles_dir=variables["DBT_PROFILES_DIR"])
        return PrefectDbtRunner(settings=settings).invoke(["build", "--select", "third"]).success


def main() -> None:
    """Answer the request on standard input."""
    asked: dict[str, Any] = json.load(sys.stdin)
    target, project = asked["target"], asked["project"]
    os.environ["DBT_SEND_ANONYMOUS_USAGE_STATS"] = "false"
    with_an_operation(target, project)
    with_a_profile_block(target, project, asked["profiles"])
    assert with_a_runner(target, project)
    print(json.dumps({"built": 3}))


if __name__ == "__main__":
    main()
