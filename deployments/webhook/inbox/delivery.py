"""What a request's body says: of which sync, and how it ended. Pure.

Two shapes are taken: what Airbyte sends, and the flat one that people write into templates of their own.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, cast
from uuid import UUID

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

# Longer texts are cut: they are only shown to people.
_MAX_TEXT = 500
_MAX_MISTAKES = 5
# Airbyte's word in the title of the one message that has `success: false` without anything being wrong.
_QUEUED = "sync queued"


class BadBody(Exception):
    """Say that a body is not one that a sync can be read from.

    Attributes:
        status: the HTTP status that says so.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _text(value: object) -> str:
    """Return a text that is safe to log and to show: one line, no control characters, not too long."""
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
    """What Airbyte sends when a sync has ended, whether it went well or not."""

    data: Sync


class FlatNotification(_Shape):
    """What a template of one's own sends: without the number of the job, Airbyte is asked for the newest one."""

    data: None = None
    connection_id: UUID = Field(alias="connectionId")
    status: str = Field(max_length=_MAX_TEXT, description="`succeeded`; anything else is not a success.")
    job_id: JobId | None = Field(default=None, alias="jobId")
    source_name: Text = Field(default="", alias="sourceName")


class Message(_Shape):
    """What Airbyte sends about anything but a sync, such as a changed schema: taken and passed over."""

    data: None = None
    connection_id: None = Field(default=None, alias="connectionId")
    text: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """What was said of one sync.

    Attributes:
        connection_id: UUID in lower case.
        job_id: None when the sender did not say.
        succeeded: as it was said, which for a failure is not to be believed unseen.
        queued: whether the message is about a sync that waits, not one that failed.
        name: the connection as people know it.
        reason: what went wrong.
        digest: the same for the same body, to tell repeats of what has no job's number.
    """

    connection_id: str
    job_id: int | None
    succeeded: bool
    queued: bool = False
    name: str = ""
    reason: str = ""
    digest: str = ""


def read_delivery(body: bytes) -> Delivery | None:
    """Return what a request's body says; None when it is about something else than a sync.

    Raises:
        BadBody: it is empty, no JSON, or of neither shape.
    """
    if not body.strip():
        raise BadBody(
            400,
            "The body is empty. Airbyte over plain http asks for HTTP/2, and a proxy or server that accepts without "
            "being able to loses the body: serve with `python -m deployments.webhook serve`, or put TLS in front.",
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
    """Return the first words of a message: of its first block, else of its text."""
    with suppress(KeyError, IndexError, TypeError):
        return _text(fields["blocks"][0]["text"]["text"])
    return _text(fields.get("text"))


def _in_words(error: ValidationError) -> str:
    mistakes = [
        f"{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}"
        for entry in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return f"The body is not one that Airbyte sends. {'; '.join(mistakes[:_MAX_MISTAKES])}"
