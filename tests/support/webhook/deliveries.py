"""Bodies as Airbyte sends them, and as a template of one's own does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SECRET = "a-secret-that-nobody-can-guess-0123456789"
GOOGLE_ADS = "00000000-0000-4000-8000-000000000001"
FACEBOOK_ADS = "00000000-0000-4000-8000-000000000002"
STRANGER = "0f8fad5b-d9cb-469f-a165-70867728950e"


def notification(
    connection_id: str = GOOGLE_ADS, job_id: Any = 9988, success: bool = True, **about: Any
) -> dict[str, Any]:
    """Return what Airbyte sends when a sync has ended."""
    title = "Sync completed" if success else about.pop("title", "Sync failure occurred")
    data = {
        "workspace": {"id": "b29ab01e-8c0f-4c2b-9a0b-3b1f2d9b7c55", "name": "Marketing", "url": "https://airbyte/w"},
        "connection": {"id": connection_id, "name": "Ads → warehouse", "url": "https://airbyte/w/c"},
        "source": {"id": "5b5e9d0c-7d0e-4a53-a7d1-2f7d5c8f2f11", "name": "Ads", "url": "https://airbyte/w/s"},
        "destination": {
            "id": "2d3b3a63-4b8e-4f5f-8d1e-6f0f5f1a6a10",
            "name": "warehouse",
            "url": "https://airbyte/w/d",
        },
        "jobId": job_id,
        "success": success,
        "startedAt": "2026-11-01T00:00:00Z",
        "finishedAt": "2026-11-01T00:04:00Z",
        "bytesEmitted": 1000,
        "bytesCommitted": 1000,
        "recordsEmitted": 89,
        "recordsCommitted": 89,
        "recordsFilteredOut": 0,
        "bytesFilteredOut": 0,
        "errorMessage": None if success else "The API of the source is down",
        "errorType": None if success else "transient_error",
        "errorOrigin": None if success else "source",
        "durationInSeconds": 240,
        "durationFormatted": "4 min 0 sec",
    }
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": f"{title}: *Ads → warehouse*"}}]
    return {"text": "Your connection …", "blocks": blocks, "data": {**data, **about}}


def flat(connection_id: str = GOOGLE_ADS, status: str = "succeeded", **about: Any) -> dict[str, Any]:
    """Return what a template of one's own sends."""
    fields = {"sourceName": "google_ads", "recordsSynced": 89, "bytesEmitted": 1000}
    return {"connectionId": connection_id, "status": status, **fields, **about}


def body(document: Any) -> bytes:
    """Return a document as bytes."""
    return json.dumps(document).encode()


def write_project(folder: Path) -> Path:
    """Write a dbt project whose two sources are loaded by Airbyte, and return its folder."""
    sources = "".join(
        f"  - name: {name}\n    tables: [{{name: a}}]\n    config: {{meta: {{airbyte_connection_id: {connection}}}}}\n"
        for name, connection in (("google_ads", GOOGLE_ADS), ("facebook_ads", FACEBOOK_ADS))
    )
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("name: ads\nversion: '1.0'\n")
    (folder / "models" / "_sources.yml").write_text(f"sources:\n{sources}")
    return folder
