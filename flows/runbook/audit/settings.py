"""The settings of audit.yml, read into typed models."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from infrastructure.settings_file import read_settings
from infrastructure.workspace import workspace


class SlowModels(BaseModel):
    """How long models take, from the run history."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: int = Field(default=30, gt=0, description="How far back to look; earlier runs are the comparison.")
    shown: int = Field(default=20, gt=0)
    warn_ratio: float = Field(default=2, gt=1, description="Slower than before by this factor is a warning.")
    ignore_below_seconds: float = Field(default=10, ge=0)


class Accuracy(BaseModel):
    """Amounts of one model against those of another, row by row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    calculated: str = Field(min_length=1, description="Name of the model that calculates the amounts.")
    recorded: str = Field(min_length=1, description="Name of the model with the amounts of the source system.")
    key: tuple[str, ...] = Field(min_length=1)
    amounts: tuple[str, ...] = Field(min_length=1)
    tolerance: Decimal = Field(default=Decimal("0.01"), ge=0, description="A larger difference is an error.")
    recorded_when: str | None = Field(
        default=None, description="Column that says whether the source must have a calculated row; all rows when None."
    )


class AuditSettings(BaseModel):
    """The settings of the audit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    months: int = Field(default=12, gt=0, description="Months of corrections to show.")
    slow_models: SlowModels = SlowModels()
    accuracy: tuple[Accuracy, ...] = ()


def load_settings(path: Path | None = None) -> AuditSettings:
    """Read the settings.

    Args:
        path: audit.yml of the workspace when None; the defaults hold where it has none.

    Raises:
        ConfigError: names every mistake in the file, with its line.
    """
    path = path or workspace().settings_of("audit")
    return read_settings(path, AuditSettings) if path else AuditSettings()
