"""What a child process is given of the environment."""

from __future__ import annotations

from typing import Any

import pytest

from infrastructure.passed_on import LookUps, for_any_program, for_client, for_dbt, look_ups_in

NEEDED = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "https_proxy": "http://proxy:3128",
    "SSL_CERT_FILE": "/certificates.pem",
    "PYTHONPATH": "/code",
}
# One of each kind that a flow process or a worker may hold.
PLANTED = (
    *("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_CLIENT_CUSTOM_HEADERS"),
    *("PREFECT_SERVER_ENCRYPTION_KEY", "PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_API_URL", "DATABASE_URL"),
    *("SLACK_WEBHOOK_URL", "PAGERDUTY_ROUTING_KEY", "AIRBYTE_CLIENT_ID", "AIRBYTE_CLIENT_SECRET"),
    *("TRIBUTARY_WEBHOOK_SECRET", "TRIBUTARY_SOURCE_DATABASE_URL", "TRIBUTARY_GIT_PASSWORD", "TRIBUTARY_HISTORY"),
    *("DBTCLOUD_TOKEN", "DBT_API_KEY", "DBT_CLOUD_TOKEN", "DBT_ENV_SECRET_OTHER_PASSWORD", "DBT_PROD_PASSWORD"),
    *("POSTGRES_PASSWORD", "SNOWFLAKE_PRIVATE_KEY", "GCP_SERVICE_ACCOUNT_JSON", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"),
    *("GITHUB_TOKEN", "REDIS_URL", "UV_INDEX_URL", "NEVER_HEARD_OF"),
)
OUTPUTS: list[dict[str, Any]] = [
    {"type": "duckdb", "path": "dev.duckdb"},
    {"type": "postgres", "password": "{{ env_var('DBT_ENV_SECRET_DEV_PASSWORD') }}"},
    {"type": "snowflake", "private_key": "{{ env_var('DBT_ENV_SECRET_DEV_PRIVATE_KEY') }}"},
    {"type": "bigquery", "method": "oauth"},
    {"type": "somebody_elses"},
]


def environment(*names: str) -> dict[str, str]:
    return NEEDED | dict.fromkeys(names, "secret")


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output["type"])
def test_a_child_is_given_what_it_needs_and_no_secret_of_anybody(output: dict[str, Any]) -> None:
    passed = for_dbt(environment("DBT_TARGET", "DBT_INDIRECT_SELECTION", *PLANTED), output, (), LookUps())
    assert passed.environment == environment("DBT_TARGET", "DBT_INDIRECT_SELECTION")
    assert passed.kept_back == ()
    assert for_client(environment(*PLANTED), output) == NEEDED
    assert for_any_program(environment(*PLANTED)) == NEEDED


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ({"type": "bigquery"}, ["GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "BIGQUERY_EMULATOR_HOST"]),
        ({"type": "postgres", "password": "x"}, ["PGSSLROOTCERT", "PGPASSFILE", "PGOPTIONS"]),
        ({"type": "postgres", "password": ""}, ["PGPASSWORD"]),
        ({"type": "snowflake"}, ["SNOWFLAKE_HOME", "SF_OCSP_FAIL_OPEN"]),
        ({"type": "snowflake", "workload_identity_provider": "AWS"}, ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"]),
        ({"type": "duckdb"}, ["motherduck_token"]),
    ],
)
def test_a_client_is_given_what_it_reads_by_itself(output: dict[str, Any], names: list[str]) -> None:
    assert for_client(environment(*names), output) == environment(*names)


def test_a_project_is_given_what_it_looks_up_and_a_target_what_it_names() -> None:
    look_ups = LookUps(frozenset({"REGION", "DBT_ENV_SECRET_GIT_TOKEN"}), frozenset({"LIMIT_"}))
    output = {"type": "duckdb", "path": "{{ env_var('DATA_FOLDER') }}/dev.duckdb"}
    given = (
        "REGION",
        "DBT_ENV_SECRET_GIT_TOKEN",
        "LIMIT_EU",
        "LIMIT_US",
        "DATA_FOLDER",
        "AWS_REGION",
        "AWS_PROFILE",
        "X",
    )
    passed = for_dbt(environment(*given, "XY", "OTHER"), output, ("AWS_*", "X"), look_ups)
    assert passed.environment == environment(*given)


def test_what_a_project_may_not_know_is_kept_back_and_named_until_a_person_passes_it_on() -> None:
    asked = LookUps(
        frozenset({"PREFECT_API_KEY", "SLACK_WEBHOOK_URL", "PROD_PASSWORD", "REGION", "AIRBYTE_CLIENT_SECRET"})
    )
    found = environment("PREFECT_API_KEY", "SLACK_WEBHOOK_URL", "PROD_PASSWORD", "REGION")
    passed = for_dbt(found, OUTPUTS[0], (), asked, of_others=["PROD_PASSWORD"])
    assert passed.environment == environment("REGION")
    assert passed.kept_back == ("PREFECT_API_KEY", "PROD_PASSWORD", "SLACK_WEBHOOK_URL"), "what is not set is not kept"
    passed = for_dbt(found, OUTPUTS[0], ("PROD_PASSWORD", "PREFECT_API_KEY", "SLACK_*"), asked, ["PROD_PASSWORD"])
    assert (passed.environment, passed.kept_back) == (found, ())


@pytest.mark.parametrize(
    ("text", "names", "prefixes", "is_unknown"),
    [
        ("select '{{ env_var('REGION') }}', {{ env_var( \"LIMIT\", 10) }}", {"REGION", "LIMIT"}, set(), False),
        ("{{ env_var(var='REGION') }}", {"REGION"}, set(), False),
        ("{{ env_var('LIMIT_' ~ target.name) }}", set(), {"LIMIT_"}, False),
        ("{{ env_var(name, '') }}", set(), set(), True),
        ("select 1 as my_env_variable", set(), set(), False),
    ],
)
def test_look_ups_are_found_in_text(text: str, names: set[str], prefixes: set[str], is_unknown: bool) -> None:
    found = look_ups_in(text.encode(), "a.sql")
    assert (found.names, found.prefixes, found.unknown_in) == (names, prefixes, ("a.sql",) if is_unknown else ())
