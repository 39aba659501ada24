"""Check within seconds whether a warehouse's host answers, as its client would try for minutes."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from infrastructure.errors import UpstreamUnavailable
from infrastructure.targets.warehouses import WAREHOUSES
from infrastructure.workspace import targets_file

CONNECT_SECONDS = 10.0
_BIGQUERY = "https://bigquery.googleapis.com"
_HOST = re.compile(r"[\w.-]+")
_SETTINGS = {"snowflake": "`account`, `host` or `port`", "bigquery": "`api_endpoint`"}


def address_of(output: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return host and port of an output's warehouse; None where it has none, or its driver reports an absent host."""
    if output["type"] == "bigquery":
        endpoint = str(output.get("api_endpoint") or _BIGQUERY)
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        return (parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)) if parts.hostname else None
    if output["type"] == "snowflake":
        host = output.get("host") or _snowflake_host(str(output["account"]))
        return str(host), int(output.get("port") or (80 if output.get("protocol") == "http" else 443))
    if output["type"] in WAREHOUSES:
        return None
    # Drivers of other adapters may try for minutes, and dbt-spark's then says no more than "Database Error".
    host, port = output.get("host") or output.get("server"), output.get("port")
    is_known = isinstance(host, str) and isinstance(port, int) and _HOST.fullmatch(host)
    return (str(host), int(str(port))) if is_known else None


def why_unreachable(output: Mapping[str, Any], timeout_seconds: float = CONNECT_SECONDS) -> tuple[str, str] | None:
    """Return why a warehouse's host can't be reached, and what to do; None where it can, or where a proxy is used."""
    address = address_of(output)
    if address is None or _goes_through_proxy(output, address[0]):
        return None
    host, port = address
    named = _SETTINGS.get(output["type"], "`host` or `port`")
    settings = f"correct {named} of this target in {targets_file()}, then run setup again"
    try:
        socket.create_connection(address, timeout=timeout_seconds).close()
    except socket.gaierror:
        return f"there is no host {host}", f"Check that this machine has a network, or {settings}."
    except ConnectionRefusedError:
        return f"nothing listens at {host}:{port}", f"Start the server, or {settings}."
    except OSError:
        cause = f"{host}:{port} does not answer"
        return cause, f"Check for a firewall or VPN in between, or {settings}."
    return None


def require_reachable(target: str, output: Mapping[str, Any]) -> None:
    """Raise an error if a warehouse's host does not answer, before its client tries for minutes.

    Raises:
        UpstreamUnavailable: it does not; says why, and what to do.
    """
    if unreachable := why_unreachable(output):
        raise UpstreamUnavailable(f"Target {target}: {unreachable[0]}. {unreachable[1]}")


def _snowflake_host(account: str) -> str:
    # As Snowflake's connector derives it from the account's name.
    account = account.replace("_", "-").removesuffix(".us-west-2")
    return f"{account}.snowflakecomputing.{'cn' if '.cn-' in account else 'com'}"


def _goes_through_proxy(output: Mapping[str, Any], host: str) -> bool:
    scheme = "http" if "http" in (output.get("protocol"), urlsplit(str(output.get("api_endpoint"))).scheme) else "https"
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
