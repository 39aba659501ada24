"""Blocks that people made by hand with Prefect's libraries, read as dbt's settings, and mended where a person asks.

Pure, but for the function that reads a block, which callers give.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from infrastructure.blocks.documents import PROFILE_TYPE, SOURCES_KEY, BlockDocument, Reference, SavedDocument
from infrastructure.errors import ConfigError
from infrastructure.targets.outputs import KEYFILE_SECRETS, SECRET_PREFIX, env_var, is_env_var
from infrastructure.targets.secret_names import ADDRESS_WITH_PASSWORD, PRIVATE_KEY, is_secret_name
from infrastructure.targets.warehouses import CREDENTIALS_TYPES

# Returns a block, and raises a ConfigError where there is none.
Read = Callable[[Reference], SavedDocument]

# dbt's settings that prefect-dbt takes from the blocks inside a profile, by the name of the field.
_SNOWFLAKE = ("account", "user", "role", "password", "token", "private_key", "private_key_path")
_SNOWFLAKE_MORE = ("private_key_passphrase", "workload_identity_provider")
_POSTGRES = {"host": "host", "port": "port", "username": "user", "password": "password", "database": "dbname"}
_POSTGRES_MORE = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "connect_timeout",
    "application_name",
    "keepalives_idle",
)
_NOT_DBTS = {"block_type_slug", "extras", "allow_field_overrides", "connector", "credentials", "schema_"}


@dataclass(frozen=True)
class GivenOutput:
    """The output of profiles.yml that a block of one's own stands for.

    Attributes:
        settings: each secret as `{{ env_var('DBT_ENV_SECRET_…') }}`.
        secrets: the value of each of those variables.
        sources: the places of secrets that the block names in place of holding them.
    """

    settings: dict[str, Any]
    secrets: dict[str, str] = field(repr=False)
    sources: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Mended:
    """A block that holds no secret in clear any more, and the Secret blocks to save before it."""

    data: dict[str, Any] = field(repr=False)
    secrets: list[BlockDocument]


def given_output(target: str, block: Reference, own: Mapping[str, Any], read: Read) -> GivenOutput:
    """Return what dbt needs of a block.

    Args:
        own: the settings that targets.yml gives, which come before those of the block.

    Raises:
        ConfigError: it or a block that it refers to is missing, or is not what the target needs.
    """
    data = read(block).data
    sources: dict[str, str] = {}
    if block.type_slug == PROFILE_TYPE:
        found = _of_profile(block, data, read)
        sources = cast(dict[str, str], found.pop(SOURCES_KEY, {}))
    else:
        found = _of_credentials(block, data)
    settings = found | {name: value for name, value in own.items() if value}
    secrets: dict[str, str] = {}

    def keep(path: str, value: str) -> str:
        variable = SECRET_PREFIX + re.sub(r"[^A-Z0-9]", "_", f"{target}_{path}".upper())
        secrets[variable] = value
        return env_var(variable)

    return GivenOutput(cast(dict[str, Any], _without_secrets(settings, "", keep)), secrets, sources)


def mended(block: Reference, data: Mapping[str, Any], configs: Mapping[str, Any]) -> Mended:
    """Return a block without its secrets, which it looks up in Secret blocks of their own instead.

    Args:
        configs: dbt's target configs in the block: a part of its content, or all of it.
    """
    secrets: list[BlockDocument] = []
    sources: dict[str, str] = {}

    def keep(path: str, value: str) -> str:
        *_, setting = path.split(".")
        secret = BlockDocument(
            "secret", f"{block.name}-{re.sub(r'[^a-z0-9]+', '-', setting.lower())}", {"value": value}
        )
        variable = SECRET_PREFIX + re.sub(r"[^A-Z0-9]", "_", secret.name.upper())
        secrets.append(secret)
        sources[variable] = f"{secret.slug}#value"
        return env_var(variable)

    new = cast(dict[str, Any], _without_secrets(dict(configs), "", keep))
    extras = cast(dict[str, Any], new.get("extras") or {})
    known = cast(dict[str, str], extras.get(SOURCES_KEY) or {})
    new["extras"] = extras | {SOURCES_KEY: known | sources}
    return Mended(new if configs is data else {**data, "target_configs": new}, secrets)


def secrets_in_clear(shown: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the paths of secrets in a block as every reader of Prefect's API is shown it."""
    return [path for path, value in _secrets(shown, prefix) if not re.fullmatch(r"\*+", value)]


def _secrets(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the value of each secret."""
    if isinstance(value, dict):
        for name, inner in cast(dict[str, Any], value).items():
            if name != SOURCES_KEY:
                yield from _secrets(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, str) and _is_secret(path, value):
        yield path, value


def _is_secret(path: str, value: str) -> bool:
    if not value or is_env_var(value):
        return False
    *within, name = path.split(".")
    if within and within[-1] in ("keyfile_json", "service_account_info"):
        return name in KEYFILE_SECRETS
    return is_secret_name(name) or PRIVATE_KEY in value or ADDRESS_WITH_PASSWORD.search(value) is not None


def _without_secrets(value: object, path: str, keep: Callable[[str, str], str]) -> object:
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return {name: _without_secrets(inner, f"{path}.{name}" if path else name, keep) for name, inner in items}
    return keep(path, value) if isinstance(value, str) and _is_secret(path, value) else value


def _of_profile(block: Reference, data: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """Return dbt's output as prefect-dbt makes it of a profile block, also of what it refers to."""
    configs = _followed(data.get("target_configs"), read)
    if not configs.get("type"):
        raise ConfigError(f"{block} does not say the `type` of its warehouse: {_mend(block)}")
    plain = {name: value for name, value in configs.items() if name not in _NOT_DBTS and value is not None}
    schema = configs.get("schema") or configs.get("schema_")
    extras = cast(dict[str, Any], configs.get("extras") or {})
    within: dict[str, Any] = {}
    if connector := _followed(configs.get("connector"), read):
        places = {name: connector.get(name) for name in ("database", "warehouse")}
        schema = schema or connector.get("schema") or connector.get("schema_")
        credentials = _followed(connector.get("credentials"), read)
        within = _filled(places) | _of_type("snowflake", block, credentials)
    elif "credentials" in configs:
        within = _of_type(configs["type"], block, _followed(configs["credentials"], read))
    return within | _filled({"schema": schema}) | plain | extras


def _followed(value: object, read: Read) -> dict[str, Any]:
    if isinstance(value, Reference):
        return read(value).data
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _of_credentials(block: Reference, data: Mapping[str, Any]) -> dict[str, Any]:
    warehouse = next(name for name, slug in CREDENTIALS_TYPES.items() if slug == block.type_slug)
    return {"type": warehouse} | _of_type(warehouse, block, data)


def _of_type(warehouse: str, block: Reference, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a credentials block says to dbt."""
    match warehouse:
        case "snowflake":
            return _snowflake(data)
        case "bigquery":
            return _bigquery(data)
        case "postgres":
            return _postgres(block, data)
        case _:
            raise ConfigError(f"{block} has credentials that dbt-{warehouse} has no use for: {_mend(block)}")


def _snowflake(data: Mapping[str, Any]) -> dict[str, Any]:
    settings = _filled({name: data.get(name) for name in (*_SNOWFLAKE, *_SNOWFLAKE_MORE)})
    authenticator = data.get("authenticator")
    if authenticator == "okta_endpoint":
        return settings | _filled({"authenticator": data.get("endpoint")})
    # The connector's own word for a password or a key, which dbt-snowflake does not have.
    return settings | ({} if authenticator in (None, "snowflake") else {"authenticator": authenticator})


def _bigquery(data: Mapping[str, Any]) -> dict[str, Any]:
    project = _filled({"project": data.get("project")})
    info = data.get("service_account_info")
    # Typed into the UI, it may be saved as text.
    info = json.loads(info) if isinstance(info, str) and info else info
    if info:
        project = {"project": info.get("project_id")} | project
        return _filled(project) | {"method": "service-account-json", "keyfile_json": info}
    if data.get("service_account_file"):
        return project | {"method": "service-account", "keyfile": data["service_account_file"]}
    return project | {"method": "oauth"}


def _postgres(block: Reference, data: Mapping[str, Any]) -> dict[str, Any]:
    # The older block DatabaseCredentials has the fields at its top.
    found = data.get("connection_info") or data.get("url") or data
    info = _parts_of(block, found) if isinstance(found, str) else cast(Mapping[str, Any], found)
    driver = str(info.get("driver") or "postgresql")
    if not driver.startswith("postgres"):
        raise ConfigError(f"{block} is for {driver.split('+')[0]}, and the target for postgres: name another block.")
    more = {**cast(dict[str, Any], info.get("query") or {}), **cast(dict[str, Any], data.get("connect_args") or {})}
    settings = _filled({theirs: info.get(ours) for ours, theirs in _POSTGRES.items()})
    settings |= _filled({name: more.get(name) for name in _POSTGRES_MORE})
    if lacking := [name for name in ("host", "user", "dbname") if name not in settings]:
        raise ConfigError(f"{block} does not say the {' and the '.join(lacking)} of the database: {_mend(block)}")
    # dbt requires the first; libpq takes an empty password as none.
    return {"password": "", "port": 5432} | settings | _port(settings)


def _parts_of(block: Reference, address: str) -> dict[str, Any]:
    """Return the address of a database, as SQLAlchemy has it, by its parts."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        # Neither the address nor this error is shown or chained: the password may be in both.
        raise ConfigError(f"The address of a database in {block} can't be read: {_mend(block)}") from None
    return {
        "driver": parts.scheme,
        "host": parts.hostname,
        "port": port,
        "username": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.removeprefix("/")),
        "query": dict(parse_qsl(parts.query)),
    }


def _port(settings: Mapping[str, Any]) -> dict[str, int]:
    return {"port": int(settings["port"])} if "port" in settings else {}


def _filled(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value not in (None, "")}


def _mend(block: Reference) -> str:
    return f"save it again, or name another one than {block.name}."
