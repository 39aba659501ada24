"""Warehouses to load into: a DuckDB file in a temporary folder, and a schema of its own in PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infrastructure.profiles import Profile
from tests.support.raw_data import RawData, duckdb_raw_in


@pytest.fixture
def duckdb_raw(tmp_path: Path) -> RawData:
    """Return a DuckDB file to load into."""
    return duckdb_raw_in(tmp_path)


@pytest.fixture
def postgres_raw(postgres_database: dict[str, Any]) -> Iterator[RawData]:
    """Return a schema in a PostgreSQL database to load into."""
    import psycopg2

    schema = f"raw_{uuid4().hex[:8]}"

    def read(query: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(**postgres_database)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    output = {"type": "postgres", "schema": "analytics", "threads": 4, **postgres_database}
    yield RawData(Profile("postgres", "tributary", output, {}), schema, read)
    with closing(psycopg2.connect(**postgres_database)) as connection, connection.cursor() as cursor:
        cursor.execute(f"drop schema if exists {schema} cascade")
        connection.commit()


@pytest.fixture(params=["duckdb", "postgres"])
def raw(request: pytest.FixtureRequest) -> RawData:
    """Return each warehouse in turn."""
    return request.getfixturevalue(f"{request.param}_raw")


@pytest.fixture
def settled_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep git from this machine's settings and from its user's cache."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
