"""Check whether the database that Airbyte reads from answers and accepts the login; read nothing from it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

VARIABLE = "TRIBUTARY_SOURCE_DATABASE_URL"
_SECONDS = 5.0
_PORTS = {"postgres": 5432, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


@dataclass(frozen=True)
class Reachable:
    """The result of an attempt to reach a database.

    Attributes:
        place: host and port; the address itself holds a password.
        checked: "login" where signing in was checked, "connection" where only the port was.
        error: why it does not answer; None where it does.
    """

    place: str
    checked: str
    error: str | None = None

    def __str__(self) -> str:
        if self.error:
            return f"the source database at {self.place} does not answer: {self.error}"
        return f"the source database at {self.place} answers ({self.checked})"


def check_source_database(environ: Mapping[str, str]) -> Reachable | None:
    """Try to reach the database of TRIBUTARY_SOURCE_DATABASE_URL; None where it is not set.

    For PostgreSQL with an installed client the login is checked; for others only the port.
    """
    text = environ.get(VARIABLE)
    if not text:
        return None
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port or _PORTS.get(url.scheme.partition("+")[0], 0)
    except ValueError:
        host, port, url = "", 0, urlsplit("")
    if not host or not port:
        return Reachable(
            "nowhere", "address", f"{VARIABLE} is not an address such as postgresql://user:password@host:5432/name"
        )
    place = f"{host}:{port}"
    try:
        socket.create_connection((host, port), timeout=_SECONDS).close()
    except OSError as exc:
        return Reachable(place, "connection", exc.strerror or str(exc) or type(exc).__name__)
    if not url.scheme.startswith("postgres"):
        return Reachable(place, "connection")
    try:
        import psycopg2
    except ImportError:
        return Reachable(place, "connection")
    try:
        psycopg2.connect(
            host=host,
            port=port,
            user=unquote(url.username or ""),
            password=unquote(url.password or ""),
            dbname=url.path.lstrip("/") or "postgres",
            connect_timeout=int(_SECONDS),
        ).close()
    except psycopg2.OperationalError as exc:
        # The last line says why; none of them has the password.
        said = str(exc).strip().splitlines()
        return Reachable(place, "login", said[-1].strip() if said else "the login was refused")
    return Reachable(place, "login")
