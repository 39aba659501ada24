"""The files of a new workspace, from a dbt project and its profile: pure functions."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

import yaml

from infrastructure.targets.from_profiles import FoundProfile
from infrastructure.workspace import MARKER, ROOT, Places, Workspace

_OUT_OF_GIT = {
    ".gitignore": "/data/\n*.duckdb\n*.duckdb.wal\n.env\n",
    # State and logs, also where the folder has a .gitignore already.
    ".tributary/.gitignore": "*\n",
}
# From the folder of this repository.
_SCHEMAS = {
    MARKER: "infrastructure/workspace.schema.json",
    Places.targets: "infrastructure/targets.schema.json",
    Places.schedules: "deployments/schedules.schema.json",
    Places.routes: "flows/alerts/routes.schema.json",
    Places.health: "flows/history/health.schema.json",
    Places.audit: "flows/runbook/audit/audit.schema.json",
    Places.refresh: "flows/runbook/full_refresh/refresh.schema.json",
}
# A setting of targets.yml that is a path, and a relative one: neither /…, ~… and ${…} nor md: and its like.
_RELATIVE_PATH = re.compile(
    r"^(\s+(?:path|keyfile|private_key_path|sslrootcert|sslcert|sslkey): )(?![/~$\"'#]|[a-z0-9+]{2,}:)(\S+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class ProjectFacts:
    """What is known of the dbt project.

    Attributes:
        name: as in dbt_project.yml.
        folder: as seen from the workspace.
        fresh_sources: sources with a freshness of their own.
        connections: the sources by the Airbyte connection that loads them.
    """

    name: str
    folder: str
    fresh_sources: Collection[str] = ()
    connections: Mapping[str, Collection[str]] | None = None

    @property
    def slug(self) -> str:
        """Return the name as names on a Prefect server are written."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "project"


def files_of(project: ProjectFacts, profile: FoundProfile) -> dict[str, str]:
    """Return the files of a workspace, by name."""
    return {
        MARKER: _marker(project.folder),
        "targets.yml": _targets(project, profile),
        "schedules.yml": _schedules(project, profile),
        **_OUT_OF_GIT,
    }


def migrated_files(example: Workspace, place: Path, project: Path) -> dict[str, str]:
    """Return the files of a workspace in a folder with the content of those in the repository, which users have edited.

    Args:
        project: the folder of the dbt project.
    """
    files = {MARKER: _marker(os.path.relpath(project, place))}
    for name in ("targets", "schedules", "routes", "health", "audit", "refresh"):
        text = example.at(getattr(example.places, name)).read_text(encoding="utf-8")
        # They lead to the schemas from where these files are: see `with_schemas`.
        lines = [line for line in text.splitlines(keepends=True) if not line.startswith("# yaml-language-server:")]
        files[getattr(Places, name)] = "".join(lines)
    files[Places.targets] = _RELATIVE_PATH.sub(
        lambda found: found[1] + os.path.relpath(example.folder / found[2], place), files[Places.targets]
    )
    return files | _OUT_OF_GIT


def with_schemas(files: Mapping[str, str], place: Path) -> dict[str, str]:
    """Return files of a workspace in a folder, each led by the way to its JSON Schema, by which editors check it."""
    return {
        name: f"# yaml-language-server: $schema={os.path.relpath(ROOT / _SCHEMAS[name], place)}\n{text}"
        if name in _SCHEMAS
        else text
        for name, text in files.items()
    }


def _marker(folder: str) -> str:
    head = "# Marks this folder as a workspace of Tributary. Relative paths in its files start here.\n"
    return head + _yaml({"project": folder})


def _targets(project: ProjectFacts, profile: FoundProfile) -> str:
    head = """\
# The environments that dbt runs in, taken over from profiles.yml. After a change:
#
#     uv run tributary setup --plan     shows what would change
#     uv run tributary setup            makes it so
#
# No secret is ever written here. A setting that ends in _env names the environment variable that holds the secret.
# Any other value may use ${NAME} or ${NAME:-default}. A target whose variables are not set is passed over.
"""
    parts = [head, _yaml({"profile": profile.name, "default": profile.default}), "targets:"]
    for target in profile.ready:
        comments = [f"# {note}" for note in target.notes]
        parts.append(indent("\n".join([*comments, _yaml({target.name: target.settings})]), "  "))
    text = "\n".join(parts)
    if project.connections:
        listed = ", ".join(sorted({source for sources in project.connections.values() for source in sources}))
        text += f"""
# The Airbyte that loads {listed}.
# airbyte:
#   api_url: ${{AIRBYTE_API_URL}}
#   client_id_env: AIRBYTE_CLIENT_ID
#   client_secret_env: AIRBYTE_CLIENT_SECRET
"""
    return text


def _schedules(project: ProjectFacts, profile: FoundProfile) -> str:
    fresh = sorted(project.fresh_sources)
    freshness = f" It builds nothing while one of {', '.join(fresh)} is too old." if fresh else ""
    text = f"""\
# What runs where and when. After a change:
#
#     uv run tributary deploy plan      shows what would change on the Prefect server
#     uv run tributary deploy apply     makes it so
#     uv run tributary serve            or: this one machine runs all of it, without a worker
#
# A deployment is named <flow>/<name>; docs/deployments.md of Tributary explains every setting.

owner: {project.slug}

defaults:
  target: ${{TRIBUTARY_TARGET:-{profile.default}}}
  time_zone: UTC
  work_pool: {project.slug}

work_pools:
  {project.slug}: {{type: process}}

deployments:
  # The whole project on request, or with parameters of your own: a selection, a full refresh, only what changed.
  dbt-full-pipeline/{project.slug}:
    flow: flows.pipelines.full.dbt_full_pipeline

  # The same every night at 02:00: take the # away.{freshness}
  # dbt-full-pipeline/{project.slug}-nightly:
  #   flow: flows.pipelines.full.dbt_full_pipeline
  #   cron: "0 2 * * *"
"""
    if project.connections:
        text += """
  # What a finished Airbyte sync starts, and the look for syncs that no webhook announced.
  # dbt-transformation-flow/production:
  #   flow: flows.pipelines.transform.dbt_transformation_flow
  # reconcile-airbyte/production:
  #   flow: flows.pipelines.reconcile.reconcile_airbyte
  #   cron: "*/10 * * * *"
  #   concurrency: {limit: 1, when_busy: cancel}
"""
    return text


def _yaml(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10_000)
