"""The JSON Schemas of the files that people edit, by which editors complete and check them.

`uv run python -m deployments.schemas` writes them beside the example's files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from infrastructure.workspace import ROOT

# As targets have it, a word that chooses the rest of the settings.
_CHOOSES = "warehouse"


def models() -> dict[Path, type[BaseModel]]:
    """Return the model of each file by the place of its schema."""
    from deployments.schedules.schedule_models import Schedules
    from flows.alerts.routes import Routes
    from flows.history.health_settings import Health
    from flows.runbook.audit.settings import AuditSettings
    from flows.runbook.full_refresh.settings import RefreshSettings
    from infrastructure.targets.target_file import Targets
    from infrastructure.workspace.file import WorkspaceFile

    found: dict[str, type[BaseModel]] = {
        "infrastructure/workspace": WorkspaceFile,
        "infrastructure/targets": Targets,
        "deployments/schedules": Schedules,
        "flows/alerts/routes": Routes,
        "flows/history/health": Health,
        "flows/runbook/audit/audit": AuditSettings,
        "flows/runbook/full_refresh/refresh": RefreshSettings,
    }
    return {ROOT / f"{name}.schema.json": model for name, model in found.items()}


def schema_text(path: Path, model: type[BaseModel]) -> str:
    """Return the JSON Schema of a file as it is committed."""
    schema = model.model_json_schema()
    name = "tributary" if model.__name__ == "WorkspaceFile" else path.name.removesuffix(".schema.json")
    schema["title"] = f"Tributary's {name}.yml"
    for definition in [schema, *cast(dict[str, Any], schema.get("$defs", {})).values()]:
        for setting in definition.get("properties", {}).values():
            setting.pop("title", None)
        # Files that look variables up, in which a number or a word may stand for one.
        if name in ("targets", "schedules", "routes"):
            for key, setting in definition.get("properties", {}).items():
                if key != _CHOOSES:
                    definition["properties"][key] = _or_variable(setting)
    return json.dumps(schema, indent=2) + "\n"


def _or_variable(setting: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a setting that may also be written as `${NAME}` or `${NAME:-default}`."""
    kinds = setting.get("anyOf", [setting])
    told = ("enum", "pattern")
    if not any(
        kind.get("type") in ("integer", "number", "boolean") or any(it in kind for it in told) for kind in kinds
    ):
        return setting
    outer = {key: value for key, value in setting.items() if key in ("description", "default")}
    inner = [{key: value for key, value in kind.items() if key not in outer} for kind in kinds]
    return {**outer, "anyOf": [*inner, {"type": "string", "pattern": r"^\$\{.+\}$"}]}


if __name__ == "__main__":
    for place, of in models().items():
        place.write_text(schema_text(place, of), encoding="utf-8")
