"""Raw tables on both warehouses: what goes in comes out, whole or not at all, and errors say what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flows.warehouses import postgres as warehouse_postgres
from flows.warehouses.door import open_warehouse
from flows.warehouses.duckdb import database_path
from flows.warehouses.postgres import opening_error
from flows.warehouses.raw_tables import RawTable
from flows.warehouses.warehouse import Warehouse
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.profiles import Profile
from tests.support.raw_data import RawData

THINGS = RawTable(
    "things",
    (
        ("id", "bigint"),
        ("name", "varchar"),
        ("is_good", "boolean"),
        ("on_date", "date"),
        ("at", "timestamp"),
        ("amount", "numeric(18,2)"),
        ("pieces", "integer"),
    ),
)
NAMES = RawTable("names", (("name", "varchar"),))
FULL = (2**62, "x", True, date(2026, 2, 28), datetime(2026, 2, 28, 23, 59, 59, 123456), Decimal("-12.30"), -7)
EMPTY = (1, None, None, None, None, None, None)


def duckdb_profile(path: object) -> Profile:
    return Profile("dev", "tributary", {"type": "duckdb", "path": str(path)}, {})


def postgres_profile(**settings: object) -> Profile:
    output = {"type": "postgres", "host": "127.0.0.1", "port": 5432, "user": "postgres", "dbname": "postgres"}
    return Profile("pg", "tributary", {**output, **settings}, {})


def open_once(profile: Profile, schema: str = "raw") -> None:
    with open_warehouse(profile, schema):
        pass


def load(raw: RawData, table: RawTable, rows: Iterable[tuple[Any, ...]]) -> None:
    with open_warehouse(raw.profile, raw.raw_schema) as warehouse, warehouse.loading():
        warehouse.prepare([table])
        warehouse.append(table, rows)


def test_every_type_and_null_comes_back_as_it_was_written(raw: RawData) -> None:
    load(raw, THINGS, [FULL, EMPTY])
    assert raw.rows("things") == [EMPTY, FULL]


def test_text_comes_back_as_it_was_written_but_for_nul_on_postgres(raw: RawData) -> None:
    texts = [
        "",
        "\\N",
        "NULL",
        'a "quoted" one',
        "it's",
        "tab\there",
        "two\r\nlines\n",
        "\\.",
        "back\\slash\\t",
        "é😀\u2028",
    ]
    load(raw, NAMES, [(text,) for text in texts])
    assert sorted(name for (name,) in raw.rows("names")) == sorted(texts)


def test_nul_does_not_stop_a_load_into_postgres(postgres_raw: RawData) -> None:
    load(postgres_raw, NAMES, [("a\0b",)])
    assert postgres_raw.rows("names") == [("a\ufffdb",)]


def test_rows_are_appended_over_many_batches(raw: RawData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Warehouse, "batch_rows", 3)
    load(raw, NAMES, [(str(number),) for number in range(10)])
    assert raw.count("names") == 10


def test_delete_select_and_count_take_values_and_lists(raw: RawData) -> None:
    rows = [(number, "even" if number % 2 == 0 else "odd", *EMPTY[2:]) for number in range(6)]
    load(raw, THINGS, rows)
    with open_warehouse(raw.profile, raw.raw_schema) as warehouse, warehouse.loading():
        assert warehouse.delete(THINGS, {"name": "even", "id": [0, 1, 2, 3]}) == 2
        assert sorted(warehouse.select(THINGS, ("id",), {"name": "even"})) == [(4,)]
        assert warehouse.delete(THINGS, {"id": []}) == 0
        assert warehouse.count(THINGS, {}) == 4


def test_replace_takes_a_query_and_keeps_the_old_rows_until_the_end(raw: RawData) -> None:
    load(raw, NAMES, [("old",)])
    with open_warehouse(raw.profile, raw.raw_schema) as warehouse, warehouse.loading():
        assert warehouse.replace(NAMES, "select 'new ' || i as name from range(3) as r (i)") == 3
        warehouse.annotate(NAMES, "it's new")
        assert warehouse.note(NAMES) == "it's new"
    assert raw.rows("names") == [("new 0",), ("new 1",), ("new 2",)]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_inside_a_transaction_leaves_everything_as_it_was(raw: RawData, error: type[BaseException]) -> None:
    load(raw, NAMES, [("old",)])
    warehouse_of = open_warehouse(raw.profile, raw.raw_schema)
    with pytest.raises(error), warehouse_of as warehouse, warehouse.loading():
        warehouse.delete(NAMES, {})
        warehouse.replace(NAMES, "select 'new' as name")
        warehouse.append(NAMES, [("newer",)])
        raise error
    assert raw.rows("names") == [("old",)]


def test_schema_names_are_quoted(raw: RawData) -> None:
    schema = f'{raw.raw_schema} "Größe"; drop'
    with open_warehouse(raw.profile, schema) as warehouse, warehouse.loading():
        warehouse.prepare([NAMES])
        assert warehouse.append(NAMES, [("x",)]) == warehouse.count(NAMES, {"name": "x"}) == 1
    quoted = schema.replace('"', '""')
    assert raw.read(f'select name from "{quoted}".names') == [("x",)]


def test_a_table_with_other_columns_is_refused_and_kept(raw: RawData) -> None:
    load(raw, NAMES, [("theirs",)])
    ours = RawTable("names", (("id", "bigint"), ("name", "varchar")))
    with pytest.raises(ConfigError, match=r"names is there already.*lacks id and has nothing besides"):
        load(raw, ours, [(1, "ours")])
    assert raw.rows("names") == [("theirs",)]


@pytest.mark.parametrize("schema", ["", "a\0b", "100%"])
def test_a_schema_without_a_usable_name_is_refused(schema: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="is no name for a schema"),
        open_warehouse(duckdb_profile(tmp_path), schema),
    ):
        pass


def test_another_warehouse_is_told_which_ones_can_be_loaded() -> None:
    profile = Profile("prod", "tributary", {"type": "redshift"}, {})
    with pytest.raises(ConfigError, match=r"is for duckdb, postgres, snowflake and bigquery") as caught:
        open_once(profile)
    assert "uv run tributary run --target prod" in str(caught.value)


@pytest.mark.parametrize("warehouse", ["snowflake", "bigquery"])
def test_a_client_that_is_missing_is_named_with_the_command_that_installs_it(
    warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a machine where the extra was never installed.
    monkeypatch.setitem(sys.modules, f"dbt.adapters.{warehouse}", None)
    with pytest.raises(ConfigError, match=f"uv sync --extra {warehouse}"):
        open_once(Profile("prod", "tributary", {"type": warehouse}, {}))


def test_a_duckdb_file_that_another_process_holds_is_named_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "held.duckdb"
    hold = f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline()
        with pytest.raises(UpstreamUnavailable, match=rf"{path} is in use: .*process {holder.pid}"):
            open_once(duckdb_profile(path))
        holder.communicate()
    with open_warehouse(duckdb_profile(path)):
        pass


def test_a_file_that_is_no_duckdb_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello " * 1000)
    with pytest.raises(ConfigError, match="is there but is not a DuckDB file"):
        open_once(duckdb_profile(path))
    assert path.read_text() == "hello " * 1000


def test_a_folder_that_cannot_be_made_and_one_in_place_of_the_file_are_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"folder of the DuckDB file .* cannot be made"):
        open_once(duckdb_profile(tmp_path / "file" / "dev.duckdb"))
    with pytest.raises(ConfigError, match=r"cannot be opened .*infrastructure/targets.yml"):
        open_once(duckdb_profile(tmp_path))


@pytest.mark.parametrize("path", [":memory:", "", "md:sales?motherduck_token=s3cret", "s3://bucket/x"])
def test_a_duckdb_target_without_a_file_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="into a DuckDB file only") as caught:
        database_path("dev", {"path": path})
    assert "s3cret" not in str(caught.value)


def test_a_relative_duckdb_path_starts_at_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).resolve().parents[3]
    assert database_path("dev", {"path": "data/dev.duckdb"}) == root / "data" / "dev.duckdb"


def test_a_server_that_does_not_answer_may_be_tried_again() -> None:
    with pytest.raises(UpstreamUnavailable, match=r"postgres on 127.0.0.1:1 does not answer .*refused"):
        open_once(postgres_profile(port=1))


def test_an_unknown_database_and_user_are_configuration_errors(postgres_database: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"nowhere on .* does not exist. Make it .createdb nowhere"):
        open_once(postgres_profile(**{**postgres_database, "dbname": "nowhere"}))
    with pytest.raises(ConfigError, match="does not let user nobody_here in"):
        open_once(postgres_profile(**{**postgres_database, "user": "nobody_here"}))


@pytest.mark.parametrize(
    "text",
    [
        'connection to server at "db", port 5432 failed: FATAL:  password authentication failed for user "u"',
        'connection to server at "db", port 5432 failed: fe_sendauth: no password supplied',
        'connection to server at "localhost" (::1), port 5432 failed: Connection refused\n'
        "\tIs the server running on that host and accepting TCP/IP connections?\n"
        'connection to server at "localhost" failed: FATAL:  password authentication failed for user "u"',
    ],
)
def test_a_wrong_password_is_a_configuration_error_that_does_not_show_it(text: str) -> None:
    options = {"user": "u", "password": "s3cret", "dbname": "d"}
    error = opening_error("pg", "PostgreSQL database d on db:5432", options, Exception(text))
    assert isinstance(error, ConfigError)
    assert "did not accept the password of user u" in str(error)
    assert "uv run tributary setup --target pg" in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("FATAL:  sorry, too many clients already", UpstreamUnavailable, "(sorry, too many clients already)"),
        (
            "FATAL:  remaining connection slots are reserved for superusers",
            UpstreamUnavailable,
            "does not answer",
        ),
        ("FATAL:  the database system is starting up", UpstreamUnavailable, "does not answer"),
        (
            "server does not support SSL, but SSL was required",
            ConfigError,
            "with these settings (server does",
        ),
        (
            'FATAL:  no pg_hba.conf entry for host "10.0.0.2"',
            ConfigError,
            "does not let user u in (no pg_hba.conf",
        ),
    ],
)
def test_what_may_pass_is_told_from_what_must_be_mended(text: str, kind: type[Exception], message: str) -> None:
    exc = Exception(f'connection to server at "db" (10.0.0.1), port 5432 failed: {text}\n')
    error = opening_error("pg", "PostgreSQL database d on db:5432", {"user": "u", "dbname": "d"}, exc)
    assert type(error) is kind
    assert message in str(error)


def test_a_missing_privilege_is_explained(postgres_raw: RawData) -> None:
    import psycopg2

    settings = {
        name: value for name, value in postgres_raw.profile.output.items() if name in ("host", "port", "dbname")
    }
    with closing(psycopg2.connect(**settings, user="postgres")) as connection, connection.cursor() as cursor:
        cursor.execute("create role tributary_test_reader login")
        connection.commit()
        try:
            reader = RawData(postgres_profile(**settings, user="tributary_test_reader"), "new", postgres_raw.read)
            with pytest.raises(ConfigError, match=r"does not allow a statement .permission denied for database"):
                load(reader, NAMES, [("x",)])
        finally:
            cursor.execute("drop role tributary_test_reader")
            connection.commit()


def test_two_loads_into_one_schema_of_postgres_do_not_mix(
    postgres_raw: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warehouse_postgres, "LOCK_TIMEOUT_SECONDS", 1)
    with open_warehouse(postgres_raw.profile, postgres_raw.raw_schema) as one, one.loading():
        one.prepare([NAMES])
        with pytest.raises(UpstreamUnavailable, match="another session held a table for 1 seconds"):
            load(postgres_raw, NAMES, [("two",)])
        one.append(NAMES, [("one",)])
    assert postgres_raw.count("names") == 1


def test_a_connection_that_breaks_is_upstream_and_leaves_the_old_rows(postgres_raw: RawData) -> None:
    load(postgres_raw, NAMES, [("old",)])
    end_all = (
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'tributary' and datname = current_database()"
    )

    def rows_of_a_dying_session() -> Iterator[tuple[str]]:
        yield ("new",)
        assert postgres_raw.read(end_all)

    with pytest.raises(UpstreamUnavailable, match=r"stopped answering .*Nothing was changed. Run again"):
        load(postgres_raw, NAMES, rows_of_a_dying_session())
    assert postgres_raw.rows("names") == [("old",)]


def test_a_missing_client_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ConfigError, match="uv sync --extra postgres"):
        open_once(postgres_profile())
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError, match=r"DuckDB client is not installed. Install it: uv sync"):
        open_once(duckdb_profile(tmp_path / "x.duckdb"))


def test_a_load_imports_only_the_client_of_its_own_warehouse(raw: RawData) -> None:
    program = (
        "import sys\n"
        "from flows.loaders.git.load import ingest_git\n"
        "from flows.loaders.sample_data import write_sample_data\n"
        "from flows.warehouses.raw_tables import RawTable\n"
        "from flows.warehouses.door import open_warehouse\n"
        "assert not {'duckdb', 'psycopg2', 'prefect'} & set(sys.modules), 'imported with the module'\n"
        "from infrastructure.profiles import Profile\n"
        f"profile = Profile('t', 't', {raw.profile.output!r}, {{}})\n"
        f"with open_warehouse(profile, {raw.raw_schema!r}) as warehouse, warehouse.loading():\n"
        "    table = RawTable('names', (('name', 'varchar'),))\n"
        "    warehouse.prepare([table])\n"
        "    warehouse.append(table, [('x',)])\n"
        "print(sorted({'duckdb', 'psycopg2'} & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    client = {"duckdb": "duckdb", "postgres": "psycopg2"}[raw.profile.warehouse]
    assert (done.stdout, done.stderr) == (f"['{client}']\n", "")
