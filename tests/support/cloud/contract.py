"""The shape of dbt Cloud's requests and answers, as its published description of API v2 and v3 has it.

Written by hand from dbt-labs/dbt-cloud-openapi-spec (August 2026), which has no licence and so is not copied here.
Where a copy of it is at hand, TRIBUTARY_TEST_CLOUD_SPEC names its folder and every request and answer is held against
it as well; `test_contract.py` then also compares the two.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SPEC_VARIABLE = "TRIBUTARY_TEST_CLOUD_SPEC"

WHOLE = {"type": "integer"}
TRUTH = {"type": "boolean"}
WORDS = {"type": "string", "minLength": 1}
# Null stands for "none" here, though the description, like most of its kind, does not say so.
OR_NONE = [{"type": "null"}]


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, *OR_NONE]}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": sorted(required),
        "additionalProperties": False,
    }


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CRON = {"type": "string", "pattern": r"^(\S+ ){4}\S+$"}
HOURS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 23}, "minItems": 1}
DAYS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 6}, "minItems": 1}
# "required key not provided" and "extra keys not allowed", as dbt Cloud answers (terraform-provider-dbtcloud#44).
DATES = {
    "oneOf": [
        _object({"type": {"const": "every_day"}}),
        _object({"type": {"const": "days_of_week"}, "days": DAYS}),
        _object({"type": {"const": "custom_cron"}, "cron": CRON}),
        _object({"type": {"const": "interval_cron"}, "cron": CRON}, {"days": DAYS}),
    ]
}
TIMES = {
    "oneOf": [
        _object({"type": {"const": "every_hour"}, "interval": {"type": "integer", "minimum": 1, "maximum": 23}}),
        _object({"type": {"const": "at_exact_hours"}, "hours": HOURS}),
    ]
}
SCHEDULE = _object({"date": DATES, "time": TIMES}, {"cron": CRON})
STATUSES = {"type": "array", "items": {"enum": [10, 20, 30]}, "minItems": 1}
CONDITION = _object({"condition": _object({"job_id": WHOLE, "project_id": WHOLE, "statuses": STATUSES})})
JOB_TYPES = ("ci", "scheduled", "other", "merge", "exposure_sync", "adaptive", "hybrid")

JOB_REQUEST = _object(
    {
        "account_id": WHOLE,
        "project_id": WHOLE,
        "environment_id": WHOLE,
        "name": WORDS,
        "execution": _object({}, {"timeout_seconds": WHOLE}),
        "settings": _object({}, {"threads": WHOLE, "target_name": WORDS}),
        "triggers": _object(
            {"github_webhook": TRUTH, "schedule": TRUTH},
            {"git_provider_webhook": TRUTH, "on_merge": TRUTH, "custom_branch_only": TRUTH},
        ),
        "state": WHOLE,
        "generate_docs": TRUTH,
        "run_generate_sources": TRUTH,
        "run_compare_changes": TRUTH,
        "run_lint": TRUTH,
        "errors_on_lint_failure": TRUTH,
        "lifecycle_webhooks": TRUTH,
    },
    {
        "execute_steps": {"type": "array", "items": WORDS},
        "schedule": SCHEDULE,
        "dbt_version": _optional(WORDS),
        "description": {"type": "string", "minLength": 1, "maxLength": 255},
        "deferring_environment_id": _optional(WHOLE),
        "deferring_job_definition_id": _optional(WHOLE),
        "job_type": {"enum": list(JOB_TYPES)},
        "compare_changes_flags": WORDS,
        "cost_optimization_features": {"type": "array", "items": WORDS},
        "triggers_on_draft_pr": TRUTH,
        "generate_sources": TRUTH,
        # Not in the description of a request; both the Terraform provider and dbt-jobs-as-code write it.
        "job_completion_trigger_condition": _optional(CONDITION),
    },
)

JOB_ANSWER = {
    "type": "object",
    "properties": {
        "id": WHOLE,
        **JOB_REQUEST["properties"],
        "description": {"type": "string"},
        "created_at": WORDS,
        "updated_at": WORDS,
        "run_failure_count": WHOLE,
        "is_deferrable": TRUTH,
        "lifecycle_webhooks_url": {"type": "string"},
        "schedule": {"type": "object", "required": ["date", "time"]},
    },
    "required": [
        "account",
        "created_at",
        "environment",
        "fusion_readiness",
        "id",
        "is_deferrable",
        "job_completion_trigger_condition",
        "lifecycle_webhooks_url",
        "project",
        "raw_dbt_version",
        "run_failure_count",
        "updated_at",
    ],
}

TRIGGER_REQUEST = _object(
    {"cause": WORDS},
    {
        **dict.fromkeys(
            ("git_sha", "git_branch", "schema_override", "dbt_version_override", "target_name_override"), WORDS
        ),
        **dict.fromkeys(
            (
                "threads_override",
                "timeout_seconds_override",
                "github_pull_request_id",
                "gitlab_merge_request_id",
                "azure_pull_request_id",
                "non_native_pull_request_id",
            ),
            WHOLE,
        ),
        "generate_docs_override": TRUTH,
        "steps_override": {"type": "array", "items": WORDS},
    },
)

RUN_ANSWER = {
    "type": "object",
    "properties": {
        "id": WHOLE,
        "status": {"enum": [1, 2, 3, 10, 20, 30]},
        "job_definition_id": WHOLE,
        "is_complete": TRUTH,
        "is_success": TRUTH,
        "is_error": TRUTH,
        "is_cancelled": TRUTH,
        "can_retry": TRUTH,
        "trigger": {"type": "object", "required": ["cause", "job_definition_id"]},
    },
    "required": ["created_at", "updated_at"],
}

VARIABLE_REQUEST = _object(
    {
        "account_id": WHOLE,
        "project_id": WHOLE,
        "name": {"type": "string", "pattern": "^DBT_"},
        "type": {"enum": ["project", "environment", "job", "user"]},
    },
    {"job_definition_id": WHOLE, "environment_id": WHOLE, "raw_value": WORDS, "display_value": WORDS, "state": WHOLE},
)

JOB_LIST_PARAMETERS = _names(
    """
    dbt_version__in environment_id include_related is_fusion_ready is_system limit name__icontains offset order_by
    pk project_id project_id__in state triggers_schedule
    """
)
RUN_LIST_PARAMETERS = _names(
    """
    created_at__range dbt_version dbt_version__in deferring_run_id environment_id finished_at__range
    has_docs_generated has_sources_generated id__gt include_related job_definition_id limit offset order_by pk pk__in
    project_id project_id__in state status status__in
    """
)

OURS = {
    "HumanReadableJobDefinitionRequest": JOB_REQUEST,
    "HumanReadableJobDefinitionResponse": JOB_ANSWER,
    "TriggerRunRequestRequest": TRIGGER_REQUEST,
    "RunResponse": RUN_ANSWER,
    "CustomEnvironmentVariableRequest": VARIABLE_REQUEST,
}
_FILE_OF = dict.fromkeys(OURS, "openapi-v2.yaml") | {"CustomEnvironmentVariableRequest": "openapi-v3.yaml"}


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(OURS[name])


def mistakes(name: str, document: Any) -> dict[str, str]:
    """Return what is wrong with a document, by field; empty when it is as the description has it."""
    found = {
        "/".join(str(part) for part in error.absolute_path) or error.validator: error.message[:200]
        for error in _validator(name).iter_errors(document)
    }
    return found or published_mistakes(name, document)


def published_mistakes(name: str, document: Any) -> dict[str, str]:
    """Return what is wrong by the published description itself; empty where there is no copy of it."""
    validator = _published(name)
    if validator is None or not isinstance(document, dict):
        return {}
    # It knows no null; a field that is null counts as there.
    nulls = {field for field, value in document.items() if value is None}
    if name.endswith("JobDefinitionRequest"):
        nulls.add("job_completion_trigger_condition")
    bare = {field: value for field, value in document.items() if field not in nulls}
    return {
        "/".join(str(part) for part in error.absolute_path) or str(error.validator): error.message[:200]
        for error in validator.iter_errors(bare)
        if not (error.validator == "required" and any(f"'{field}'" in error.message for field in nulls))
    }


@cache
def published_schemas(file: str) -> dict[str, Any] | None:
    """Return the schemas of the published description; None where there is no copy of it."""
    folder = os.environ.get(SPEC_VARIABLE)
    if not folder:
        return None
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((Path(folder) / file).read_text(encoding="utf-8"), Loader=loader)["components"]["schemas"]


@cache
def _published(name: str) -> Draft202012Validator | None:
    schemas = published_schemas(_FILE_OF[name])
    if schemas is None:
        return None
    return Draft202012Validator({"components": {"schemas": schemas}, "$ref": f"#/components/schemas/{name}"})
