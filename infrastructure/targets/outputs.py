"""A target as an output of profiles.yml, in which every secret is an `env_var()`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from infrastructure.errors import ConfigError
from infrastructure.targets.adapter import AdapterTarget
from infrastructure.targets.settings import DEFAULT_TASK_RUNS, Settings, TaskRuns
from infrastructure.targets.warehouses import (
    BIGQUERY_WAYS,
    CREDENTIALS_TYPES,
    BigQueryTarget,
    PostgresTarget,
    ProfileBlockTarget,
    SnowflakeTarget,
    Target,
)

# dbt replaces the values of variables with this prefix by ***** in everything that it logs.
SECRET_PREFIX = "DBT_ENV_SECRET_"

# The fields of a service account's key file that google-auth reads. The first are secret. As dbt blanks out every
# secret in its logs, no common word, such as the project's name, may be among them.
KEYFILE_SECRETS = ("private_key", "private_key_id", "client_email")
_KEYFILE_PLAIN = ("type", "token_uri", "universe_domain")

# Secrets that the client reads from a file, so that dbt is given a path; see key_files.py.
KEYS_AS_FILES = ("sslkey",)

# Settings that are ours, or that dbt knows by another name.
_OURS = {"warehouse", "credentials_block", "profile_block", "pass_env", "dbt", "task_runs"}
_RENAMED = {"schema_name": "schema", "virtual_warehouse": "warehouse"}

# Where each secret lives in the credentials block of its warehouse.
_FIELDS: dict[str, dict[str, str]] = {
    "postgres": {"password": "connection_info.password"},
    "snowflake": {name: name for name in ("password", "private_key", "private_key_passphrase", "token")},
    "bigquery": {f"keyfile_json.{name}": f"service_account_info.{name}" for name in KEYFILE_SECRETS},
}
# Prefect's block of Google credentials holds service accounts only: what else is secret has a block of its own.
BIGQUERY_SECRETS = ("token", "refresh_token", "client_secret", "token_request_data")
_GOOGLE_TOKENS = "https://oauth2.googleapis.com/token"


@dataclass(frozen=True)
class Output:
    """A dbt output, the secrets that belong to it, and where Prefect keeps them.

    Attributes:
        settings: the content of `outputs.<target>` in a profiles.yml; secrets as `{{ env_var('…') }}`.
        secrets: the value of each of those variables.
        sources: the place of each value, as `<block type>/<block name>#<field>`.
        pass_env: names of environment variables that dbt is given besides those it needs.
        dbt: which one builds it; that of this environment when None.
        task_runs: which nodes have a task run of their own.
        given: the block, as `<block type>/<block name>`, that says the rest when the profile is loaded.
    """

    settings: dict[str, Any]
    secrets: dict[str, str] = field(repr=False)
    sources: dict[str, str]
    pass_env: tuple[str, ...] = ()
    dbt: str | None = None
    task_runs: TaskRuns = DEFAULT_TASK_RUNS
    given: str | None = None

    def secret_of(self, setting: str) -> str | None:
        """Return the value of the secret that a setting looks up; None when it looks none up."""
        return next(
            (value for name, value in self.secrets.items() if self.settings.get(setting) == env_var(name)), None
        )


def output_of(name: str, target: Target, secrets: Mapping[str, str]) -> Output:
    """Return the output of a target with its secrets.

    Args:
        secrets: value by environment variable, as `read_secrets` returns them.

    Raises:
        ConfigError: a secret is not what its setting needs, such as a key file that is no JSON.
    """
    values: dict[str, str] = {}
    sources: dict[str, str] = {}

    def keep(setting: str, value: str) -> str:
        variable = SECRET_PREFIX + re.sub(r"[^A-Z0-9]", "_", f"{name}_{setting}".upper())
        values[variable] = value
        sources[variable] = _source(target, setting)
        return env_var(variable)

    named = target.secret_variables()
    if isinstance(target, AdapterTarget):
        settings = target.settings(lambda setting: keep(setting, secrets[named[setting]]))
        return Output(settings, values, sources, tuple(target.pass_env or ()), target.dbt, target.task_runs)
    settings = _plain_settings(target)
    if target.given_block:
        given = "/".join(target.given_block)
        return Output(settings, {}, {}, tuple(target.pass_env or ()), target.dbt, target.task_runs, given)
    for setting, variable in named.items():
        value = secrets[variable]
        if setting == "keyfile_json":
            keyfile = parse_keyfile(variable, value)
            kept = {key: keep(f"keyfile_json.{key}", keyfile[key]) for key in KEYFILE_SECRETS if key in keyfile}
            settings[setting] = {key: keyfile[key] for key in _KEYFILE_PLAIN if key in keyfile} | kept
        else:
            is_key = setting in ("private_key", *KEYS_AS_FILES)
            _put(settings, setting, keep(setting, parse_private_key(target, variable, value) if is_key else value))
    return Output(settings, values, sources, tuple(target.pass_env or ()), target.dbt, target.task_runs)


def local_settings(target: Target) -> dict[str, Any]:
    """Return a target's dbt output that looks up the variables of targets.yml, for a local profiles.yml."""
    if isinstance(target, AdapterTarget):
        named = target.secret_variables()
        return target.settings(lambda setting: env_var(named[setting]))
    settings = _plain_settings(target)
    for setting, variable in target.secret_variables().items():
        if setting in KEYS_AS_FILES:
            # Without the setting, libpq would read the user's own key, ~/.postgresql/postgresql.key.
            continue
        _put(settings, setting, env_var(variable, " | as_native" if setting == "keyfile_json" else ""))
    return settings


def _put(settings: dict[str, Any], setting: str, value: str) -> None:
    if setting == "token_request_data":
        # dbt-bigquery 1.12 supports one provider of identities.
        settings["token_endpoint"] = {"type": "entra", "request_url": settings.pop("token_request_url")}
        settings["token_endpoint"]["request_data"] = value
    else:
        settings[setting] = value


def blanked_names(profile: str, output: Output) -> list[str]:
    """Return the plain settings in which a secret occurs, as `setting (value)`.

    dbt blanks secrets out in all that it logs, so that such a name would be unreadable there.
    """
    words = {"profile": profile} | {name: str(value) for name, value in output.settings.items()}
    return [
        f"{name} ({word})"
        for name, word in words.items()
        if not is_env_var(word) and any(secret in word for secret in output.secrets.values())
    ]


def env_var(variable: str, filters: str = "") -> str:
    """Return the Jinja text with which dbt looks up a variable."""
    return f"{{{{ env_var('{variable}'){filters} }}}}"


def is_env_var(value: object) -> bool:
    """Return whether dbt looks a setting up in the environment."""
    return isinstance(value, str) and value.lstrip().startswith("{{ env_var(")


def read_secrets(settings: Settings, environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the secrets of a target or service by variable, and the variables that are not set or empty."""
    variables = list(dict.fromkeys(settings.secret_variables().values()))
    return {v: environ[v] for v in variables if environ.get(v)}, [v for v in variables if not environ.get(v)]


def parse_keyfile(variable: str, text: str) -> dict[str, str]:
    """Read the JSON of a service account's key file.

    Raises:
        ConfigError: it is something else. The text is never repeated.
    """
    try:
        keyfile = json.loads(text)
    except ValueError:
        raise ConfigError(
            f"{variable} does not hold JSON. It must hold the text of a service account's key file, as in "
            f'`export {variable}="$(cat key.json)"`; for the path of a file, use `keyfile` in targets.yml.'
        ) from None
    if not isinstance(keyfile, dict):
        raise ConfigError(f"{variable} must hold the JSON object of a service account's key file.")
    keyfile = cast(dict[str, Any], keyfile)
    lacking = [key for key in ("client_email", "private_key", "token_uri") if not keyfile.get(key)]
    if keyfile.get("type") != "service_account" or lacking:
        found = f"lacks {', '.join(lacking)}" if lacking else "is of another type"
        raise ConfigError(
            f"{variable} must hold the key file of a service account (type service_account), and its value "
            f"{found}. For every other kind of Google credential use `method: oauth` in targets.yml."
        )
    return {key: str(value) for key, value in keyfile.items()}


def parse_private_key(target: Target, variable: str, text: str) -> str:
    """Return a PEM key with real line breaks, also where a settings page turned them into `\\n`.

    Raises:
        ConfigError: it is no PEM key, or is encrypted and no passphrase is named. The text is never repeated.
    """
    key = text.replace("\\n", "\n").replace("\r", "").strip() + "\n"
    if not key.startswith("-----BEGIN ") or "PRIVATE KEY-----" not in key:
        raise ConfigError(
            f"{variable} does not hold a private key in PEM format (-----BEGIN PRIVATE KEY----- …). "
            f"For the path of a file, use `{_PATH_OF_KEY[target.warehouse]}` in targets.yml."
        )
    if "ENCRYPTED" in key and target.warehouse == "postgres":
        raise ConfigError(f"The private key in {variable} is encrypted, and dbt-postgres takes no passphrase for it.")
    if "ENCRYPTED" in key and "private_key_passphrase" not in target.secret_variables():
        raise ConfigError(
            f"The private key in {variable} is encrypted: name the variable that holds its passphrase with "
            "`private_key_passphrase_env` in targets.yml."
        )
    return key


# Where a key's path is given in place of its text.
_PATH_OF_KEY = {"postgres": "sslkey", "snowflake": "private_key_path"}


def _plain_settings(target: Target) -> dict[str, Any]:
    dumped = target.model_dump(exclude_none=True, mode="json")
    plain = {
        _RENAMED.get(name, name): value
        for name, value in dumped.items()
        if name not in _OURS and not name.endswith("_env")
    }
    if target.given_block:
        # What the block says is not known here.
        own = target.model_fields_set | (set() if isinstance(target, ProfileBlockTarget) else {"threads"})
        kept = {_RENAMED.get(name, name) for name in own}
        return {"type": target.warehouse} | {name: value for name, value in plain.items() if name in kept}
    return {"type": target.warehouse, **_sign_in(target), **plain}


def _sign_in(target: Target) -> dict[str, Any]:
    match target:
        case BigQueryTarget():
            way = {"method": next(method for setting, method in BIGQUERY_WAYS.items() if getattr(target, setting))}
            # google-auth knows no default, where `gcloud` writes it down.
            return way | ({"token_uri": _GOOGLE_TOKENS} if target.refresh_token_env else {})
        case PostgresTarget(password_env=None):
            # dbt requires the setting; libpq takes an empty password as none, and looks into .pgpass.
            return {"password": ""}
        case _:
            return {}


def _source(target: Target, setting: str) -> str:
    block = target.credentials_name()
    if setting in KEYS_AS_FILES:
        return f"secret/{block}-{setting}#value"
    if isinstance(target, AdapterTarget) or (isinstance(target, BigQueryTarget) and setting in BIGQUERY_SECRETS):
        return f"secret/{secret_block(target, setting)}#value"
    if isinstance(target, SnowflakeTarget):
        if setting == "oauth_client_secret":
            return f"secret/{block}-oauth-client-secret#value"
        if setting == "token" and target.authenticator == "programmatic_access_token":
            # The block has no such authenticator. Snowflake takes such a token as a password too.
            return f"{CREDENTIALS_TYPES[target.warehouse]}/{block}#password"
    return f"{CREDENTIALS_TYPES[target.warehouse]}/{block}#{_FIELDS[target.warehouse][setting]}"


def secret_block(target: Target, setting: str) -> str:
    """Return the name of the Secret block of a setting that the credentials block of the warehouse has no room for."""
    return f"{target.credentials_name()}-{re.sub(r'[^a-z0-9]+', '-', setting.lower()).strip('-')}"
