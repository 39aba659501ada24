"""Every shape of profiles.yml as targets.yml: what is taken over, what is named, and that no secret is in any file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli.new_workspace import ProjectFacts, files_of
from infrastructure.errors import ConfigError
from infrastructure.profiles import profile_of
from infrastructure.targets.from_profiles import FoundProfile, profile_in, profiles_places
from infrastructure.targets.target_file import load_targets
from tests.support.adapter_sign_ins import adapter_sign_ins
from tests.support.sign_ins import SignIn

# Every secret that a profile of these tests has in clear holds this word.
SECRET = "s3cr3t"
KEY = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"
KEYFILE = {
    "type": "service_account",
    "client_email": f"{SECRET}@x.iam.gserviceaccount.com",
    "private_key": KEY,
    "token_uri": "https://oauth2.googleapis.com/token",
}
POSTGRES = {"type": "postgres", "host": "db", "user": "loader", "dbname": "shop", "schema": "analytics"}
SNOWFLAKE = {
    "type": "snowflake",
    "account": "org-acc",
    "user": "u",
    "database": "db",
    "warehouse": "wh",
    "schema": "s",
}
SNOWFLAKE_ENTRY = {
    "warehouse": "snowflake",
    "account": "org-acc",
    "user": "u",
    "database": "db",
    "virtual_warehouse": "wh",
    "schema": "s",
    "credentials_block": "shop-dev",
}
BIGQUERY = {"type": "bigquery", "project": "p", "dataset": "d"}
BIGQUERY_ENTRY = {"warehouse": "bigquery", "project": "p", "schema": "d"}

# What an output says, and what the target says beside what is in both.
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "duckdb": (
        {"type": "duckdb", "path": "shop.duckdb", "threads": 4, "extensions": ["httpfs"]},
        {"warehouse": "duckdb", "schema": "main", "path": "../shop/shop.duckdb"}
        | {"threads": 4, "extensions": ["httpfs"]},
    ),
    "duckdb in memory": (
        {"type": "duckdb"},
        {"warehouse": "duckdb", "schema": "main", "path": "data/dev.duckdb"},
    ),
    "duckdb whose settings hold a key": (
        {
            "type": "duckdb",
            "path": "/srv/a.duckdb",
            "schema": "main",
            "settings": {"s3_region": "eu", "s3_secret_access_key": SECRET},
            "secrets": [{"type": "s3", "secret": SECRET}],
        },
        {"warehouse": "duckdb", "schema": "main", "path": "/srv/a.duckdb", "settings": {"s3_region": "eu"}},
    ),
    "motherduck with its token in the path": (
        {"type": "duckdb", "path": f"md:shop?motherduck_token={SECRET}", "schema": "main"},
        {"warehouse": "duckdb", "schema": "main", "path": "md:shop"},
    ),
    "postgres with a password in clear": (
        POSTGRES | {"pass": SECRET, "port": 5433, "sslmode": "require", "keepalives_idle": 0},
        {"password_env": "SHOP_DEV_PASSWORD", "port": 5433, "sslmode": "require", "keepalives_idle": 0},
    ),
    "postgres with env_var": (
        POSTGRES
        | {
            "host": "{{ env_var('PGHOST') }}",
            "port": "{{ env_var('PGPORT', '5432') | int }}",
            "password": "{{ env_var('PGPASSWORD') }}",
            "schema": "dbt_{{ env_var(\"WHO\", 'me') }}",
            "threads": "{{ env_var('THREADS', 8) | as_number }}",
        },
        {
            "host": "${PGHOST}",
            "port": "${PGPORT:-5432}",
            "password_env": "PGPASSWORD",
            "schema": "dbt_${WHO:-me}",
            "threads": "${THREADS:-8}",
        },
    ),
    "a secret with a default": (
        POSTGRES | {"password": "{{ env_var('PGPASSWORD', '" + SECRET + "') }}"},
        {"password_env": "PGPASSWORD"},
    ),
    "a secret in a variable in lower case": (
        POSTGRES | {"password": "{{ env_var('pg_password') }}"},
        {"password_env": "SHOP_DEV_PASSWORD"},
    ),
    "a secret of several parts": (
        POSTGRES | {"password": SECRET + "{{ env_var('PEPPER') }}"},
        {"password_env": "SHOP_DEV_PASSWORD"},
    ),
    "a number as password": (POSTGRES | {"password": 1234}, {"password_env": "SHOP_DEV_PASSWORD"}),
    "postgres without a password": (POSTGRES | {"password": ""}, {}),
    "Jinja that is no env_var": (
        POSTGRES | {"host": "{{ 'a' if target.name == 'dev' else 'b' }}", "password": "{{ secret() }}"},
        {"host": "${DEV_HOST}", "password_env": "SHOP_DEV_PASSWORD"},
    ),
    "an address with a password in it": (
        BIGQUERY | {"method": "oauth", "api_endpoint": f"https://me:{SECRET}@proxy:9050"},
        BIGQUERY_ENTRY | {"method": "oauth"},
    ),
    "settings that no target has": (
        POSTGRES | {"retries": 2, "sslpassword": SECRET, "options": f"-c x={SECRET}"},
        {"retries": 2},
    ),
    "snowflake with a password": (
        SNOWFLAKE | {"password": SECRET, "role": "r", "authenticator": "snowflake"},
        SNOWFLAKE_ENTRY | {"role": "r", "password_env": "SHOP_DEV_PASSWORD"},
    ),
    "snowflake with a key pair": (
        SNOWFLAKE | {"private_key": KEY, "private_key_passphrase": SECRET},
        SNOWFLAKE_ENTRY
        | {
            "private_key_env": "SHOP_DEV_PRIVATE_KEY",
            "private_key_passphrase_env": "SHOP_DEV_PRIVATE_KEY_PASSPHRASE",
        },
    ),
    "snowflake with a key file": (
        SNOWFLAKE | {"private_key_path": "keys/rsa.p8", "private_key_passphrase": "{{ env_var('PHRASE') }}"},
        SNOWFLAKE_ENTRY | {"private_key_path": "../shop/keys/rsa.p8", "private_key_passphrase_env": "PHRASE"},
    ),
    "snowflake in the browser": (
        SNOWFLAKE | {"authenticator": "externalbrowser"},
        SNOWFLAKE_ENTRY | {"authenticator": "externalbrowser"},
    ),
    "snowflake with OAuth": (
        SNOWFLAKE
        | {"authenticator": "oauth", "token": SECRET, "oauth_client_id": "id", "oauth_client_secret": SECRET},
        SNOWFLAKE_ENTRY
        | {
            "authenticator": "oauth",
            "token_env": "SHOP_DEV_TOKEN",
            "oauth_client_id": "id",
            "oauth_client_secret_env": "SHOP_DEV_OAUTH_CLIENT_SECRET",
        },
    ),
    "snowflake with OAuth, where the token names the user": (
        {name: value for name, value in SNOWFLAKE.items() if name != "user"}
        | {"authenticator": "oauth", "token": SECRET},
        {name: value for name, value in SNOWFLAKE_ENTRY.items() if name != "user"}
        | {"authenticator": "oauth", "token_env": "SHOP_DEV_TOKEN"},
    ),
    "snowflake with a second factor": (
        SNOWFLAKE | {"authenticator": "username_password_mfa", "password": SECRET},
        SNOWFLAKE_ENTRY | {"authenticator": "username_password_mfa", "password_env": "SHOP_DEV_PASSWORD"},
    ),
    "snowflake with Okta": (
        SNOWFLAKE | {"authenticator": "https://acme.okta.com", "password": "{{ env_var('OKTA_PASSWORD') }}"},
        SNOWFLAKE_ENTRY | {"authenticator": "https://acme.okta.com", "password_env": "OKTA_PASSWORD"},
    ),
    "snowflake with an access token": (
        SNOWFLAKE | {"authenticator": "programmatic_access_token", "token": SECRET},
        SNOWFLAKE_ENTRY | {"authenticator": "programmatic_access_token", "token_env": "SHOP_DEV_TOKEN"},
    ),
    "snowflake with workload identity": (
        SNOWFLAKE | {"authenticator": "workload_identity", "workload_identity_provider": "aws"},
        SNOWFLAKE_ENTRY | {"authenticator": "workload_identity", "workload_identity_provider": "aws"},
    ),
    "bigquery with an access token": (
        BIGQUERY | {"method": "oauth-secrets", "token": SECRET},
        BIGQUERY_ENTRY | {"token_env": "SHOP_DEV_TOKEN", "credentials_block": "shop-dev"},
    ),
    "bigquery as another service account": (
        BIGQUERY | {"method": "oauth", "impersonate_service_account": "a@p.iam.gserviceaccount.com"},
        BIGQUERY_ENTRY | {"method": "oauth", "impersonate_service_account": "a@p.iam.gserviceaccount.com"},
    ),
    "postgres with a client certificate": (
        POSTGRES | {"sslmode": "verify-full", "sslcert": "certs/me.pem", "sslkey": "certs/me.key"},
        {"sslmode": "verify-full", "sslcert": "../shop/certs/me.pem", "sslkey": "../shop/certs/me.key"},
    ),
    "bigquery with default credentials": (
        BIGQUERY | {"method": "oauth", "location": "EU", "timeout_seconds": 300, "priority": "batch"},
        BIGQUERY_ENTRY
        | {"method": "oauth", "location": "EU", "job_execution_timeout_seconds": 300, "priority": "batch"},
    ),
    "bigquery with a key file": (
        BIGQUERY | {"method": "service-account", "keyfile": "~/key.json"},
        BIGQUERY_ENTRY | {"keyfile": "~/key.json", "credentials_block": "shop-dev"},
    ),
    "bigquery with a key in clear": (
        BIGQUERY | {"method": "service-account-json", "keyfile_json": KEYFILE},
        BIGQUERY_ENTRY | {"keyfile_json_env": "SHOP_DEV_KEYFILE_JSON", "credentials_block": "shop-dev"},
    ),
    "bigquery with a key in a variable": (
        BIGQUERY | {"method": "service-account-json", "keyfile_json": "{{ env_var('KEY') | as_native }}"},
        BIGQUERY_ENTRY | {"keyfile_json_env": "KEY", "credentials_block": "shop-dev"},
    ),
    "bigquery with a refresh token": (
        BIGQUERY
        | {"method": "oauth-secrets", "refresh_token": SECRET, "client_id": "id", "client_secret": SECRET}
        | {"token": SECRET},
        BIGQUERY_ENTRY
        | {
            "refresh_token_env": "SHOP_DEV_REFRESH_TOKEN",
            "client_id": "id",
            "client_secret_env": "SHOP_DEV_CLIENT_SECRET",
            "credentials_block": "shop-dev",
        },
    ),
    "bigquery with workload identity": (
        BIGQUERY
        | {
            "method": "external-oauth-wif",
            "workload_pool_provider_path": "//iam/x",
            "token_endpoint": {"type": "entra", "request_url": "https://login", "request_data": f"secret={SECRET}"},
        },
        BIGQUERY_ENTRY
        | {
            "token_request_url": "https://login",
            "token_request_data_env": "SHOP_DEV_TOKEN_REQUEST_DATA",
            "workload_pool_provider_path": "//iam/x",
            "credentials_block": "shop-dev",
        },
    ),
}  # fmt: skip


def found_in(**outputs: dict[str, Any]) -> FoundProfile:
    """Return the targets of a profile with these outputs, for a workspace beside the project."""
    document = {"shop": {"target": next(iter(outputs)), "outputs": outputs}, "config": {"x": SECRET}}
    text = yaml.safe_dump(document, sort_keys=False)
    return profile_in(text, "profiles.yml", "shop", lambda path: f"../shop/{path}")


def everything(profile: FoundProfile) -> str:
    """Return all that is written and said of a profile."""
    said = [text for it in profile.targets for text in (*it.notes, *it.secrets, *it.secrets.values())]
    return "\n".join([*files_of(ProjectFacts("Shop", "../shop"), profile).values(), *said])


@pytest.mark.parametrize("shape", SHAPES)
def test_an_output_becomes_a_target_without_its_secrets(shape: str, tmp_path: Path) -> None:
    output, expected = SHAPES[shape]
    if output["type"] == "postgres":
        plain = {key: value for key, value in POSTGRES.items() if key != "type"}
        expected = {"warehouse": "postgres", "credentials_block": "shop-dev"} | plain | expected

    profile = found_in(dev=output)

    assert profile.ready[0].settings == expected
    assert SECRET not in everything(profile)
    (tmp_path / "targets.yml").write_text(files_of(ProjectFacts("Shop", "."), profile)["targets.yml"])
    variables: dict[str, str] = {"PGHOST": "db", "DEV_HOST": "db"}
    target = load_targets(tmp_path / "targets.yml", variables).find("dev")
    assert set(target.secret_variables().values()) == set(profile.ready[0].secrets)


@pytest.mark.parametrize(
    "shape",
    ["postgres with a password in clear", "snowflake with a password", "snowflake with a key pair"],
)
def test_with_the_variables_set_dbt_gets_what_profiles_yml_said(shape: str, tmp_path: Path) -> None:
    output, _ = SHAPES[shape]
    profile = found_in(dev=output)
    (tmp_path / "targets.yml").write_text(files_of(ProjectFacts("Shop", "."), profile)["targets.yml"])
    target = load_targets(tmp_path / "targets.yml", {}).find("dev")
    given = {variable: output.get(setting) or output["pass"] for setting, variable in target.secret_variables().items()}

    connection = profile_of("dev", target, given, "shop").connection()

    wanted = {{"pass": "password"}.get(name, name): value for name, value in output.items()}
    wanted.pop("authenticator", None)
    assert {name: connection.get(name) for name in wanted} == wanted


def test_every_output_becomes_a_target_of_its_own(tmp_path: Path) -> None:
    prod = POSTGRES | {"password": SECRET, "host": "other"}
    profile = found_in(
        Dev_EU=POSTGRES | {"password": SECRET}, prod=prod, airbyte={"type": "duckdb", "path": "/a.duckdb"}
    )

    assert [it.name for it in profile.targets] == ["dev-eu", "prod", "airbyte-target"]
    assert profile.default == "dev-eu"
    assert "Dev_EU is called dev-eu" in profile.targets[0].notes[0]
    (tmp_path / "targets.yml").write_text(files_of(ProjectFacts("Shop", "."), profile)["targets.yml"])
    assert load_targets(tmp_path / "targets.yml", {}).names == ["dev-eu", "prod", "airbyte-target"]


def test_an_output_on_any_adapter_becomes_a_target_without_its_secrets(tmp_path: Path) -> None:
    lake = {
        **{
            "type": "databricks",
            "host": "{{ env_var('LAKE_HOST', 'h') }}",
            "token": SECRET,
            "schema": "s",
            "port": 443,
        },
        **{"client_secret": "{{ env_var('LAKE_SECRET') }}", "session_key": SECRET, "jdbc": f"x://u:{SECRET}@h"},
        **{"connection_parameters": {"password": SECRET, "retries": 3}, "hooks": [{"pwd": SECRET}], "retry_all": True},
    }
    profile = found_in(lake=lake)

    (target,) = profile.targets
    assert target.settings == {
        **{"adapter": "databricks", "host": "${LAKE_HOST:-h}", "token_env": "SHOP_LAKE_TOKEN", "schema": "s"},
        **{"port": 443, "client_secret_env": "LAKE_SECRET", "session_key_env": "SHOP_LAKE_SESSION_KEY"},
        "connection_parameters": {"password_env": "SHOP_LAKE_CONNECTION_PARAMETERS_PASSWORD", "retries": 3},
        **{"retry_all": True, "credentials_block": "shop-lake"},
    }
    assert set(target.secrets) == {
        *("SHOP_LAKE_TOKEN", "LAKE_SECRET", "SHOP_LAKE_SESSION_KEY", "SHOP_LAKE_CONNECTION_PARAMETERS_PASSWORD"),
    }
    assert any("hooks not taken over" in note for note in target.notes)
    assert any("`jdbc` is not taken over, as a password may be in it" in note for note in target.notes)
    written = files_of(ProjectFacts("Shop", "."), profile)["targets.yml"]
    assert SECRET not in written + str(target.notes) + str(target.secrets)
    (tmp_path / "targets.yml").write_text(written)
    connection = load_targets(tmp_path / "targets.yml", {}).find("lake").secret_variables()
    assert connection["connection_parameters.password"] == "SHOP_LAKE_CONNECTION_PARAMETERS_PASSWORD"


@pytest.mark.parametrize("entry", adapter_sign_ins(), ids=lambda entry: entry.name)
def test_every_output_of_the_adapters_documents_comes_back_whole(entry: SignIn, tmp_path: Path) -> None:
    profile = found_in(dev=entry.connection)

    written = files_of(ProjectFacts("Shop", "."), profile)["targets.yml"]
    assert not [secret for secret in entry.secrets if secret in everything(profile)]
    (tmp_path / "targets.yml").write_text(written)
    target = load_targets(tmp_path / "targets.yml", {}).find("dev")
    found = target.secret_variables()
    given = {variable: str(_value_at(entry.connection, setting)) for setting, variable in found.items()}
    assert profile_of("dev", target, given, "shop").connection() == entry.connection


def _value_at(settings: Any, dotted: str) -> Any:
    """Return the value of a setting; names within a mapping may have dots themselves."""
    for name, value in settings.items():
        if dotted == name:
            return value
        if isinstance(value, dict) and dotted.startswith(f"{name}."):
            return _value_at(value, dotted.removeprefix(f"{name}."))
    raise KeyError(dotted)


def test_an_output_on_an_adapter_without_a_schema_is_left_out_with_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match=r"can be a target:\n  lake is left out: schema: is required"):
        found_in(lake={"type": "trino", "password": SECRET})


def test_an_output_that_lacks_something_is_left_out_with_what_it_lacks() -> None:
    broken = {key: value for key, value in SNOWFLAKE.items() if key != "account"} | {"threads": f"many{SECRET}"}
    profile = found_in(prod=broken, dev={"type": "duckdb", "path": "/a.duckdb"})

    (note,) = profile.targets[0].notes
    assert note.startswith("prod is left out: ")
    assert "account: is required" in note
    assert "threads: should be a valid integer" in note
    assert SECRET not in note


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shop:\n  outputs: {dev: [\n", "profiles.yml is not valid YAML, at line 3"),
        ("other: {outputs: {}}\nconfig: {}\n", "has no profile 'shop', which dbt_project.yml asks for; it has other"),
        ("", "it has none"),
        ("shop: {target: dev}\n", "Profile shop in profiles.yml has no outputs"),
        ("shop: {outputs: {dev: nothing}}\n", "dev is left out: expected settings"),
        ("shop: {outputs: {dev: {host: h}}}\n", "dev is left out: it does not name its `type`"),
    ],
)  # fmt: skip
def test_what_is_no_profile_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        profile_in(text, "profiles.yml", "shop")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("target", "default"), [("prod", "prod"), ("{{ env_var('T', 'prod') }}", "prod"), ("x", "dev")]
)
def test_the_default_is_that_of_the_profile(target: str, default: str) -> None:
    duckdb = {"type": "duckdb", "path": "/a.duckdb"}
    text = yaml.safe_dump({"shop": {"target": target, "outputs": {"dev": duckdb, "prod": duckdb}}})
    assert profile_in(text, "profiles.yml", "shop").default == default


def test_profiles_yml_is_looked_for_where_dbt_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = tmp_path / "shop"
    assert profiles_places(project, None, {}) == [project / "profiles.yml", tmp_path / "home" / ".dbt" / "profiles.yml"]
    assert profiles_places(project, None, {"DBT_PROFILES_DIR": "/x"}) == [Path("/x/profiles.yml")]
    assert profiles_places(project, Path("/y/mine.yml"), {"DBT_PROFILES_DIR": "/x"}) == [Path("/y/mine.yml")]
