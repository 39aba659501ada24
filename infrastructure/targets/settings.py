"""What every target's settings have in common, and the kinds of value that they take."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Prefect allows [a-z0-9-] in the name of a block, and a target's name becomes part of several.
NAME_PATTERN = "^[a-z0-9]+(-[a-z0-9]+)*$"
# Upper case only: a password written where the name of its variable belongs is then mostly refused.
_VARIABLE_PATTERN = "^[A-Z_][A-Z0-9_]*$"

_PASSED_PATTERN = "^[A-Za-z_][A-Za-z0-9_]*[*]?$"


def _is_name(text: str) -> str:
    if not re.match(NAME_PATTERN, text):
        raise ValueError("a name has lower-case letters, digits and single hyphens only, as in `prod-snowflake`")
    return text


def _is_variable(text: str) -> str:
    if not re.match(_VARIABLE_PATTERN, text):
        raise ValueError(
            "expected the name of an environment variable, in upper case, as in POSTGRES_PASSWORD; "
            "the secret itself is never written here"
        )
    return text


def _is_passed(text: str) -> str:
    if not re.match(_PASSED_PATTERN, text):
        raise ValueError("expected the name of an environment variable, or the beginning of some, as in `AWS_*`")
    return text


Name = Annotated[str, AfterValidator(_is_name), Field(json_schema_extra={"pattern": NAME_PATTERN})]
Variable = Annotated[str, AfterValidator(_is_variable), Field(json_schema_extra={"pattern": _VARIABLE_PATTERN})]
Passed = Annotated[str, AfterValidator(_is_passed), Field(json_schema_extra={"pattern": _PASSED_PATTERN})]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[int, Field(ge=1)]
TaskRuns = Literal["all", "models", "failures"]
# Tests that pass would be most of what Prefect draws, and of what its server works off.
DEFAULT_TASK_RUNS: TaskRuns = "models"
Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseModel):
    """A model that refuses unknown settings, so that a typo is found at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def secret_variables(self) -> dict[str, str]:
        """Return the environment variable of each secret, by dbt's name of the secret."""
        fields = type(self).model_fields
        return {
            name.removesuffix("_env"): getattr(self, name)
            for name in fields
            # `pass_env` ends so too, and names variables that are passed on.
            if name.endswith("_env") and isinstance(getattr(self, name), str)
        }


class WarehouseTarget(Settings):
    """The settings of every target."""

    # The settings in the credentials block: targets that share a block must agree on them.
    credential_settings: ClassVar[tuple[str, ...]] = ()
    default_credentials_block: ClassVar[str] = ""
    given_type: ClassVar[str] = ""

    schema_name: str = Field(
        alias="schema", min_length=1, description="Schema (dataset in BigQuery) that dbt builds into."
    )
    threads: int = Field(default=4, ge=1, le=256, description="How many nodes dbt works on at once.")
    credentials_block: Name | None = Field(
        default=None,
        description="Name of the credentials block, which targets that sign in alike share. Without any setting of how "
        "to sign in, it is a block of yours, which is used as it is.",
    )
    pass_env: list[Passed] | None = Field(
        default=None,
        description="Environment variables that dbt is given besides those it needs; `AWS_*` for all that begin so.",
    )

    dbt: str | None = Field(
        default=None,
        min_length=1,
        description="The dbt that builds this target: a program, the folder of a virtual environment, or a name on the "
        "PATH; a relative path starts at the workspace. Without it, dbt of Tributary's own environment.",
    )

    task_runs: TaskRuns = Field(
        default=DEFAULT_TASK_RUNS,
        description="Which nodes have a task run of their own in Prefect: models, seeds and snapshots, and what did "
        "not pass (models); every test too (all); or only what did not pass (failures).",
    )

    def credentials_name(self) -> str:
        """Return the name of the credentials block that this target uses."""
        return self.credentials_block or self.default_credentials_block

    def credential_values(self) -> dict[str, object]:
        """Return what targets that share credentials must agree on, by setting."""
        return {name: getattr(self, name) for name in self.credential_settings}

    @property
    def given_block(self) -> tuple[str, str] | None:
        """Return the type and the name of the block, made by hand, that says how to sign in, if there is one."""
        return (self.given_type, self.credentials_name()) if self.given_type else None
