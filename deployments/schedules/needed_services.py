"""Which schedules wait for a service: without it, every run of theirs would fail."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from infrastructure.yaml_file import all_of

if TYPE_CHECKING:
    from deployments.schedules.declared import DeclaredDeployment
    from infrastructure.server.client import Server

_AIRBYTE = ("secret", "airbyte-api-url")
# The flows that can do nothing without a service: its name, and the block that setup makes for it.
_NEEDED = {"flows.pipelines.reconcile.reconcile_airbyte": ("Airbyte", "airbyte", _AIRBYTE)}


def with_their_services(
    server: Server, declared: Sequence[DeclaredDeployment], there: Collection[str] = ()
) -> tuple[list[DeclaredDeployment], list[str]]:
    """Return the deployments without those on a schedule whose service is not set up, and a sentence on each service.

    Args:
        there: full names of deployments that the server has: these are left as they are declared.
    """
    waiting: dict[tuple[str, str], list[str]] = {}
    kept: list[DeclaredDeployment] = []
    for deployment in declared:
        needed = _NEEDED.get(deployment.entrypoint) if deployment.cron and not deployment.paused else None
        if needed and deployment.full_name not in there and not _has_block(server, *needed[2]):
            waiting.setdefault(needed[:2], []).append(deployment.full_name)
        else:
            kept.append(deployment)
    return kept, [
        f"Left out until {service} is set up: {all_of(names)}. Name it with `{entry}` in targets.yml, run "
        "infrastructure.setup_profiles, and then this again."
        for (service, entry), names in waiting.items()
    ]


def _has_block(server: Server, type_slug: str, name: str) -> bool:
    return name in server.block_names(type_slug)
