"""Where dbt Cloud is and how to sign in, from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from infrastructure.errors import ConfigError

DEFAULT_HOST = "https://cloud.getdbt.com"

# The first name is the documented one; the others are those of dbt-jobs-as-code.
TOKEN_NAMES = ("DBTCLOUD_TOKEN", "DBT_API_KEY")
HOST_NAMES = ("DBTCLOUD_HOST_URL", "DBT_BASE_URL")
ACCOUNT_NAMES = ("DBTCLOUD_ACCOUNT_ID", "DBT_ACCOUNT_ID")
RATE_NAME = "DBTCLOUD_REQUESTS_PER_MINUTE"

# dbt Cloud allows 5,000 a minute per account, and refuses all requests for five minutes when that is exceeded.
ACCOUNT_LIMIT_PER_MINUTE = 5000
REQUESTS_PER_MINUTE = 4000


@dataclass(frozen=True)
class CloudSettings:
    """How to reach one dbt Cloud account.

    Attributes:
        host: address without a path or a slash at the end.
        requests_per_minute: this process' share of the account's limit.
        cooldown_seconds: how long to pause after the limit was exceeded, where dbt Cloud sends no Retry-After.
        timeout_seconds: how long one answer may take.
        poll_seconds: between the first two polls of a run; later ones are further apart.
        attempts: how often a repeatable request is sent at most.
    """

    account_id: int
    token: str = field(repr=False)
    host: str = DEFAULT_HOST
    requests_per_minute: float = REQUESTS_PER_MINUTE
    cooldown_seconds: float = 300.0
    timeout_seconds: float = 30.0
    attempts: int = 5
    backoff_seconds: float = 1.0
    poll_seconds: float = 1.0


def settings_from(
    environ: Mapping[str, str], *, account_id: int | None = None, token: str | None = None
) -> CloudSettings:
    """Read the settings of the account; arguments take precedence over the environment.

    Raises:
        ConfigError: lists every setting that is missing or malformed.
    """
    wrong: list[str] = []
    account_text = str(account_id) if account_id is not None else _first(environ, ACCOUNT_NAMES)
    if not account_text:
        wrong.append(f"{ACCOUNT_NAMES[0]} is not set: the number after /accounts/ in dbt Cloud's address")
    elif not account_text.isdigit():
        wrong.append(f"{ACCOUNT_NAMES[0]} has to be a number, not {account_text!r}")
    secret = token or _first(environ, TOKEN_NAMES)
    if not secret:
        wrong.append(f"{TOKEN_NAMES[0]} is not set: a service token that may write jobs")
    elif not secret.isascii() or any(letter.isspace() for letter in secret):
        wrong.append(
            f"{TOKEN_NAMES[0]} contains a space or a character that no token has; check that it was copied whole"
        )
    host = (_first(environ, HOST_NAMES) or DEFAULT_HOST).rstrip("/")
    parts = urlsplit(host)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.path:
        wrong.append(f"{HOST_NAMES[0]} has to be an address such as {DEFAULT_HOST}, not {host!r}")
    elif parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        wrong.append(f"{HOST_NAMES[0]} is {host!r}: the token would cross the network unencrypted; use https")
    rate_text = environ.get(RATE_NAME) or str(REQUESTS_PER_MINUTE)
    if not rate_text.isdigit() or int(rate_text) == 0:
        wrong.append(f"{RATE_NAME} has to be a number above 0, not {rate_text!r}")
    if wrong:
        raise ConfigError("dbt Cloud can't be reached with these settings:\n" + "\n".join(f"  {it}" for it in wrong))
    assert secret
    assert account_text
    return CloudSettings(int(account_text), secret, host, float(rate_text))


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)
