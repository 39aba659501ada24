"""The JSON Schemas by which editors check what a user edits."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from deployments.schemas import models, schema_text

OF_EXAMPLE = [path for path in models() if path.stem != "workspace.schema"]


@pytest.mark.parametrize(("path", "model"), models().items(), ids=lambda it: it.stem if isinstance(it, Path) else "")
def test_a_schema_is_up_to_date(path: Path, model: type[BaseModel]) -> None:
    assert path.read_text() == schema_text(path, model), "run: uv run python -m deployments.schemas"


@pytest.mark.parametrize("path", OF_EXAMPLE, ids=lambda it: it.stem)
def test_the_file_beside_a_schema_fits_it_and_leads_editors_there(path: Path) -> None:
    file = path.with_name(path.name.replace(".schema.json", ".yml"))
    text = file.read_text()

    assert text.startswith(f"# yaml-language-server: $schema={path.name}\n")
    jsonschema.validate(yaml.safe_load(text), json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("routes", "routes: [{target: [dev, ci*], to: []}, {owner: ana, severity: critical, to: team}]"),
        ("audit", "accuracy: [{name: a, calculated: b, recorded: c, key: [d], amounts: [e], tolerance: 0.01}]"),
        ("targets", "{default: prod, targets: {prod: {warehouse: postgres, schema: s, credentials_block: mine}}}"),
        ("targets", "{default: prod, targets: {prod: {profile_block: mine, threads: '${THREADS}'}}}"),
    ],
)
def test_what_is_read_fits_the_schema(name: str, text: str) -> None:
    given = yaml.safe_load(text)
    path = next(path for path in models() if path.name == f"{name}.schema.json")
    document = {"destinations": {"team": {"slack": "slack-webhook"}}, **given} if name == "routes" else given

    jsonschema.validate(document, json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("audit", "month: 3"),
        ("health", "last_run: {warn_hours: soon}"),
        ("targets", "{default: prod, targets: {prod: {warehouse: postgres, schema: s}}}"),
    ],
)
def test_a_slip_does_not_fit(name: str, text: str) -> None:
    path = next(path for path in models() if path.name == f"{name}.schema.json")

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json.loads(path.read_text()))
