"""The declared blocks, and how they are compared with a server's: no server needed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infrastructure.blocks.block_types import block_type, block_types
from infrastructure.blocks.documents import BlockDocument, Reference, SavedDocument, change_of, merge, target_documents
from infrastructure.errors import ConfigError
from infrastructure.registration import declare
from infrastructure.targets.outputs import is_env_var, output_of, read_secrets
from infrastructure.targets.target_file import load_targets
from tests.support.environments import Environments
from tests.support.sign_ins import PASSPHRASE, keyfile, private_key


def _saved(document: BlockDocument, **changed: Any) -> SavedDocument:
    return SavedDocument(document.data | changed, (document.type.checksum, document.type.version))


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def test_every_block_type_comes_after_those_it_refers_to() -> None:
    seen: set[str] = set()
    for slug, entry in block_types().items():
        assert set(entry.nested) <= seen, f"{slug} comes too early"
        seen.add(slug)


def test_the_blocks_of_a_target_have_the_names_that_users_know(every_sign_in: Environments) -> None:
    environ = {
        "GCP_PROJECT": "acme-data",
        "GCP_SERVICE_ACCOUNT_JSON": json.dumps(keyfile()),
        "SNOWFLAKE_ACCOUNT": "acme-europe",
        "SNOWFLAKE_USER": "LOADER",
        "SNOWFLAKE_PRIVATE_KEY": private_key(),
        "POSTGRES_PASSWORD": "pg-password-0815",
        "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T000/B000/x",
        "PAGERDUTY_ROUTING_KEY": "pagerduty-key-0815-0815-0815-081",
        "AIRBYTE_API_URL": "https://api.airbyte.com/v1/",
        "AIRBYTE_CLIENT_ID": "id",
        "AIRBYTE_CLIENT_SECRET": "secret",
        "DASHBOARD_CACHE_URL": "redis://:word@cache:6379/0",
    }
    declared = declare(load_targets(environ=environ), environ)

    assert [document.slug for document in declared.documents] == [
        "dbt-cli-target-configs/duckdb-target-configs-dev",
        "dbt-cli-profile/dbt-cli-profile-dev",
        "sqlalchemy-connector/postgres-credentials",
        "dbt-cli-postgres-target-configs/postgres-target-configs-postgres",
        "dbt-cli-profile/dbt-cli-profile-postgres",
        "gcp-credentials/gcp-credentials",
        "dbt-cli-bigquery-target-configs/bigquery-target-configs-prod",
        "dbt-cli-profile/dbt-cli-profile-prod",
        "snowflake-credentials/snowflake-credentials",
        "snowflake-connector/snowflake-connector-prod-snowflake",
        "dbt-cli-snowflake-target-configs/snowflake-target-configs-prod-snowflake",
        "dbt-cli-profile/dbt-cli-profile-prod-snowflake",
        "slack-webhook/slack-webhook",
        "webhook/slack-webhook",
        "pager-duty-webhook/pagerduty",
        "secret/airbyte-api-url",
        "secret/airbyte-client-id",
        "secret/airbyte-client-secret",
        "secret/dashboard-cache-url",
    ]
    assert declared.limits == ("dbt-dev", "dbt-postgres", "dbt-prod", "dbt-prod-snowflake")
    assert [passed.name for passed in declared.passed_over] == ["ci"], "it is for builds of pull requests alone"


def test_secrets_are_in_fields_that_prefect_hides_and_nowhere_else(every_sign_in: Environments) -> None:
    targets = every_sign_in.load()
    for name, entry in every_sign_in.sign_ins.items():
        documents = target_documents(targets.profile, name, targets.targets[name], every_sign_in.environ)
        for secret in entry.secrets:
            holders = [
                (document.type_slug, path)
                for document in documents
                for path, value in _paths(document.data)
                if secret.strip() in value
            ]
            assert holders, f"{name}: a secret is in no block"
            for slug, path in holders:
                assert block_type(slug).is_secret(path), f"{name}: {slug} shows {path}"


def _paths(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, dict):
            found += _paths(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            found.append((prefix + key, value))
    return found


def test_a_profile_holds_placeholders_and_says_where_the_secrets_are(every_sign_in: Environments) -> None:
    targets = every_sign_in.load()
    for name, entry in every_sign_in.sign_ins.items():
        profile = target_documents(targets.profile, name, targets.targets[name], every_sign_in.environ)[-1]
        extras = profile.data["target_configs"]["extras"]
        placeholders = [text for text in _texts(extras) if is_env_var(text)]
        assert len(placeholders) == len(extras.get("credentials_from", {}))
        assert bool(placeholders) == bool(entry.secrets)


def test_documents_that_targets_share_are_declared_once() -> None:
    one, two = BlockDocument("secret", "a", {"value": "1"}), BlockDocument("secret", "b", {"value": "2"})

    assert merge([one, two, one]) == [one, two]


def test_a_block_that_is_as_declared_is_left_alone() -> None:
    document = BlockDocument("secret", "a", {"value": "geheim"})

    assert change_of(document, _saved(document)).action == "unchanged"


def test_defaults_and_empty_fields_of_a_saved_block_are_no_difference() -> None:
    document = BlockDocument("sqlalchemy-connector", "pg", {"connection_info": {"driver": "d", "port": 1}})
    saved = _saved(document, fetch_size=1, connect_args=None, block_type_slug="sqlalchemy-connector")

    assert change_of(document, saved).action == "unchanged"


def test_a_changed_secret_is_named_and_not_shown() -> None:
    document = BlockDocument("gcp-credentials", "gcp", {"service_account_info": {"private_key": "new-geheim"}})
    change = change_of(document, _saved(document, service_account_info={"private_key": "old-geheim", "x": "gone"}))

    assert change.action == "update"
    shown = {field.path: (field.old, field.new) for field in change.fields}
    assert shown == {
        "service_account_info.private_key": ("(secret)", "(secret)"),
        "service_account_info.x": ("(secret)", None),
    }


def test_a_changed_setting_is_shown() -> None:
    configs = {"type": "duckdb", "schema": "s", "threads": 8}
    document = BlockDocument("dbt-cli-profile", "p", {"target_configs": configs})
    (field,) = change_of(document, _saved(document, target_configs=configs | {"threads": 4})).fields

    assert (field.path, field.old, field.new) == ("target_configs.threads", "4", "8")


def test_a_secret_in_a_profile_made_by_hand_is_not_shown_by_the_plan() -> None:
    extras = {"password": "{{ env_var('DBT_ENV_SECRET_P_PASSWORD') }}"}
    document = BlockDocument("dbt-cli-profile", "p", {"target_configs": {"extras": extras}})
    saved = _saved(
        document,
        target_configs={
            "extras": {"password": "geheim-1", "keyfile_json": {"private_key": "geheim-2"}},
            "credentials": {"service_account_info": {"client_email": "geheim-3"}},
        },
    )

    change = change_of(document, saved)
    assert "geheim" not in repr(change)
    assert {field.path: field.old for field in change.fields}["target_configs.extras.password"] == "(secret)"


def test_another_reference_is_a_difference() -> None:
    document = BlockDocument("snowflake-connector", "c", {"credentials": Reference("snowflake-credentials", "a")})
    (field,) = change_of(document, _saved(document, credentials=Reference("snowflake-credentials", "b"))).fields

    assert (field.old, field.new) == ("block snowflake-credentials/b", "block snowflake-credentials/a")


def test_a_block_of_another_schema_is_brought_to_ours() -> None:
    document = BlockDocument("secret", "a", {"value": "geheim"})
    change = change_of(document, SavedDocument(document.data, ("sha256:0", "1.0")))

    assert change.action == "update"
    assert [field.path for field in change.fields] == ["block schema"]


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        ("bq-key-in-variable", "/keys/sa.json", "does not hold JSON.*use `keyfile`"),
        ("bq-key-in-variable", '["geheim"]', "must hold the JSON object"),
        ("bq-key-in-variable", '{"type": "authorized_user", "refresh_token": "geheim"}', "service account"),
        ("bq-key-in-variable", '{"type": "service_account", "client_email": "geheim"}', "lacks private_key"),
        ("sf-key-pair", "/keys/geheim.pem", "not hold a private key in PEM format.*`private_key_path`"),
        ("sf-key-pair", private_key(PASSPHRASE), "is encrypted: .*`private_key_passphrase_env`"),
    ],
)
def test_a_secret_of_the_wrong_kind_is_refused_and_not_repeated(
    every_sign_in: Environments, target: str, value: str, expected: str
) -> None:
    (variable,) = every_sign_in.sign_ins[target].environ
    with pytest.raises(ConfigError, match=rf"(?s){variable}.*{expected}") as caught:
        output_of(target, every_sign_in.load().targets[target], {variable: value})
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_empty_variable_counts_as_not_set(every_sign_in: Environments) -> None:
    target = every_sign_in.load().targets["sf-encrypted-key-pair"]

    assert read_secrets(target, {"SF_PASSPHRASE": ""}) == ({}, ["SF_ENCRYPTED_KEY", "SF_PASSPHRASE"])


def test_a_secret_is_not_in_the_repr_of_what_holds_it(every_sign_in: Environments) -> None:
    targets = every_sign_in.load()
    declared = declare(targets, every_sign_in.environ)
    output = output_of("pg-password", targets.targets["pg-password"], every_sign_in.environ)

    for entry in every_sign_in.sign_ins.values():
        for secret in entry.secrets:
            assert secret not in repr(declared)
            assert secret not in repr(output)
