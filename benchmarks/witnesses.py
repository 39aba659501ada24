"""Warehouses that say themselves which models of a project ran, and how often: each writes it down as it runs.

The line is written in the model's own transaction, so it is there if the model's rows are. Every other model only adds
rows, so that one which ran twice holds its rows twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.databases import cursor_at

if TYPE_CHECKING:
    pass

# Models that stand beside each other; each stands on the one a row above it.
WIDTH = 6


class Witness(Protocol):
    """The place that one project is built in.

    Attributes:
        rows: what each model has when it ran once.
        settings: its target, as targets.yml takes it.
    """

    rows: int
    settings: dict[str, Any]

    def source(self, number: int) -> str:
        """Return what the first models read, which takes a while."""
        ...

    def fresh(self) -> None:
        """Throw away whatever was built."""
        ...

    def is_still(self) -> bool:
        """Say whether nobody's statement is under way any more."""
        ...

    def ran(self) -> dict[str, int]:
        """Return how often each model was committed."""
        ...

    def counted(self) -> dict[str, int]:
        """Return how many rows each table has."""
        ...


class DuckDBFile:
    """A file, which one process at a time can look into."""

    rows = 20_000

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self.settings: dict[str, Any] = {
            "warehouse": "duckdb",
            "path": str(path),
            "schema": "main",
            "threads": threads,
        }

    def source(self, number: int) -> str:
        return f"(select id from range({self.rows}) as made(id) order by md5(id::varchar))"

    def fresh(self) -> None:
        import duckdb

        for path in (self._path, self._path.with_suffix(".duckdb.wal")):
            path.unlink(missing_ok=True)
        with duckdb.connect(str(self._path)) as connection:
            connection.execute("create table main.witness (name varchar)")

    def is_still(self) -> bool:
        return True

    def ran(self) -> dict[str, int]:
        return dict(self._ask("select name, count(*) from main.witness group by name"))

    def counted(self) -> dict[str, int]:
        tables = self._ask("select table_name from duckdb_tables() where table_name <> 'witness'")
        return {name: self._ask(f"select count(*) from main.{name}")[0][0] for (name,) in tables}

    def _ask(self, query: str) -> list[Any]:
        import duckdb

        with duckdb.connect(str(self._path), read_only=True) as connection:
            return connection.execute(query).fetchall()


class PostgresSchema:
    """A schema of a database that other projects are built in at the same time.

    A model's insert waits in the server, so that what is killed is nearly always in the middle of some.
    """

    rows = 1_000

    def __init__(self, address: dict[str, Any], schema: str, threads: int) -> None:
        self._address, self._schema = address, schema
        self.settings: dict[str, Any] = {
            "warehouse": "postgres",
            **{name: address[name] for name in ("host", "port", "user", "dbname")},
            "password_env": "RECOVERY_PASSWORD",
            "schema": schema,
            "threads": threads,
        }

    def source(self, number: int) -> str:
        seconds = 0.2 + number * 37 % 10 / 10
        return f"(select id from generate_series(1, {self.rows}) as made(id), pg_sleep({seconds}))"

    def fresh(self) -> None:
        with cursor_at(self._address) as cursor:
            cursor.execute(f"drop schema if exists {self._schema} cascade")
            cursor.execute(f"create schema {self._schema} create table witness (name text)")

    def is_still(self) -> bool:
        """Say so when no connection of a dbt is left: what a killed one had begun is rolled back by then."""
        with cursor_at(self._address) as cursor:
            cursor.execute(
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid() and query like %s",
                [f"%{self._schema}%"],
            )
            return cursor.fetchone() == (0,)

    def ran(self) -> dict[str, int]:
        with cursor_at(self._address) as cursor:
            cursor.execute(f"select name, count(*) from {self._schema}.witness group by name")
            return dict(cursor.fetchall())

    def counted(self) -> dict[str, int]:
        with cursor_at(self._address) as cursor:
            cursor.execute("select tablename from pg_tables where schemaname = %s", [self._schema])
            names = [name for (name,) in cursor.fetchall() if name != "witness"]
            if not names:
                return {}
            each = (f"select '{name}', count(*) from {self._schema}.{name}" for name in names)
            cursor.execute(" union all ".join(each))
            return dict(cursor.fetchall())


def write_witnessed_project(folder: Path, models: int, witness: Witness) -> Path:
    """Write a dbt project of so many models for a witness, and return its folder."""
    project = folder / "project"
    (project / "models").mkdir(parents=True)
    schema = witness.settings["schema"]
    (project / "dbt_project.yml").write_text(
        "name: bench\nversion: '1.0'\nprofile: bench\nflags: {send_anonymous_usage_stats: false}\n"
        "models:\n  bench:\n    +materialized: table\n"
        f"    +pre-hook: \"insert into {schema}.witness values ('{{{{ this.name }}}}')\"\n"
    )
    for number in range(models):
        stands_on = f"\n-- depends on: {{{{ ref('model_{number - WIDTH}') }}}}" if number >= WIDTH else ""
        adds = "{{ config(materialized='incremental', incremental_strategy='append') }}\n" if number % 2 else ""
        sql = f"{adds}select id from {witness.source(number)} as source{stands_on}\n"
        (project / "models" / f"model_{number}.sql").write_text(sql)
    return project
