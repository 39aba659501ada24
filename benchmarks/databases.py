"""Throw-away databases of a PostgreSQL server, for benchmarks and tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4


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
def database_of_its_own(server: dict[str, Any], kind: str = "test") -> Iterator[dict[str, Any]]:
    """Create a database on a server and yield its address; drop it afterwards, whoever is still connected.

    Raises:
        psycopg2.OperationalError: the server does not answer.
    """
    import psycopg2

    name = f"tributary_{kind}_{uuid4().hex[:12]}"
    address: dict[str, Any] = {"connect_timeout": 5, **server}
    with closing(psycopg2.connect(**address)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"create database {name}")
            try:
                yield {**server, "dbname": name}
            finally:
                cursor.execute(f"drop database if exists {name} with (force)")
