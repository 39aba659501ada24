"""The contract of the local dbt Cloud says no more and no less than the published description of its API."""

from __future__ import annotations

import os

import pytest

from tests.support.cloud.contract import OURS, SPEC_VARIABLE, mistakes, published_schemas

needs_spec = pytest.mark.skipif(
    SPEC_VARIABLE not in os.environ, reason=f"needs a copy of dbt-labs/dbt-cloud-openapi-spec: {SPEC_VARIABLE}=FOLDER"
)
# Written by the Terraform provider and dbt-jobs-as-code, and not in the description of a request.
BEYOND = {"HumanReadableJobDefinitionRequest": {"job_completion_trigger_condition"}}


@needs_spec
@pytest.mark.parametrize("name", OURS)
def test_fields_and_what_is_required_are_those_of_the_description(name: str) -> None:
    file = "openapi-v3.yaml" if name.startswith("Custom") else "openapi-v2.yaml"
    schemas = published_schemas(file)
    assert schemas
    published = schemas[name]
    ours = OURS[name]
    assert set(ours["required"]) == set(published.get("required", ()))
    assert ours["properties"].keys() - BEYOND.get(name, set()) <= published["properties"].keys()


def test_a_request_that_dbt_cloud_would_refuse_is_refused_here() -> None:
    schedule = {"date": {"type": "every_day"}, "time": {"type": "every_hour", "interval": 1}}
    wrong = [
        {"date": {"type": "custom_days", "days": [1]}, "time": schedule["time"]},
        {"date": {"type": "days_of_week", "days": [7]}, "time": schedule["time"]},
        {"date": schedule["date"], "time": {"type": "every_hour", "interval": 1, "hours": [6]}},
    ]
    for it in wrong:
        assert "schedule" in " ".join(mistakes("HumanReadableJobDefinitionRequest", {"schedule": it}))
    assert "schedule" not in " ".join(mistakes("HumanReadableJobDefinitionRequest", {"schedule": schedule}))
