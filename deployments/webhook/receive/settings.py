"""The settings of a receiver, from environment variables that begin with TRIBUTARY_WEBHOOK_."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.engine.context.state import state_root
from flows.services.airbyte.sync_events import DEPLOYMENT
from infrastructure.errors import ConfigError
from infrastructure.workspace import workspace

PREFIX = "TRIBUTARY_WEBHOOK_"
# Prefect Secret blocks that replace the two variables.
SECRET_BLOCK = "airbyte-webhook-secret"
PREVIOUS_SECRET_BLOCK = "airbyte-webhook-secret-previous"


class WebhookSettings(BaseSettings):
    """Settings of the receiver."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    secret: SecretStr | None = Field(
        default=None, description=f"The secret of senders; default: the block {SECRET_BLOCK}."
    )
    previous_secret: SecretStr | None = Field(
        default=None,
        description=f"Valid while the secret is being changed; default: the block {PREVIOUS_SECRET_BLOCK}.",
    )
    deployment: str = Field(
        default=DEPLOYMENT,
        pattern=r"^[^/]+/[^/]+$",
        description="What a sync starts, as <flow>/<deployment>.",
    )
    target: str = Field(default="prod", min_length=1, description="The target that the runs build.")
    window_seconds: float = Field(
        default=0.0, ge=0, le=3600, description="How long a finished sync waits for others, to share a run with them."
    )
    project_dir: Path = Field(
        default_factory=lambda: workspace().project, description="The dbt project whose sources name connections."
    )
    spool: Path = Field(
        default_factory=lambda: state_root(os.environ) / "webhook" / "spool.db",
        description="The file that stores deliveries until they are processed; on a disk of this machine.",
    )
    keep_days: float = Field(default=90.0, gt=0, description="How long processed deliveries are kept.")
    max_body_bytes: int = Field(default=262_144, ge=1024, description="Larger bodies are refused.")
    read_seconds: float = Field(
        default=10.0, gt=0, description="Time in which a request's head has to arrive, and then its body."
    )
    wrong_per_minute: float = Field(
        default=30.0, gt=0, description="How many wrong secrets of a peer are answered with 401."
    )
    max_connections: int = Field(default=512, ge=1, description="How many connections may wait for a request at once.")
    max_per_peer: int = Field(default=128, ge=1, description="The same for the connections of one address.")
    prefect_retry_seconds: float = Field(
        default=30.0, gt=0, description="The longest pause between attempts to reach Prefect."
    )
    queue_url: str | None = Field(default=None, description="On AWS Lambda: the SQS queue that keeps deliveries.")


def load_settings(**given: object) -> WebhookSettings:
    """Read the settings from the environment; arguments other than None take precedence.

    Raises:
        ConfigError: lists every setting that is wrong, by the name of its variable.
    """
    try:
        return WebhookSettings(**{name: value for name, value in given.items() if value is not None})  # pyright: ignore[reportArgumentType]
    except ValidationError as exc:
        wrong = [
            f"{PREFIX}{'.'.join(str(part) for part in entry['loc']).upper()}: {entry['msg']}"
            for entry in exc.errors(include_input=False, include_url=False)
        ]
        raise ConfigError(f"The receiver's settings are wrong. {'; '.join(wrong)}") from None
