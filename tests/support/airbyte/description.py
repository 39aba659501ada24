"""The part of Airbyte's published API description that Tributary relies on: which operations, which shapes.

`description.json` holds it in a shape of our own, without a word of Airbyte's prose. Made from a checkout of
airbytehq/airbyte-platform, in which the files stand under airbyte-api/server-api/src/main/openapi:

    uv run python -m tests.support.airbyte.description FOLDER > tests/support/airbyte/description.json

The test beside it compares the two when TRIBUTARY_TEST_AIRBYTE_OPENAPI names that folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

FILE = Path(__file__).with_name("description.json")
# File of the description → the operations in it that are used. The paths of the public API are relative to its base.
_USED = {
    "api_sdk.yaml": (
        "GET /health",
        "GET /jobs",
        "POST /jobs",
        "GET /jobs/{jobId}",
        "DELETE /jobs/{jobId}",
        "GET /connections",
        "GET /connections/{connectionId}",
    ),
    "config.yaml": ("POST /public/v1/applications/token", "POST /v1/jobs/get_without_logs"),
}
# What says how a value has to look; everything else of a schema is prose, examples or hints for generators.
_KEPT = ("type", "format", "enum", "minimum", "maximum", "required", "$ref")
# Parts of large shapes that nobody here reads.
_OPAQUE = ("StreamConfigurations", "Tag", "LogEvents", "LogRead", "StreamDescriptor", "ResetConfig", "JobRefreshConfig")
_OPAQUE += ("StreamAggregatedStats", "AttemptStats", "AttemptStreamStats")


def extract(folder: Path) -> dict[str, Any]:
    """Return the part of a published description that is used."""
    operations: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    for name, used in _USED.items():
        document = yaml.load((folder / name).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        schemas = document["components"]["schemas"]
        for operation in used:
            method, path = operation.split()
            operations[operation] = _operation(document["paths"][path][method.lower()], schemas, shapes)
    return {"operations": operations, "shapes": dict(sorted(shapes.items()))}


def _operation(published: dict[str, Any], schemas: dict[str, Any], shapes: dict[str, Any]) -> dict[str, Any]:
    query = {p["name"]: _shape(p["schema"], schemas, shapes) for p in published.get("parameters", ())}
    body = published.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    answers: dict[str, Any] = {}
    for status, answer in published["responses"].items():
        found = answer.get("content", {}).get("application/json", {}).get("schema")
        answers[status] = _shape(found, schemas, shapes) if found else None
    return {"query": query, "body": _shape(body, schemas, shapes) if body else None, "answers": answers}


def _shape(schema: dict[str, Any], schemas: dict[str, Any], shapes: dict[str, Any]) -> dict[str, Any]:
    kept = {key: schema[key] for key in _KEPT if key in schema}
    if "$ref" in kept:
        name = kept["$ref"].rpartition("/")[2]
        if name not in shapes:
            shapes[name] = {}
            if name not in _OPAQUE:
                shapes[name] = _shape(schemas[name], schemas, shapes)
        return {"$ref": f"#/shapes/{name}"}
    if "items" in schema:
        kept["items"] = _shape(schema["items"], schemas, shapes)
    if "properties" in schema:
        kept["properties"] = {key: _shape(value, schemas, shapes) for key, value in schema["properties"].items()}
    if "oneOf" in schema:
        kept["oneOf"] = [_shape(value, schemas, shapes) for value in schema["oneOf"]]
    return kept


class Description:
    """Check requests and answers against the description."""

    def __init__(self) -> None:
        self._document: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))

    def enum(self, shape: str) -> list[str]:
        """Return the values that a shape may have."""
        return self._document["shapes"][shape]["enum"]

    def fields(self, shape: str) -> set[str]:
        """Return the names of a shape's fields."""
        return set(self._document["shapes"][shape]["properties"])

    def request_errors(self, operation: str, query: dict[str, str], body: object) -> list[str]:
        """Return what is wrong with a request: unknown or malformed parameters, a body of another shape."""
        described = self._document["operations"][operation]
        errors = [f"{operation} takes no parameter {name}" for name in query if name not in described["query"]]
        for name, text in query.items():
            schema = described["query"].get(name, {})
            number = schema.get("type") == "integer" and text.lstrip("-").isdigit()
            # A list in a query is written with commas.
            value = text.split(",") if schema.get("type") == "array" else int(text) if number else text
            errors += self._errors(schema, value, f"{operation} {name}")
        if described["body"]:
            errors += self._errors(described["body"], body, operation)
        return errors

    def answer_errors(self, operation: str, status: int, document: object) -> list[str]:
        """Return what is wrong with an answer: a field that is missing, unknown or of another type."""
        schema = self._document["operations"][operation]["answers"].get(str(status))
        return [] if schema is None else self._errors(schema, document, f"{operation} {status}")

    def _errors(self, schema: dict[str, Any], value: object, where: str) -> list[str]:
        validator = Draft202012Validator(
            {**schema, "shapes": {name: _closed(shape) for name, shape in self._document["shapes"].items()}}
        )
        return [f"{where}: {error.json_path} {error.message}" for error in validator.iter_errors(value)]


def _closed(shape: dict[str, Any]) -> dict[str, Any]:
    """Forbid what is not described, which the description itself leaves open."""
    if "properties" not in shape:
        return shape
    # One shape requires grant_type and describes it as grant-type.
    named = {name: {} for name in shape.get("required", ())} | shape["properties"]
    return {**shape, "properties": named, "additionalProperties": False}


if __name__ == "__main__":
    print(json.dumps(extract(Path(sys.argv[1])), indent=1))
