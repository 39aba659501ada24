"""Settings that cannot work, and keys that do: what `setup_profiles --check` is tried with."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.warehouses.builds import Warehouse
from tests.support.warehouses.servers import PASSPHRASE, private_key
from tests.warehouses.faults import Fault, faulty_line

_EXPIRED = {
    "code": 401,
    "message": "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
    "valid authentication credential.",
    "errors": [{"reason": "authError", "message": "Invalid Credentials", "domain": "global"}],
}

_INVALID_KEY = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
_REVOKED = {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}


def settings_to_check(warehouse: Warehouse) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield outputs, each with its fault, and after them some that are right."""
    output = warehouse.dbt_output()
    if output["type"] == "snowflake":
        yield from _snowflake(output)
    else:
        yield from _bigquery(output)


def _snowflake(output: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    without = {key: value for key, value in output.items() if key != "password"}
    yield "wrong password", output | {"password": "wrong"}
    yield "key pair of somebody else", without | {"private_key": private_key()}
    yield "expired token", without | {"authenticator": "oauth", "token": "expired"}
    yield "missing role", output | {"role": "NO_SUCH_ROLE"}
    yield "missing warehouse", output | {"warehouse": "NO_SUCH_WAREHOUSE"}
    yield "missing database", output | {"database": "NO_SUCH_DATABASE"}
    # The port "discard", on which nothing listens.
    yield "unreachable host", output | {"port": 9}
    yield "unknown host", output | {"host": "no-such-account.invalid"}
    encrypted = private_key(of_user=True, passphrase=PASSPHRASE)
    yield "encrypted key pair", without | {"private_key": encrypted, "private_key_passphrase": PASSPHRASE}


def _bigquery(output: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    with token_server(400, _INVALID_KEY) as token_uri:
        key = {"type": "service_account", "client_email": "builder@demo-project.example", "token_uri": token_uri}
        key["private_key"] = private_key()
        yield "expired key", output | {"method": "service-account-json", "keyfile_json": key}
    refreshed = {key: value for key, value in output.items() if key != "token"}
    refreshed |= {"refresh_token": "4711", "client_id": "tributary", "client_secret": "0815"}
    with token_server(400, _REVOKED) as token_uri:
        yield "revoked refresh token", refreshed | {"token_uri": token_uri}
    with faulty_line(output) as (here, line):
        line.everything = Fault(401, {"error": _EXPIRED})
        yield "expired token", here
    yield "wrong region", output | {"location": "EU"}
    yield "missing dataset", output | {"schema": "nowhere"}
    yield "unreachable host", output | {"api_endpoint": "http://127.0.0.1:9"}
    yield "unknown host", output | {"api_endpoint": "http://no-such-endpoint.invalid"}
    yield "access token", output
    with token_server(200, {"access_token": "4711", "expires_in": 3600, "token_type": "Bearer"}) as token_uri:
        yield "refresh token", refreshed | {"token_uri": token_uri}


@contextmanager
def token_server(status: int, answer: dict[str, Any]) -> Iterator[str]:
    """Answer as Google does where tokens are asked for; yields the address for `token_uri`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
