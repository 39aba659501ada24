"""What goes wrong between dbt and a warehouse, made to go wrong: settings, keys, connections."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from tests.models.warehouses import Warehouse


def wrong_settings(warehouse: Warehouse) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield outputs that cannot work, each with its fault."""
    output = warehouse.dbt_output()
    # The port "discard", on which nothing listens.
    if output["type"] == "snowflake":
        yield "wrong password", output | {"password": "wrong"}
        yield "missing role", output | {"role": "NO_SUCH_ROLE"}
        yield "unreachable host", output | {"port": 9}
        return
    with token_server() as token_uri:
        key = {"type": "service_account", "client_email": "builder@demo-project.example", "token_uri": token_uri}
        key["private_key"] = _private_key()
        yield "expired key", output | {"method": "service-account-json", "keyfile_json": key}
    yield "unreachable host", output | {"api_endpoint": "http://127.0.0.1:9"}


def _private_key() -> str:
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def token_server() -> Iterator[str]:
    """Answer as Google does when a key has been deleted or has expired; yields the address for `token_uri`."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}).encode()
            self.send_response(400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()


@contextmanager
def cutting_proxy(warehouse: Warehouse) -> Iterator[tuple[dict[str, Any], Callable[[], None]]]:
    """Stand between dbt and its warehouse, and cut every connection once a model's statement comes by.

    Yields the output that leads here, and a function that mends the line. A client that gives up on its own account
    is not kept from doing so: a cut line refuses nobody for longer than one connection each.
    """
    output = warehouse.dbt_output()
    is_snowflake = output["type"] == "snowflake"
    port = output["port"] if is_snowflake else urlsplit(output["api_endpoint"]).port
    proxy = _Proxy(port)
    threading.Thread(target=proxy.serve, daemon=True).start()
    here = {"port": proxy.port} if is_snowflake else {"api_endpoint": f"http://127.0.0.1:{proxy.port}"}
    try:
        yield output | here, proxy.mend
    finally:
        proxy.close()
        assert proxy.cuts, "no connection was cut"


class _Proxy:
    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._connections = 0
        self._is_mended = False
        self.cuts = 0

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._connections += 1
                threading.Thread(target=self._serve_one, args=(client,), daemon=True).start()

    def mend(self) -> None:
        self._is_mended = True

    def close(self) -> None:
        self._listening.close()

    def _serve_one(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()
            requests = 0
            with suppress(OSError):
                while data := client.recv(65536):
                    requests += data.startswith((b"POST", b"GET"))
                    # The first requests are the sign-in and dbt's look at what is there.
                    if not self._is_mended and requests > 4 and not self.cuts:
                        self.cuts += 1
                        return
                    server.sendall(data)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
