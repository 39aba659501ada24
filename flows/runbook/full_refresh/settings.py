"""The settings of refresh.yml, read into typed models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infrastructure.settings_file import read_settings
from infrastructure.workspace import workspace


class Tolerance(BaseModel):
    """How much a rebuilt table may differ from the one before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows_percent: float = Field(default=10, ge=0, description="Change of the number of rows, in percent.")
    missing_keys_percent: float = Field(default=1, ge=0, description="Keys that are gone, in percent.")
    sums_percent: float = Field(default=10, ge=0, description="Change of each exact decimal sum, in percent.")


class RefreshSettings(BaseModel):
    """What a full refresh keeps, compares and tolerates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_days: float = Field(default=7, gt=0, description="How long the old tables are kept.")
    keep_docs: int = Field(default=10, gt=0, description="How many documentation sites are kept.")
    backup: Literal["critical", "all"] = Field(
        default="critical",
        description="Tables to keep: critical, with versions, incremental or snapshots; or every table.",
    )
    tolerances: dict[str, Tolerance] = Field(default_factory=dict, description="By name of a table, and `default`.")

    def tolerance(self, name: str) -> Tolerance:
        """Return the tolerance of a table."""
        return self.tolerances.get(name) or self.tolerances.get("default") or Tolerance()


def load_settings(path: Path | None = None) -> RefreshSettings:
    """Read the settings.

    Args:
        path: refresh.yml of the workspace when None; the defaults hold where it has none.

    Raises:
        ConfigError: names every mistake in the file, with its line.
    """
    path = path or workspace().settings_of("refresh")
    return read_settings(path, RefreshSettings) if path else RefreshSettings()
