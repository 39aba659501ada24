"""The OpenAPI description of the receiver, made from the models that read its bodies."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from deployments.webhook.inbox.delivery import FlatNotification, Message, Notification

PATH = "/webhooks/airbyte"
KEY_HEADER = "x-api-key"

_TEMPLATE = "#/components/schemas/{model}"
_OUTCOMES = {
    "200": "Nothing to do: delivered before, not about a sync, or about a connection that no source names.",
    "202": "The delivery is stored, and a run follows.",
    "400": "The body is empty, or is not JSON.",
    "401": "The secret is missing or wrong.",
    "408": "The body did not arrive in time.",
    "413": "The body is larger than {max_body_bytes} bytes.",
    "422": "The body is JSON of an unknown form.",
    "429": "Too many wrong secrets; Retry-After says when to try again. A request with the right one never gets this.",
    "503": "The delivery could not be stored; Retry-After says when to try again.",
}


class Answer(BaseModel):
    """The answer to a sender."""

    outcome: str = Field(description="The outcome of the delivery, in a word or two.")
    detail: str = Field(description="The outcome as a sentence.")


class Readiness(BaseModel):
    """Whether deliveries can be accepted."""

    status: str
    missing: list[str] = Field(description="What keeps the receiver from accepting deliveries.")
    waiting: int | None = Field(default=None, description="Events that are not processed yet.")


@cache
def description(max_body_bytes: int) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    bodies = (Notification, FlatNotification, Message)
    models = [*bodies, Answer, Readiness]
    _, schemas = models_json_schema([(model, "validation") for model in models], by_alias=True, ref_template=_TEMPLATE)
    body = {"anyOf": [_ref(model) for model in bodies]}
    answers = {
        status: {"description": text.format(max_body_bytes=max_body_bytes), "content": _json(_ref(Answer))}
        for status, text in _OUTCOMES.items()
    }
    deliver = {
        "summary": "Deliver Airbyte's notification of a sync.",
        "requestBody": {"required": True, "content": _json(body)},
        "responses": answers,
    }
    secret = {"name": "secret", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    ready = {"description": "Whether deliveries can be accepted.", "content": _json(_ref(Readiness))}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tributary's receiver",
            "version": "1",
            "description": "Starts one run per finished sync, however often it is delivered.",
        },
        "paths": {
            PATH: {"post": {"operationId": "deliver", **deliver, "security": [{"key": []}]}},
            PATH + "/{secret}": {
                "post": {"operationId": "deliver_with_secret_in_path", **deliver, "parameters": [secret]}
            },
            "/health": {"get": _page("health", "Whether the process is alive.", "application/json")},
            "/ready": {"get": {"operationId": "ready", "responses": {"200": ready, "503": ready}}},
            "/metrics": {"get": _page("metrics", "Counts, for Prometheus.", "text/plain")},
            "/openapi.json": {"get": _page("openapi", "This document.", "application/json")},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": KEY_HEADER}},
        },
    }


def _page(name: str, text: str, media_type: str) -> dict[str, Any]:
    return {"operationId": name, "responses": {"200": {"description": text, "content": {media_type: {}}}}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _TEMPLATE.format(model=model.__name__)}
