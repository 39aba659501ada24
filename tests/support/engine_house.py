"""A project of its own on a DuckDB file, and the dbt that builds it: what every dbt is tested with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from infrastructure.errors import DbtRunFailed
from infrastructure.profiles import Profile
from infrastructure.program import Program, find_program
from tests.support.engine_table import SEEN, column_of

SECRET = "p/ss wörd+with=signs&42"


@dataclass(frozen=True)
class House:
    """A project of its own, a DuckDB file, and the dbt that builds it.

    Attributes:
        name: of the dbt.
        dbt: its program; None for the one of this environment.
    """

    folder: Path
    name: str
    dbt: str | None

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def program(self) -> Program:
        return find_program(self.dbt)

    def write(self, name: str, text: str) -> Path:
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(
        self,
        verb: str = "build",
        sleep: Callable[[float], None] = lambda _: None,
        options: RunOptions | None = None,
        **command: object,
    ) -> DbtResult:
        output = {"type": "duckdb", "path": str(self.folder / "w.duckdb"), "schema": "main", "threads": 2}
        profile = Profile("dev", "outcomes", output, {"DBT_ENV_SECRET_KEY": SECRET}, dbt=self.dbt)
        return run_dbt(
            DbtCommand(verb, **command),  # pyright: ignore[reportArgumentType]
            RunContext(read_project(self.project), profile),
            options,
            retries=Retries(limit=1, sleep=sleep),
        )

    def failed(self, verb: str = "build", options: RunOptions | None = None, **command: object) -> DbtRunFailed:
        with pytest.raises(DbtRunFailed) as caught:
            self.run(verb, options=options, **command)
        return caught.value

    def value(self, sql: str) -> object:
        with duckdb.connect(str(self.folder / "w.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()[0][0]

    def shows(self, row: str, what: str = "yes") -> None:
        """Write down what was seen of this dbt, for the table in docs/dbt-versions.md."""
        SEEN[column_of(self.program)][row] = what
