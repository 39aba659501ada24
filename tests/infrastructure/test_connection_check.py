"""`--check`: real dbt against real DuckDB and PostgreSQL, and one sentence for what goes wrong."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from infrastructure.connection_check.check import check, explain, judge
from infrastructure.connection_check.reachability import address_of, why_unreachable
from infrastructure.errors import ConfigError
from infrastructure.profiles import Profile
from tests.support.postgres import own_postgres

PASSWORD = "pg-right-0815"


@pytest.fixture(scope="module")
def postgres_with_password() -> Iterator[dict[str, Any]]:
    """Start a PostgreSQL that asks for passwords; yields the settings of dbt's output."""
    with own_postgres("loader", PASSWORD) as address:
        yield {"type": "postgres", "schema": "s", "threads": 1, **address}


def _profile(output: dict[str, Any], password: str = PASSWORD) -> Profile:
    placeholder = {"password": "{{ env_var('DBT_ENV_SECRET_T_PASSWORD') }}"}
    return Profile("t", "tributary", output | placeholder, {"DBT_ENV_SECRET_T_PASSWORD": password})


def test_the_right_password_connects(postgres_with_password: dict[str, Any]) -> None:
    assert check(_profile(postgres_with_password)).is_ok


@pytest.mark.parametrize(
    ("changed", "password", "cause", "mend"),
    [
        ({}, "pg-wrong-4711", "the password of user loader is wrong", "Set its variable to the right one"),
        ({"dbname": "nosuch"}, PASSWORD, "there is no database nosuch", "Correct `dbname` of this target in"),
        ({"role": "nosuch"}, PASSWORD, "there is no user or role nosuch", "Correct `user` or `role`"),
        (
            {"port": 9, "retries": 0},
            PASSWORD,
            "nothing listens at that host and port",
            "Start the server, or",
        ),
    ],
)
def test_what_is_wrong_with_postgresql_is_said_in_a_sentence(
    postgres_with_password: dict[str, Any], changed: dict[str, Any], password: str, cause: str, mend: str
) -> None:
    found = check(_profile(postgres_with_password | changed, password))

    assert found.cause == cause
    assert found.mend.startswith(mend)
    assert password not in repr(found)


def test_the_variables_of_the_caller_do_not_change_what_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBT_TARGET", "other")
    monkeypatch.setenv("DBT_PROFILES_DIR", "/nowhere")
    monkeypatch.setenv("DBT_LOG_LEVEL", "none")
    output = {"type": "duckdb", "path": str(tmp_path / "new" / "t.duckdb"), "schema": "s", "threads": 1}

    assert check(Profile("t", "tributary", output, {})).is_ok


def test_a_duckdb_file_that_is_in_use_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "t.duckdb")
    with duckdb.connect(path):
        found = check(Profile("t", "tributary", {"type": "duckdb", "path": path, "schema": "s"}, {}))

    assert found.cause == "another process has the database file open"


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        output = {
            "type": "postgres",
            "host": "127.0.0.1",
            "port": port,
            "user": "u",
            "dbname": "d",
            "schema": "s",
        }
        found = check(_profile(output | {"connect_timeout": 3600}), timeout_seconds=4)

    assert found.cause == "there is no answer within 4 seconds"


def test_a_check_without_the_adapter_names_the_command_that_installs_it() -> None:
    with pytest.raises(ConfigError, match="dbt-oracle is not installed"):
        check(Profile("t", "tributary", {"type": "oracle"}, {}))


# As dbt 1.11.16 prints it around what the driver says.
_DBT = """\
19:26:28    Connection test: [ERROR]

19:26:28  1 check failed:
19:26:28  dbt was unable to connect to the specified database.
The database returned the following error:

  >{}

Check your database credentials and try again. For more information, visit:
https://docs.getdbt.com/docs/configure-your-profile
"""
_HOST = 'could not translate host name "nosuch.invalid" to address: Name or service not known'
_SSL = 'connection to server at "127.0.0.1", port 5432 failed: server does not support SSL, but SSL was required'
_HBA = 'connection failed: FATAL:  no pg_hba.conf entry for host "10.1.2.3", SSL off'


@pytest.mark.parametrize(
    ("warehouse", "text", "cause"),
    [
        ("postgres", f"Database Error\n  {_HOST}\n  ", "there is no host nosuch.invalid"),
        ("postgres", f"Database Error\n  {_SSL}\n  ", "the server does not speak SSL"),
        (
            "postgres",
            f"Database Error\n  {_HBA}",
            'the server does not allow this connection: host "10.1.2.3", SSL off',
        ),
        (
            "postgres",
            "Database Error\n  FATAL: too many clients already",
            "the server has no connection left",
        ),
        (
            "duckdb",
            'IO Error: Cannot open file "/x/y.duckdb": Permission denied',
            "the file /x/y.duckdb cannot",
        ),
        (
            "postgres",
            "Database Error\n  nobody foresaw this\n  more",
            "dbt could not connect: nobody foresaw this",
        ),
        ("postgres", "", "dbt could not connect: dbt printed nothing"),
    ],
)
def test_the_cause_is_read_from_what_dbt_prints(warehouse: str, text: str, cause: str) -> None:
    assert explain(warehouse, _DBT.format(text))[0].startswith(cause)


def test_a_message_without_dbt_around_it_is_read_too() -> None:
    cause, mend = explain("postgres", "Runtime Error\n  Credentials in profile are invalid")

    assert cause == "dbt could not connect: Credentials in profile are invalid"
    assert "targets.yml" in mend


@pytest.mark.parametrize(
    ("warehouse", "text", "cause"),
    [
        ("snowflake", "390318 (08001): OAuth access token expired. [4711]", "the token has expired"),
        (
            "snowflake",
            "250001 (08001): Failed to connect to DB. Invalid OAuth access token. [4711]",
            "the token is not",
        ),
        ("snowflake", "Incorrect password, could not decrypt key", "the passphrase does not open the private key"),
        (
            "bigquery",
            "('invalid_client: Unauthorized', {'error': 'invalid_client'})",
            "the token has expired or is not",
        ),
        (
            "bigquery",
            "Access Denied: Dataset acme:marts: Permission bigquery.datasets.get denied (or it may not exist).",
            "the account may not see dataset acme:marts, or there is none",
        ),
        ("bigquery", "Access Denied: Project acme: User does not have bigquery.jobs.create", "the account may not run"),
    ],
)
def test_what_the_services_say_is_explained(warehouse: str, text: str, cause: str) -> None:
    for around in (_DBT, "Encountered an error while running operation: Database Error\n  {}"):
        assert explain(warehouse, around.format(text))[0].startswith(cause)


_SNOWFLAKE = {
    "type": "snowflake",
    "account": "acme-europe",
    "warehouse": "WH",
    "database": "ANALYTICS",
    "schema": "dev",
}
_BIGQUERY = {"type": "bigquery", "project": "acme", "schema": "marts"}


@pytest.mark.parametrize(
    ("output", "found", "cause", "note"),
    [
        (_SNOWFLAKE, {"database": "ANALYTICS", "warehouse": "WH"}, "", ""),
        (_SNOWFLAKE, {"database": None, "warehouse": "WH"}, "there is no database ANALYTICS, or", ""),
        (_SNOWFLAKE, {"database": "ANALYTICS", "warehouse": None}, "there is no warehouse WH, or", ""),
        (_BIGQUERY, {"location": "EU"}, "", ""),
        (_BIGQUERY | {"location": "eu"}, {"location": "EU"}, "", ""),
        (_BIGQUERY | {"location": "US"}, {"location": "EU"}, "dataset acme.marts is in location EU, not in US", ""),
        (_BIGQUERY, {"location": None}, "", "there is no dataset acme.marts yet: the first run creates it in US"),
    ],
)
def test_the_place_that_dbt_builds_in_is_judged(
    output: dict[str, Any], found: dict[str, Any], cause: str, note: str
) -> None:
    judged = judge(Profile("t", "tributary", output, {}), found)

    assert judged.cause.startswith(cause) and bool(judged.cause) == bool(cause)
    assert judged.note.startswith(note) and bool(judged.note) == bool(note)
    assert bool(judged.mend) == bool(cause)


@pytest.mark.parametrize(
    ("output", "address"),
    [
        (_SNOWFLAKE, ("acme-europe.snowflakecomputing.com", 443)),
        (_SNOWFLAKE | {"account": "acme.cn-northwest-1"}, ("acme.cn-northwest-1.snowflakecomputing.cn", 443)),
        (_SNOWFLAKE | {"host": "acme.privatelink.example", "port": 8443}, ("acme.privatelink.example", 8443)),
        (_BIGQUERY, ("bigquery.googleapis.com", 443)),
        (_BIGQUERY | {"api_endpoint": "http://127.0.0.1:9050"}, ("127.0.0.1", 9050)),
        (_BIGQUERY | {"api_endpoint": "bigquery-acme.p.googleapis.com"}, ("bigquery-acme.p.googleapis.com", 443)),
        ({"type": "postgres", "host": "h", "port": 5432}, None),
        ({"type": "spark", "method": "thrift", "host": "h", "port": 10001}, ("h", 10001)),
        ({"type": "sqlserver", "server": "sql.example.org", "port": 1433}, ("sql.example.org", 1433)),
        ({"type": "sqlserver", "server": "sql\\instance", "port": 1433}, None),
        ({"type": "spark", "method": "http", "host": "http://h", "port": 443}, None),
        ({"type": "spark", "method": "session", "host": "NA"}, None),
        ({"type": "athena"}, None),
    ],
)
def test_the_address_of_a_warehouse_is_known(output: dict[str, Any], address: tuple[str, int] | None) -> None:
    assert address_of(output) == address


def test_a_host_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    here = {"host": "127.0.0.1", "protocol": "http"}

    cause, mend = why_unreachable(_SNOWFLAKE | here | {"port": 9}) or ("", "")
    assert cause == "nothing listens at 127.0.0.1:9"
    assert "`account`, `host` or `port`" in mend
    assert (why_unreachable(_BIGQUERY | {"api_endpoint": "http://no-such-host.invalid"}) or ("",))[0] == (
        "there is no host no-such-host.invalid"
    )
    cause, mend = why_unreachable({"type": "trino", "host": "127.0.0.1", "port": 9}) or ("", "")
    assert cause == "nothing listens at 127.0.0.1:9"
    assert "correct `host` or `port` of this target" in mend
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert why_unreachable(_SNOWFLAKE | here | {"port": listening.getsockname()[1]}) is None


def test_a_host_behind_a_proxy_is_left_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")

    assert why_unreachable(_BIGQUERY | {"api_endpoint": "https://no-such-host.invalid"}) is None
