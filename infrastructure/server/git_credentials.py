"""What a git repository is signed in to with, from a Prefect block, as Prefect's own `git_clone` step takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from infrastructure.errors import ConfigError
from infrastructure.git.checkout import SignIn
from infrastructure.yaml_file import meant


def read_sign_in(block: str, address: str, who: str) -> SignIn:
    """Return the sign-in that a block holds: a Secret, or credentials of GitHub, GitLab, Bitbucket and the like.

    Args:
        block: as TYPE/NAME.
        who: needs it, for errors.

    Raises:
        ConfigError: there is no such block, or it has no token.
        UpstreamUnavailable: the Prefect server does not answer.
    """
    from infrastructure.server.client import connect

    type_slug, name = block.split("/", 1)
    with connect() as server:
        saved = server.read_block(type_slug, name)
        if saved is None:
            names = server.block_names(type_slug)
            there = f"it has {', '.join(names)}{meant(name, names)}" if names else "it has none of that type"
            raise ConfigError(f"{who} signs in with block {block}, which is not on the Prefect server; {there}.")
    found = sign_in_of(saved.data, address)
    if found is None:
        raise ConfigError(f"{who} signs in with block {block}, which has no token, access_token, password or value.")
    return found


def sign_in_of(data: Mapping[str, Any], address: str) -> SignIn | None:
    """Return the sign-in in the content of a block; None where there is none."""
    token = next((str(data[key]) for key in ("access_token", "token", "password", "value") if data.get(key)), None)
    if token is None:
        return None
    if data.get("username"):
        return SignIn(token, str(data["username"]))
    host = urlsplit(address).hostname or ""
    of_host = next((name for part, name in _OF_HOSTS.items() if part in host), None)
    if of_host and ":" in token:
        # As these hosts write it where a token goes with a name of its own.
        username, _, token = token.partition(":")
        return SignIn(token, username)
    return SignIn(token, of_host) if of_host else SignIn(token)


# The name that goes with a token, where the host asks for one.
_OF_HOSTS = {"gitlab": "oauth2", "bitbucket": "x-token-auth"}
