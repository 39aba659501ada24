"""Warehouses that the project is built on, each with a journey that tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from benchmarks.databases import database_of_its_own
from benchmarks.engines import Engine
from tests.models.journey import Journey
from tests.support.engines import engine_or_skip
from tests.support.warehouses.builds import FAR_FROM_UTC, DuckDB, Finished, PostgreSQL


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[DuckDB, Finished]:
    """The project parsed with every warning as an error, and a folder with the manifest."""
    folder = DuckDB(tmp_path_factory.mktemp("parsed"), environment=FAR_FROM_UTC)
    return folder, folder.dbt("--warn-error", "parse", "--show-all-deprecations")


@pytest.fixture(scope="session")
def postgres_journey(postgres_database: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    with database_of_its_own(postgres_database) as server:
        folder = tmp_path_factory.mktemp("postgres")
        with Journey(PostgreSQL(folder, environment=FAR_FROM_UTC, server=server)) as under_way:
            yield under_way


@pytest.fixture(scope="session")
def duckdb_journey(
    request: pytest.FixtureRequest, parsed: tuple[DuckDB, Finished], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Journey]:
    # Both set out together, where there is a server to set out on.
    with suppress(pytest.skip.Exception):
        request.getfixturevalue("postgres_journey")
    folder = tmp_path_factory.mktemp("duckdb")
    shutil.copytree(parsed[0].folder, folder, dirs_exist_ok=True)
    with Journey(DuckDB(folder, environment=FAR_FROM_UTC)) as under_way:
        yield under_way


# The quickest of them is compared each time; the other takes as long as all the rest.
ENGINES = ["2", pytest.param("1.11", marks=pytest.mark.slow)]


@pytest.fixture(scope="session", params=ENGINES)
def other_dbt(request: pytest.FixtureRequest) -> Engine:
    """Another dbt than the one of this environment."""
    return engine_or_skip(request.param)


@pytest.fixture(params=["duckdb", "postgres"])
def journey(request: pytest.FixtureRequest) -> Journey:
    """The journey of each warehouse in turn."""
    return request.getfixturevalue(f"{request.param}_journey")
