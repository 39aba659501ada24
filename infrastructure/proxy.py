"""The proxy that the environment names for requests, said beside every request that came to nothing through it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import proxy_bypass


def through_proxy(url: object) -> str:
    """Say which variable sent a request through a proxy, and the way around it, as a sentence after a space.

    Returns "" where no proxy was asked. What signs in at the proxy is left out.

    Args:
        url: what was asked for.
    """
    try:
        asked = urlsplit(str(url))
    except ValueError:
        return ""  # An address that is none, of which the caller says so.
    # Of two spellings the one in small letters counts, and of two variables the one of the protocol.
    names = [spelt for name in (f"{asked.scheme}_proxy", "all_proxy") for spelt in (name, name.upper())]
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None or not asked.hostname or proxy_bypass(asked.hostname):
        return ""
    value = os.environ[name]
    proxy = urlsplit(value if "://" in value else f"http://{value}")
    where = f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}"
    past = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    return (
        f" {name} sends this through the proxy {where}: look whether that runs, or ask without it: "
        f"NO_PROXY={f'{past},' if past else ''}{asked.hostname}."
    )
