"""Throw-away databases of a PostgreSQL server, for benchmarks and tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import psycopg2.extensions


def usual_server() -> dict[str, Any]:
    """Return the server that PGHOST, PGPORT, PGUSER and PGPASSWORD name; without them the usual one of this machine."""
    return {
        "host": os.environ.get("PGHOST", "127.0.0.1"),
        "port": int(os.environ.get("PGPORT", "5432")),
        "user": os.environ.get("PGUSER", "postgres"),
        "password": os.environ.get("PGPASSWORD", ""),
        "dbname": "postgres",
    }


def server_at(url: str = "") -> dict[str, Any]:
    """Return the server of a URL such as postgresql://user:password@host:5432/postgres; what it leaves out is usual."""
    from psycopg2.extensions import parse_dsn

    address: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 5432,
        "user": "postgres",
        "password": "",
        "dbname": "postgres",
    }
    address |= parse_dsn(url)
    return {**address, "port": int(address["port"])}


@contextmanager
def cursor_at(address: Mapping[str, Any]) -> Iterator[psycopg2.extensions.cursor]:
    """Yield a cursor of a connection of its own, each of whose statements is a transaction."""
    import psycopg2

    with closing(psycopg2.connect(**address)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


@contextmanager
def database_of_its_own(server: dict[str, Any], kind: str = "test") -> Iterator[dict[str, Any]]:
    """Create a database on a server and yield its address; drop it afterwards, whoever is still connected.

    Raises:
        psycopg2.OperationalError: the server does not answer.
    """
    name = f"tributary_{kind}_{uuid4().hex[:12]}"
    address: dict[str, Any] = {"connect_timeout": 5, **server}
    with cursor_at(address) as cursor:
        cursor.execute(f"create database {name}")
        try:
            yield {**server, "dbname": name}
        finally:
            cursor.execute(f"drop database if exists {name} with (force)")
