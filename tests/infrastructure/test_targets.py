"""targets.yml: what it may say, and what a person reads who made a mistake in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from infrastructure.errors import ConfigError
from infrastructure.targets.adapter import AdapterTarget
from infrastructure.targets.target_file import load_targets
from infrastructure.targets.warehouses import BigQueryTarget, DuckDBTarget, PostgresTarget
from infrastructure.workspace import EXAMPLE
from tests.support.environments import Environments

DEV = "  dev: {warehouse: duckdb, path: data/dev.duckdb, schema: analytics}\n"


def _error(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_targets(path, {})
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "targets.yml"


def test_the_committed_file_offers_a_target_that_needs_nothing() -> None:
    targets = load_targets(environ={})

    dev = targets.find(targets.default)
    assert targets.default == "dev"
    assert isinstance(dev, DuckDBTarget)
    assert (dev.path, dev.schema_name, dev.threads) == ("data/dev.duckdb", "analytics", 4)
    assert dev.secret_variables() == {}
    assert targets.names == ["dev", "postgres", "prod", "ci", "prod-snowflake"]


def test_the_committed_file_names_the_profile_of_the_dbt_project() -> None:
    project = yaml.safe_load((EXAMPLE.project / "dbt_project.yml").read_text())

    assert load_targets(environ={}).profile == project["profile"]


def test_a_target_that_waits_for_variables_names_all_of_them() -> None:
    targets = load_targets(environ={"SNOWFLAKE_USER": "LOADER"})

    assert targets.unset["prod"] == ("GCP_PROJECT", "GCP_SERVICE_ACCOUNT_JSON")
    assert targets.unset["prod-snowflake"] == ("SNOWFLAKE_ACCOUNT", "SNOWFLAKE_PRIVATE_KEY")
    assert targets.unset["airbyte"] == ("AIRBYTE_API_URL", "AIRBYTE_CLIENT_ID", "AIRBYTE_CLIENT_SECRET")
    with pytest.raises(ConfigError, match="Target prod cannot be used: set GCP_PROJECT and GCP_SERVICE_ACC"):
        targets.find("prod")


def test_variables_and_their_defaults_become_typed_settings() -> None:
    plain = load_targets(environ={}).find("postgres")
    changed = load_targets(environ={"POSTGRES_PORT": "5433", "POSTGRES_HOST": "db"}).find("postgres")

    assert isinstance(plain, PostgresTarget)
    assert isinstance(changed, PostgresTarget)
    assert (plain.host, plain.port) == ("127.0.0.1", 5432)
    assert (changed.host, changed.port) == ("db", 5433)


def test_a_target_that_waits_for_a_variable_does_not_hinder_the_others(file: Path) -> None:
    file.write_text(
        "default: dev\ntargets:\n"
        + DEV
        + "  far: {warehouse: postgres, host: h, port: '${FAR_PORT}', user: u, dbname: d, schema: s}\n"
    )

    targets = load_targets(file, {})
    assert list(targets.targets) == ["dev"]
    assert targets.unset == {"far": ("FAR_PORT",)}
    assert load_targets(file, {"FAR_PORT": "1"}).unset == {}


@pytest.mark.parametrize("settings", ["warehouse: postgres", "adapter: sqlserver"])
def test_variables_that_are_passed_on_are_no_secrets_of_the_target(file: Path, settings: str) -> None:
    rest = "host: h, user: u, password_env: PASSWORD, dbname: d, schema: s" if "postgres" in settings else "schema: s"
    file.write_text(f"default: far\ntargets:\n  far: {{{settings}, {rest}, pass_env: [MACHINE]}}\n")

    target = load_targets(file, {}).find("far")
    assert target.pass_env == ["MACHINE"]
    assert "MACHINE" not in target.secret_variables().values()


def test_every_way_of_signing_in_is_understood(every_sign_in: Environments) -> None:
    targets = every_sign_in.load()

    assert set(targets.targets) == set(every_sign_in.sign_ins)
    assert targets.unset == {}


def test_every_mistake_is_named_at_once_with_its_line(file: Path) -> None:
    message = _error(
        file,
        """\
default: devv
targets:
  dev:
    warehouse: duckdb
    pth: data/dev.duckdb
    schema: analytics
    threads: many
  prod:
    warehouse: bigqery
  pg:
    warehouse: postgres
    host: localhost
    port: ${PG_PORT:-99999}
    user: loader
    dbname: analytics
    schema: analytics
    sslmode: requird
""",
    )

    assert message.splitlines() == [
        f"{file} has 7 mistakes:",
        "  line 1, default: there is no target 'devv'; did you mean `dev`?",
        "  line 3, targets.dev.path: is required",
        "  line 5, targets.dev.pth: no such setting; did you mean `path`?",
        "  line 7, targets.dev.threads: expected a whole number, found 'many'",
        "  line 9, targets.prod.warehouse: expected one of `duckdb`, `postgres`, `snowflake`, `bigquery`, "
        "found 'bigqery'; did you mean `bigquery`?",
        "  line 13, targets.pg.port: expected at most 65535, found '99999'",
        "  line 17, targets.pg.sslmode: expected one of `disable`, `allow`, `prefer`, `require`, "
        "`verify-ca`, `verify-full`, found 'requird'; did you mean `require`?",
    ]


def test_a_secret_in_the_file_is_refused_and_not_repeated(file: Path) -> None:
    message = _error(
        file,
        "default: pg\ntargets:\n"
        "  pg: {warehouse: postgres, host: h, user: u, dbname: d, schema: s, password: geheim}\n"
        "  sf: {warehouse: snowflake, account: a, user: u, database: d, virtual_warehouse: w, schema: s, "
        "password_env: geheim-2}\n"
        "slack_webhook: {url: 'https://hooks.slack.com/services/geheim'}\n",
    )

    assert "geheim" not in message
    assert "put it in an environment variable, and name that with `password_env`" in message
    assert "name that with `url_env`" in message
    assert "targets.sf.password_env: expected the name of an environment variable, in upper case" in message


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("warehouse: duckdb, path: ':memory:'", "a database in memory ends with it"),
        ("warehouse: bigquery, project: p", "does not say how to sign in: give keyfile_json_env"),
        (
            "warehouse: bigquery, project: p, method: oauth, keyfile: k",
            "signs in with keyfile and method; keep one",
        ),
        (
            "warehouse: bigquery, project: p, keyfile_json_env: DBT_ENV_SECRET_K",
            "cannot begin with DBT_ENV_SECRET_",
        ),
        (
            "warehouse: bigquery, project: p, refresh_token_env: R, client_id: c",
            "refresh_token_env needs client_secret_env",
        ),
        ("warehouse: bigquery, project: p, method: oauth, client_id: c", "client_id goes with refresh_token_env"),
        ("warehouse: bigquery, project: p, method: oauth, refresh_token: x", "name that with `refresh_token_env`"),
        ("warehouse: bigquery, project: p, method: oauth, type: x", "is called `warehouse` here"),
        ("adapter: databricks, token: geheim", "t.token: no secret is written in this file: put it in an environment"),
        ("adapter: trino, extra: {oauth: {client_secret: g}}", "t.extra.oauth.client_secret: no secret is written"),
        ("adapter: spark, confs: [{password: g}]", "t.confs.0.password: no secret is written in this file"),
        ("adapter: spark, url: 'jdbc:x://u:geheim@h'", "t.url: a password is in this value"),
        (
            "adapter: trino, client_private_key: '-----BEGIN PRIVATE KEY-----'",
            "t.client_private_key: a private key is in",
        ),
        ("adapter: dremio, pat: geheim", "t.pat: no secret is written in this file"),
        ("adapter: any, clientSecret: geheim", "t.clientSecret: no secret is written in this file"),
        ("adapter: trino, password_env: geheim", "t.password_env: expected the name of an environment variable"),
        ("adapter: postgres, host: h", "t.adapter: postgres has settings of its own here: write `warehouse: postgres`"),
        ("adapter: trino, warehouse: duckdb", "t.warehouse: goes with the four warehouses"),
        ("adapter: trino, type: trino", "t.type: is called `adapter` here"),
        ("adapter: Data Bricks", "t.adapter: expected the `type` of a dbt adapter"),
        ("warehouse: databricks", "found 'databricks'; any other dbt adapter is named with `adapter`"),
        ("warehouse: postgres, host: h, user: u, dbname: d, threads: 0", "expected at least 1, found 0"),
        ("warehouse: postgres, host: '', user: u, dbname: d", "expected at least 1 character"),
    ],
)
def test_a_target_that_cannot_work_is_refused(file: Path, settings: str, expected: str) -> None:
    assert expected in _error(file, f"default: t\ntargets:\n  t: {{schema: s, {settings}}}\n")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("user: u", "does not say how to sign in"),
        (
            "user: u, password_env: A, private_key_env: B",
            "signs in with password_env and private_key_env; keep one",
        ),
        ("password_env: A", "user is required"),
        ("user: u, authenticator: oauth", "authenticator oauth needs token_env"),
        ("user: u, authenticator: 'https://acme.okta.com'", "needs password_env"),
        ("user: u, token_env: A", "token_env needs an authenticator"),
        ("user: u, authenticator: extrenalbrowser", "did you mean `externalbrowser`?"),
        ("authenticator: workload_identity", "needs workload_identity_provider"),
        (
            "user: u, password_env: A, private_key_passphrase_env: B",
            "needs private_key_env or private_key_path",
        ),
        ("user: u, authenticator: oauth, token_env: A, oauth_client_id: c", "go together"),
    ],
)
def test_a_snowflake_sign_in_that_cannot_work_is_refused(file: Path, settings: str, expected: str) -> None:
    base = "warehouse: snowflake, schema: s, account: a, database: d, virtual_warehouse: w"
    assert expected in _error(file, f"default: t\ntargets:\n  t: {{{base}, {settings}}}\n")


def test_targets_that_name_the_same_credentials_block_have_to_agree(file: Path) -> None:
    base = "warehouse: postgres, host: h, dbname: d, schema: s, credentials_block: ours"
    message = _error(
        file,
        f"default: a\ntargets:\n  a: {{{base}, user: u}}\n  b: {{{base}, user: v}}\n  c: {{{base}, user: u}}\n",
    )

    assert message.splitlines()[1:] == [
        "  line 4, targets.b: shares the credentials block ours with a but differs in user; "
        "give one of them a block of its own, such as `credentials_block: ours-b`"
    ]


def test_a_profile_block_that_setup_would_write_over_is_refused(file: Path) -> None:
    message = _error(
        file,
        "default: a\ntargets:\n  a: {profile_block: mine}\n  b: {profile_block: dbt-cli-profile-a}\n"
        "  c:\n    profile_block: dbt-cli-profile-c\n",
    )

    assert message.splitlines()[1:] == [
        f"  line {line}, targets.{name}.profile_block: names dbt-cli-profile-{owner}, which setup saves the profile of "
        f"target {owner} under; save yours under another name and name that here"
        for line, name, owner in ((4, "b", "a"), (6, "c", "c"))
    ]


@pytest.mark.parametrize("environ", [{}, {"FIRST_HOST": "one"}, {"FIRST_HOST": "two"}])
def test_a_target_that_signs_in_otherwise_has_a_credentials_block_of_its_own(
    file: Path, environ: dict[str, str]
) -> None:
    """The same one wherever the variables of the first are set, else two machines would overwrite each other's."""
    base = "warehouse: postgres, dbname: d, schema: s"
    file.write_text(
        f"default: b\ntargets:\n  a: {{{base}, host: '${{FIRST_HOST}}', user: u}}\n"
        f"  b: {{{base}, host: two, user: u}}\n  c: {{{base}, host: '${{FIRST_HOST}}', user: u}}\n"
        f"  d: {{{base}, host: '${{FIRST_HOST}}', user: u, password_env: OTHER}}\n"
    )
    found = {name: target.credentials_name() for name, target in load_targets(file, environ).targets.items()}

    expected = {"a": "postgres-credentials", "b": "postgres-credentials-b"}
    expected |= {"c": "postgres-credentials", "d": "postgres-credentials-d"}
    assert found == {name: block for name, block in expected.items() if environ or name == "b"}


def test_an_adapters_second_secret_has_a_block_of_its_own(file: Path) -> None:
    base = "adapter: databricks, schema: s, host: h"
    file.write_text(
        f"default: a\ntargets:\n  a: {{{base}, token_env: ONE}}\n  b: {{{base}, token_env: TWO}}\n"
        f"  c: {{{base}, client_secret_env: THREE}}\n"
    )
    found = {name: target.credentials_name() for name, target in load_targets(file, {}).targets.items()}

    assert found == {
        "a": "databricks-credentials",
        "b": "databricks-credentials-b",
        "c": "databricks-credentials",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must contain settings as `name: value`"),
        ("default: dev\ntargets: [", "is not valid YAML, at line 2"),
        (
            "default: dev\ntargets:\n" + DEV + DEV,
            "line 4, targets.dev: given twice, on lines 3 and 4; keep one of them",
        ),
        ("default: dev\ntargets: {}\n", "targets: expected at least one target"),
        ("default: dev\ntargets:\n", "targets: expected settings, as `name: value`"),
        ("default: dev\ntargets:\n  dev: 3\n", "targets.dev: expected settings, as `name: value`, found 3"),
        ("default: dev\ntargets:\n  dev: {schema: s}\n", "targets.dev.warehouse: is required"),
        (
            "default: Dev\ntargets:\n  Dev_1: {}\n",
            "a name has lower-case letters, digits and single hyphens only",
        ),
        ("default: airbyte\ntargets:\n" + DEV.replace("dev:", "airbyte:"), "targets.airbyte: is a reserved name"),
        ("default: ${TARGET}\ntargets:\n" + DEV, "default: set TARGET, or give a default"),
        ("default: dev\ntarget:\n" + DEV, "target: no such setting; did you mean `targets`?"),
    ],
)
def test_a_broken_file_says_where_and_why(file: Path, text: str, expected: str) -> None:
    assert expected in _error(file, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"There is no file {tmp_path / 'none.yml'}.")):
        load_targets(tmp_path / "none.yml")


def test_an_anchor_can_be_shared_by_targets(file: Path) -> None:
    file.write_text(
        "default: a\ntargets:\n  a: &base {warehouse: duckdb, path: a.duckdb, schema: s}\n"
        "  b: {<<: *base, path: b.duckdb}\n"
    )

    targets = load_targets(file, {}).targets
    assert [target.path for target in targets.values() if isinstance(target, DuckDBTarget)] == [
        "a.duckdb",
        "b.duckdb",
    ]


def test_an_unknown_target_is_answered_with_the_known_ones(write_targets: Callable[..., Path]) -> None:
    path = write_targets(prod={"warehouse": "bigquery", "project": "p", "schema": "s", "method": "oauth"})
    targets = load_targets(path, {})

    assert isinstance(targets.find("prod"), BigQueryTarget)
    with pytest.raises(ConfigError, match=r"There is no target 'prd' in .*, which has prod\. Did you mean `prod`\?"):
        targets.find("prd")


def test_a_number_of_an_adapter_that_comes_from_a_variable_is_a_number(file: Path) -> None:
    settings = "port: '${PORT}', user: '${USER}', secure: '${TLS:-true}', password_env: PW, driver: '4711'"
    file.write_text(f"default: t\ntargets:\n  t: {{adapter: clickhouse, schema: s, {settings}}}\n")

    target = load_targets(file, {"PORT": "8443", "USER": "0815"}).find("t")
    assert isinstance(target, AdapterTarget)
    assert target.settings(str) == {
        **{"type": "clickhouse", "schema": "s", "threads": 4, "port": 8443, "user": "0815", "secure": True},
        **{"password": "password", "driver": "4711"},
    }
    assert load_targets(file, {}).unset == {"t": ("PORT", "USER", "PW")}
