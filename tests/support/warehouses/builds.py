"""A warehouse the project is built on: its raw tables, dbt commands against it, and its rows."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg2

from benchmarks.engines import Engine
from tests.support.engines import run_engine
from tests.support.warehouses.command import run_dbt

HERE = Path(__file__).parent
PROJECT = HERE.parents[2] / "dbt"

# A session far from UTC, which must not show in any row.
FAR_FROM_UTC = {"TZ": "America/New_York", "PGTZ": "America/New_York"}

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Finished:
    """A dbt command that ended, and what it printed."""

    exit_code: int
    output: str
    statuses: dict[str, str]
    """Status by unique id, as in run_results.json; empty for commands that write none."""

    def ids(self, status: str) -> set[str]:
        """Return the nodes that ended so."""
        return {unique_id for unique_id, reached in self.statuses.items() if reached == status}


@dataclass
class Warehouse(ABC):
    """One target in a folder of its own: profile, dbt's artifacts and logs are all in there."""

    folder: Path
    target: str = "dev"
    environment: dict[str, str] = field(default_factory=dict)
    engine: Engine | None = None
    """The dbt that builds it, on a copy of the project; the one of this environment when None."""

    @abstractmethod
    def dbt_output(self) -> dict[str, Any]:
        """Return the connection as dbt's profiles.yml wants it."""

    @abstractmethod
    def query(self, sql: str) -> tuple[list[str], Rows]:
        """Run one statement and return its column names and rows."""

    @abstractmethod
    def execute(self, script: str) -> None:
        """Run a script of statements in one transaction."""

    def server_version(self) -> str:
        """Return what a table of evidence calls the server."""
        return str(self.query("select version()")[1][0][0]).removeprefix("PostgreSQL ").partition(" ")[0]

    def load(self, *names: str) -> None:
        """Run the scripts that are beside this file."""
        for name in names:
            self.execute((HERE / name).read_text(encoding="utf-8"))

    def dbt(self, *command: str) -> Finished:
        """Run one dbt command as a child process, from a folder that is not the project."""
        profile = {"tributary": {"target": self.target, "outputs": {self.target: self.dbt_output()}}}
        # JSON is YAML too.
        (self.folder / "profiles.yml").write_text(json.dumps(profile), encoding="utf-8")
        results = self.folder / "target" / "run_results.json"
        results.unlink(missing_ok=True)
        folders = {"--project-dir": self.project, "--profiles-dir": self.folder}
        folders |= {"--target-path": self.folder / "target", "--log-path": self.folder / "logs"}
        arguments = [str(part) for pair in folders.items() for part in pair]
        if self.engine:
            done = run_engine(self.engine, *command, *arguments, folder=self.folder, environment=self.environment)
            exit_code, output = done.returncode, done.stdout + done.stderr
        else:
            before = ["--no-use-colors", "--log-level-file", "none"]
            exit_code, output = run_dbt([*before, *command, *arguments], self.folder, self.environment)
        statuses: dict[str, str] = {}
        if results.exists():
            found = json.loads(results.read_text(encoding="utf-8"))["results"]
            statuses = {result["unique_id"]: result["status"] for result in found}
        return Finished(exit_code, output, statuses)

    @property
    def project(self) -> Path:
        """Return the project's folder: a copy for another dbt, as dbt 2 writes into it."""
        if self.engine is None:
            return PROJECT
        copy = self.folder / "project"
        if not copy.exists():
            shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns("target", "logs", "profiles.yml"))
        return copy

    def build(self, *options: str, command: str = "build") -> Finished:
        """Run dbt build, or the given command, and expect every node to end well; warnings are well."""
        finished = self.dbt(command, *options)
        assert finished.exit_code == 0, finished.output
        assert finished.statuses, finished.output
        return finished

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of the last command."""
        return json.loads((self.folder / "target" / "manifest.json").read_text(encoding="utf-8"))

    def rows(self, model: str, *columns: str) -> Rows:
        """Return a model's rows, sorted; all columns when none is named."""
        schema = self.manifest()["nodes"][f"model.tributary.{model}"]["schema"]
        wanted = ", ".join(columns) or "*"
        return in_order(self.query(f"select {wanted} from {schema}.{model}")[1])

    def comparable(self, models: Sequence[str]) -> dict[str, tuple[list[str], Rows]]:
        """Return column names and rows of each model, without the columns that hold the time of a run."""
        nodes = self.manifest()["nodes"]
        found: dict[str, tuple[list[str], Rows]] = {}
        for model in models:
            node = nodes[f"model.tributary.{model}"]
            run_time = {name for name, column in node["columns"].items() if column["meta"].get("run_time")}
            names, _ = self.query(f"select * from {node['schema']}.{model} where false")
            kept = [name for name in names if name not in run_time]
            rows = self.query(f"select {', '.join(kept)} from {node['schema']}.{model}")[1]
            found[model] = (kept, in_order(rows))
        return found


@dataclass
class DuckDB(Warehouse):
    """A database file."""

    @property
    def path(self) -> Path:
        return self.folder / "warehouse.duckdb"

    def dbt_output(self) -> dict[str, Any]:
        # Relative, so that a copied folder has the same profile and dbt need not parse the project again.
        return {"type": "duckdb", "path": self.path.name, "schema": "dev", "threads": 2}

    def query(self, sql: str) -> tuple[list[str], Rows]:
        with duckdb.connect(str(self.path)) as connection:
            cursor = connection.execute(sql)
            return [column[0] for column in cursor.description or ()], cursor.fetchall()

    def execute(self, script: str) -> None:
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(f"begin; {script}; commit;")


@dataclass
class PostgreSQL(Warehouse):
    """A database of a server."""

    server: dict[str, Any] = field(default_factory=dict)

    def dbt_output(self) -> dict[str, Any]:
        return {"type": "postgres", **self.server, "schema": "dev", "threads": 4}

    def query(self, sql: str) -> tuple[list[str], Rows]:
        connection = psycopg2.connect(**self.server)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return [column.name for column in cursor.description or ()], cursor.fetchall()
        finally:
            connection.close()

    def execute(self, script: str) -> None:
        connection = psycopg2.connect(**self.server)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(script)
        finally:
            connection.close()


def in_order(rows: Rows) -> Rows:
    """Sort rows by what they print as, so that null has a place too."""
    return sorted(rows, key=repr)
