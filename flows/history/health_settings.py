"""The thresholds of health.yml, read into typed models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infrastructure.settings_file import read_settings
from infrastructure.workspace import EXAMPLE, workspace


class HealthCheck(BaseModel):
    """What every check describes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: Literal["critical", "error", "warning"] = "error"
    normal: str = Field(min_length=1, description="What the check expects.")
    action: str = Field(min_length=1, description="What to do when the check fails.")


class Hours(HealthCheck):
    """Limits on an age."""

    warn_hours: float = Field(gt=0)
    fail_hours: float = Field(gt=0)


class DbtTests(HealthCheck):
    """dbt tests, none of which may find a row."""

    select: str = Field(min_length=1, description="dbt selection; words of tag:NAME or the name of a model.")


class PassRate(DbtTests):
    """The share of all tests that pass."""

    warn_pass_rate: float = Field(default=1.0, ge=0, le=1)
    fail_pass_rate: float = Field(default=0.95, ge=0, le=1)


class RunSuccess(HealthCheck):
    """The share of runs that succeed."""

    days: int = Field(default=30, gt=0)
    warn_rate: float = Field(default=0.99, ge=0, le=1)
    fail_rate: float = Field(default=0.95, ge=0, le=1)


class RowCounts(HealthCheck):
    """Row counts of tables, compared with earlier counts."""

    select: str = Field(min_length=1)
    warn_score: float = Field(default=3.5, gt=0)
    fail_score: float = Field(default=7.0, gt=0)
    ignore_below_share: float = Field(default=0.1, ge=0)
    measurements: int = Field(default=30, gt=1)
    learning_below: int = Field(default=5, gt=1)


class Lag(Hours):
    """The time from a source's load to the model that contains it."""

    select: str = Field(min_length=1)


class Lateness(HealthCheck):
    """The time from the scheduled moment to the start of a run."""

    days: int = Field(default=7, gt=0)
    warn_minutes: float = Field(gt=0)
    fail_minutes: float = Field(gt=0)


class Durations(HealthCheck):
    """Durations of models, compared with earlier builds."""

    recent: int = Field(default=3, gt=0)
    baseline: int = Field(default=20, gt=1)
    warn_ratio: float = Field(default=2.0, gt=1)
    fail_ratio: float = Field(default=5.0, gt=1)
    ignore_below_seconds: float = Field(default=10, ge=0)


class BuiltRecently(Hours):
    """Models that have to be built recently."""

    models: tuple[str, ...] = Field(min_length=1)


class Health(BaseModel):
    """All checks; one that is None is skipped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source_freshness: Hours | None = None
    last_run: Hours | None = None
    tests: PassRate | None = None
    run_success: RunSuccess | None = None
    scd2_integrity: DbtTests | None = None
    reconciliation: DbtTests | None = None
    row_counts: RowCounts | None = None
    transformation_lag: Lag | None = None
    schedule_lateness: Lateness | None = None
    model_durations: Durations | None = None
    built_recently: BuiltRecently | None = None

    def checks(self) -> dict[str, HealthCheck]:
        """Return the checks to run, by name, in the order of the model's fields."""
        return {name: check for name in Health.model_fields if (check := getattr(self, name)) is not None}


def load_health(path: Path | None = None) -> Health:
    """Read the thresholds.

    Args:
        path: that of the workspace when None, else flows/history/health.yml.

    Raises:
        ConfigError: names every mistake in the file, with its line.
    """
    return read_settings(path or workspace().settings_of("health") or EXAMPLE.at(EXAMPLE.places.health), Health)


def are_of_another_project(folder: Path) -> bool:
    """Return whether the thresholds that hold where no file is named are the example's, and the project is another."""
    found = workspace()
    return found.settings_of("health") in (None, EXAMPLE.at(EXAMPLE.places.health)) and folder != EXAMPLE.project
