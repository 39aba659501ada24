"""Read a request's body: which sync, and how it ended. Pure functions.

Two forms are accepted: what Airbyte sends, and a flat one for custom templates.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, cast
from uuid import UUID

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

# Longer texts are cut: they are only for people.
_MAX_TEXT = 500
_MAX_MISTAKES = 5
# The title of Airbyte's only message with `success: false` that is not about a failure.
_QUEUED = "sync queued"


class BadBody(Exception):
    """Say that a body is not a notification of a sync.

    Attributes:
        status: the HTTP status of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _text(value: object) -> str:
    """Return a text that is safe to log and to show: one short line without control characters."""
    if not isinstance(value, str):
        return ""
    shown = "".join(char if char.isprintable() else " " for char in value[:_MAX_TEXT])
    return " ".join(shown.split())


def _not_a_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is expected")
    return value


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=Any)]
JobId = Annotated[
    int,
    BeforeValidator(_not_a_bool),
    Field(gt=0, lt=2**63),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
                {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
            ]
        }
    ),
]


class _Shape(BaseModel):
    # Airbyte adds keys from version to version.
    model_config = ConfigDict(extra="ignore")


class Connection(_Shape):
    """The connection that was synced."""

    id: UUID
    name: Text = ""


class Sync(_Shape):
    """The sync that ended."""

    connection: Connection
    job_id: JobId = Field(alias="jobId")
    success: bool
    error_message: Text = Field(default="", alias="errorMessage")
    error_type: Text = Field(default="", alias="errorType")
    error_origin: Text = Field(default="", alias="errorOrigin")


class Notification(_Shape):
    """What Airbyte sends when a sync has succeeded or failed."""

    data: Sync


class FlatNotification(_Shape):
    """What a custom template sends: without a job id, Airbyte is asked for the newest job."""

    data: None = None
    connection_id: UUID = Field(alias="connectionId")
    status: str = Field(max_length=_MAX_TEXT, description="`succeeded` for a success; everything else is a failure.")
    job_id: JobId | None = Field(default=None, alias="jobId")
    source_name: Text = Field(default="", alias="sourceName")


class Message(_Shape):
    """What Airbyte sends about anything but a sync, such as a changed schema: accepted and ignored."""

    data: None = None
    connection_id: None = Field(default=None, alias="connectionId")
    text: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """The notification of one sync.

    Attributes:
        connection_id: UUID in lower case.
        job_id: None when the sender did not give it.
        succeeded: as notified; a failure still has to be confirmed by Airbyte.
        queued: whether the message is about a waiting sync, not a failed one.
        name: the connection's name for people.
        reason: what went wrong.
        digest: of the body, to recognise repeats without a job id.
    """

    connection_id: str
    job_id: int | None
    succeeded: bool
    queued: bool = False
    name: str = ""
    reason: str = ""
    digest: str = ""


def read_delivery(body: bytes) -> Delivery | None:
    """Return the delivery in a request's body; None when it is not about a sync.

    Raises:
        BadBody: it is empty, is not JSON, or has neither form.
    """
    if not body.strip():
        raise BadBody(
            400,
            "The body is empty. Airbyte over plain http asks for HTTP/2, and a proxy or server that agrees without "
            "supporting it loses the body: serve with `python -m deployments.webhook serve`, or put TLS in front.",
        )
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadBody(400, "The body is not JSON.") from exc
    if not isinstance(document, dict):
        raise BadBody(422, "The body has to be a JSON object.")
    fields = cast(dict[str, Any], document)
    try:
        if fields.get("data") is not None:
            return _of_airbyte(fields)
        if fields.get("connectionId") is not None:
            return _of_template(fields, body)
        Message.model_validate(fields)
    except ValidationError as exc:
        raise BadBody(422, _in_words(exc)) from exc
    return None


def _of_airbyte(fields: dict[str, Any]) -> Delivery:
    sync = Notification.model_validate(fields).data
    about = (sync.error_type, sync.error_origin)
    reason = sync.error_message + (f" ({', '.join(part for part in about if part)})" if any(about) else "")
    return Delivery(
        connection_id=str(sync.connection.id),
        job_id=sync.job_id,
        succeeded=sync.success,
        queued=not sync.success and _QUEUED in _title(fields).lower(),
        name=sync.connection.name,
        reason=reason.strip(),
    )


def _of_template(fields: dict[str, Any], body: bytes) -> Delivery:
    sync = FlatNotification.model_validate(fields)
    succeeded = sync.status.lower() == "succeeded"
    return Delivery(
        connection_id=str(sync.connection_id),
        job_id=sync.job_id,
        succeeded=succeeded,
        name=sync.source_name,
        reason="" if succeeded else f"status {_text(sync.status)}",
        digest=hashlib.sha256(body).hexdigest(),
    )


def _title(fields: dict[str, Any]) -> str:
    """Return the title of a message: from its first block, else from its text."""
    with suppress(KeyError, IndexError, TypeError):
        return _text(fields["blocks"][0]["text"]["text"])
    return _text(fields.get("text"))


def _in_words(error: ValidationError) -> str:
    mistakes = [
        f"{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}"
        for entry in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return f"The body is not one that Airbyte sends. {'; '.join(mistakes[:_MAX_MISTAKES])}"
