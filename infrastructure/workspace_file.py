"""Read and check tributary.yml, the file that marks a workspace.

`python -m infrastructure.workspace_file` writes infrastructure/workspace.schema.json, for editors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from infrastructure.settings_file import read_settings
from infrastructure.workspace import ROOT, Places

SCHEMA_FILE = ROOT / "infrastructure" / "workspace.schema.json"

_Path = Annotated[str, StringConstraints(min_length=1)]


class WorkspaceFile(BaseModel):
    """The content of tributary.yml; paths start at its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: _Path = Field(default=Places.project, description="The folder of the dbt project.")
    targets: _Path = Field(default=Places.targets, description="The environments.")
    schedules: _Path = Field(default=Places.schedules, description="What runs where and when.")
    routes: _Path = Field(default=Places.routes, description="Which alerts go where.")
    health: _Path = Field(default=Places.health, description="The thresholds of health checks.")
    audit: _Path = Field(default=Places.audit, description="The settings of the audit.")
    refresh: _Path = Field(default=Places.refresh, description="The settings of a full refresh.")


def read_places(path: Path) -> Places:
    """Read a tributary.yml.

    Raises:
        ConfigError: it can't be read, or lists every mistake in it with its line.
    """
    return Places(**read_settings(path, WorkspaceFile).model_dump())


def schema_text() -> str:
    """Return the JSON Schema of tributary.yml, as it is committed for editors."""
    schema = WorkspaceFile.model_json_schema()
    schema["title"] = "Tributary's tributary.yml"
    for setting in schema["properties"].values():
        del setting["title"]
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
