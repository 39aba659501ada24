"""A dbt profile as targets: every output of a profiles.yml as an entry of targets.yml, without any secret.

Pure: text in, entries out. Only settings that a target has are taken over, so that nothing unknown is copied, which may
be a secret; what is left out is named, its value never.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from infrastructure.errors import ConfigError, preview
from infrastructure.targets.secret_names import ADDRESS_WITH_PASSWORD, PRIVATE_KEY, is_secret_name
from infrastructure.targets.settings import WarehouseTarget
from infrastructure.targets.target_file import SERVICES
from infrastructure.targets.warehouses import WAREHOUSES, model_for
from infrastructure.yaml_file import all_of, field_names, parse_yaml

# What adapters call our settings. None: it is only there in targets.yml when it differs from what is assumed anyway.
_RENAMED: dict[str, dict[str, str | None]] = {
    "duckdb": {},
    "postgres": {"pass": "password", "database": "dbname"},
    "snowflake": {"warehouse": "virtual_warehouse"},
    "bigquery": {
        "database": "project",
        "dataset": "schema",
        "timeout_seconds": "job_execution_timeout_seconds",
        "retries": "job_retries",
        "method": None,
    },
}
_SECRETS = {
    "duckdb": (),
    "postgres": ("password",),
    "snowflake": ("password", "private_key", "private_key_passphrase", "token", "oauth_client_secret"),
    "bigquery": ("keyfile_json", "token", "refresh_token", "client_secret"),
}
_PATHS = {
    "duckdb": ("path",),
    "postgres": ("sslrootcert", "sslcert", "sslkey"),
    "snowflake": ("private_key_path",),
    "bigquery": ("keyfile",),
}
# The sign-in of BigQuery by its `method`: the settings that belong to it.
_BIGQUERY_METHODS = {
    "oauth": (),
    "service-account": ("keyfile",),
    "service-account-json": ("keyfile_json",),
    "oauth-secrets": ("token", "refresh_token", "client_id", "client_secret", "token_uri"),
    "external-oauth-wif": ("workload_pool_provider_path", "service_account_impersonation_url", "token_endpoint"),
}
_ENV_VAR = re.compile(
    r"""\{\{-?\s*env_var\(\s*(['"])(?P<name>\w+)\1\s*(?:,\s*(?:(['"])(?P<text>.*?)\3|(?P<plain>[\w.]+))\s*)?\)"""
    r"""\s*(?:\|\s*(?:int|float|bool|string|trim|as_number|as_bool|as_native|as_text)\s*)*-?\}\}"""
)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_LOOKS_SECRET = re.compile(r"pass|secret|token|key|credential|pwd", re.IGNORECASE)


@dataclass
class FoundTarget:
    """One output of a profile as a target.

    Attributes:
        name: as it is written in targets.yml.
        settings: its entry there; None where it can't be one.
        secrets: the variables that hold its secrets, each with what it has to be set to.
        notes: sentences on what was left out or has to be looked at.
    """

    name: str
    settings: dict[str, Any] | None = None
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class FoundProfile:
    """A profile as targets.

    Attributes:
        name: of the dbt profile.
        default: the target that is used where none is named.
        targets: one for each output.
    """

    name: str
    default: str
    targets: tuple[FoundTarget, ...]

    @property
    def ready(self) -> list[FoundTarget]:
        """Return those that became an entry."""
        return [it for it in self.targets if it.settings is not None]


def profile_in(text: str, source: str, name: str, place: Callable[[str], str] = str) -> FoundProfile:
    """Return a profile of a profiles.yml as targets.

    Args:
        source: the file, for errors.
        name: of the profile, as dbt_project.yml has it.
        place: turns a relative path of an output, which dbt takes from the project, into one from the workspace.

    Raises:
        ConfigError: it is no profiles.yml, has no such profile, or none of its outputs can be a target.
    """
    outputs, named = _outputs_of(parse_yaml(text, source), source, name)
    found: list[FoundTarget] = []
    for output, settings in outputs.items():
        target = FoundTarget(_target_name(str(output), {it.name for it in found}))
        if target.name != output:
            target.notes.append(f"{output} is called {target.name}: names have lower-case letters, digits and hyphens.")
        _Reader(target, name, place).read(settings)
        found.append(target)
    profile = FoundProfile(name, "", tuple(found))
    if not profile.ready:
        reasons = "\n".join(f"  {note}" for it in found for note in it.notes)
        raise ConfigError(f"No output of profile {name} in {source} can be a target:\n{reasons}")
    by_output = dict(zip(map(str, outputs), found, strict=True))
    default = by_output.get(named)
    chosen = default if default and default.settings else profile.ready[0]
    return FoundProfile(name, chosen.name, tuple(found))


def _outputs_of(document: object, source: str, name: str) -> tuple[dict[Any, Any], str]:
    """Return the outputs of a profile, and the name of the one that is its default."""
    profiles = cast(dict[str, Any], document) if isinstance(document, dict) else {}
    # `config` holds flags of dbt itself, in files of before dbt 1.8.
    known = [str(key) for key in profiles if key != "config"]
    if name not in profiles:
        there = f"it has {preview(known)}" if known else "it has none"
        raise ConfigError(f"{source} has no profile {name!r}, which dbt_project.yml asks for; {there}.")
    profile = cast(dict[str, Any], profiles[name]) if isinstance(profiles[name], dict) else {}
    outputs = profile.get("outputs")
    if not isinstance(outputs, dict) or not outputs:
        raise ConfigError(f"Profile {name} in {source} has no outputs: expected `outputs:` with one entry or more.")
    target = str(profile.get("target", "default"))
    looked_up = _ENV_VAR.fullmatch(target.strip())
    return cast(dict[Any, Any], outputs), (looked_up["text"] or "") if looked_up else target


def _target_name(output: str, taken: set[str]) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", output.lower()).strip("-") or "target"
    if name in SERVICES:
        name += "-target"
    number = 1
    while (name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return name if number == 1 else f"{name}-{number}"


class _Reader:
    """Reads one output into a target."""

    def __init__(self, target: FoundTarget, profile: str, place: Callable[[str], str]) -> None:
        self._target = target
        self._profile = profile
        self._place = place
        self._left_out: list[str] = []

    def read(self, output: object) -> None:
        """Fill the target in; it stays without settings where the output can be none."""
        name = self._target.name
        if not isinstance(output, dict):
            return self._note(f"{name} is left out: expected settings, as `name: value`.")
        given = {str(key): value for key, value in cast(dict[Any, Any], output).items()}
        kind = str(given.pop("type", ""))
        if not kind:
            return self._note(f"{name} is left out: it does not name its `type`.")
        if kind in WAREHOUSES:
            entry = self._entry(kind, given)
        else:
            entry = {"adapter": kind} | self._adapter_settings(given, "")
            entry = entry | self._block() if self._target.secrets else entry
        if self._left_out:
            self._note(f"{name}: {all_of(sorted(self._left_out))} not taken over, as targets.yml has no such setting.")
        if mistakes := _mistakes(entry):
            return self._note(f"{name} is left out: {'; '.join(mistakes)}.")
        self._target.settings = entry

    def _note(self, sentence: str) -> None:
        self._target.notes.append(sentence)

    def _entry(self, kind: str, given: dict[str, Any]) -> dict[str, Any]:
        entry: dict[str, Any] = {"warehouse": kind}
        if kind == "bigquery":
            given = self._signed_in(given, entry)
        if kind == "duckdb":
            given = {"schema": "main", "path": ":memory:"} | given
        if kind == "snowflake" and given.get("authenticator") == "snowflake":
            del given["authenticator"]
        known = field_names(WAREHOUSES[kind])
        for name, value in given.items():
            setting = _RENAMED[kind].get(name, name)
            if setting is None or value is None or value == "":
                continue
            if setting in _SECRETS[kind]:
                entry[f"{setting}_env"] = self._secret(setting, value)
            elif setting not in known or setting.endswith("_env") or setting in ("warehouse", "credentials_block"):
                self._left_out.append(name)
            elif (taken := self._plain(kind, setting, value)) is not None:
                entry[setting] = taken
        if any(setting in entry for setting in WAREHOUSES[kind].credential_settings):
            entry |= self._block()
        return entry

    def _block(self) -> dict[str, Any]:
        # The default's name is that of everybody's: two workspaces on one server would share it.
        return {"credentials_block": _target_name(f"{self._profile}-{self._target.name}", set())}

    def _adapter_settings(self, given: Mapping[str, Any], within: str) -> dict[str, Any]:
        """Return the settings of any adapter; whatever may be secret by its name is looked up in a variable."""
        taken: dict[str, Any] = {}
        for name, value in given.items():
            setting = f"{within}{name}"
            may_be_secret = is_secret_name(name) or (
                isinstance(value, str) and (PRIVATE_KEY in value or _LOOKS_SECRET.search(name))
            )
            if value is None or value == "":
                continue
            if isinstance(value, dict):
                inner = {str(key): each for key, each in cast(dict[Any, Any], value).items()}
                if kept := self._adapter_settings(inner, f"{setting}."):
                    taken[name] = kept
            elif name.endswith("_env") or (not within and name in WarehouseTarget.model_fields and name != "threads"):
                self._left_out.append(setting)
            elif isinstance(value, list):
                listed = cast(list[Any], value)
                if may_be_secret or any(isinstance(each, dict | list) for each in listed):
                    self._left_out.append(setting)
                elif (texts := self._plain("", setting, listed)) is not None:
                    taken[name] = texts
            elif may_be_secret and not isinstance(value, bool):
                taken[f"{name}_env"] = self._secret(setting, value)
            elif (plain := self._plain("", setting, value)) is not None:
                taken[name] = plain
        return taken

    def _signed_in(self, given: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of a BigQuery output without those of other ways to sign in than its method's."""
        method = str(given.get("method") or "oauth")
        others = {name for names in _BIGQUERY_METHODS.values() for name in names} - {*_BIGQUERY_METHODS.get(method, ())}
        # dbt prefers a refresh token to an access token, and takes its client along.
        others |= {"token"} if given.get("refresh_token") else {"client_id", "client_secret", "token_uri"}
        given = {name: value for name, value in given.items() if name not in others}
        if method == "oauth":
            entry["method"] = "oauth"
        endpoint = given.pop("token_endpoint", None)
        if isinstance(endpoint, dict):
            asked = cast(dict[str, Any], endpoint)
            entry["token_request_url"] = self._text("token_request_url", asked.get("request_url"))
            entry["token_request_data_env"] = self._secret("token_request_data", asked.get("request_data"))
        return given

    def _secret(self, setting: str, value: object) -> str:
        """Return the name of the variable for a secret: the one that is looked up already, or a new one."""
        looked_up = _ENV_VAR.fullmatch(value.strip()) if isinstance(value, str) else None
        name = looked_up["name"] if looked_up else ""
        is_fit = bool(_VARIABLE.fullmatch(name)) and not (
            setting == "keyfile_json" and name.startswith("DBT_ENV_SECRET_")
        )
        if not is_fit:
            name = f"{self._profile}_{self._target.name}_{setting}".upper()
            name = re.sub(r"[^A-Z0-9]+", "_", name).lstrip("_0123456789")
        what = f"`{setting}` of {self._target.name}"
        if not looked_up:
            is_jinja = isinstance(value, str) and "{{" in value
            what += f", which is {'Jinja' if is_jinja else 'written'} in profiles.yml; its value is not copied"
        elif not is_fit:
            what += f", which profiles.yml looks up as {looked_up['name']}"
        elif looked_up["text"] or looked_up["plain"]:
            what += "; the default in profiles.yml is not copied"
        if setting == "keyfile_json":
            what += ". It holds the JSON text of the service account's key file"
        self._target.secrets[name] = what
        return name

    def _plain(self, kind: str, setting: str, value: object) -> object:
        if isinstance(value, list):
            texts = [self._text(setting, each) for each in cast(list[object], value)]
            if any(not isinstance(each, str) for each in texts):
                self._left_out.append(setting)
            return [each for each in texts if isinstance(each, str)] or None
        if isinstance(value, dict):
            pairs = cast(dict[str, object], value).items()
            kept = {key: self._text(key, each) for key, each in pairs if not _LOOKS_SECRET.search(str(key))}
            self._left_out += [f"{setting}.{key}" for key, _ in pairs if key not in kept]
            return kept or None
        if isinstance(value, str) and ADDRESS_WITH_PASSWORD.search(value):
            return self._without_password(setting, value)
        taken = self._text(setting, value)
        return self._path(setting, taken) if setting in _PATHS.get(kind, ()) and isinstance(taken, str) else taken

    def _without_password(self, setting: str, value: str) -> str | None:
        if setting == "path" and value.startswith("md:") and "{{" not in value:
            self._note(
                f"{self._target.name}: the token in `path` is not copied. Set motherduck_token to it, and add "
                "`pass_env: [motherduck_token]` to the target."
            )
            return value.partition("?")[0]
        self._note(f"{self._target.name}: `{setting}` is not taken over, as a password may be in it.")
        return None

    def _text(self, setting: str, value: object) -> object:
        """Return a value with `env_var()` as `${NAME}`; other Jinja becomes a variable of its own."""
        if not isinstance(value, str):
            return value if isinstance(value, int | float) else None
        text = _ENV_VAR.sub(_reference, value)
        if "{{" not in text and "{%" not in text:
            return text
        variable = re.sub(r"[^A-Z0-9]+", "_", f"{self._target.name}_{setting}".upper())
        self._note(
            f"{self._target.name}: `{setting}` is Jinja in profiles.yml that only dbt can work out; set {variable} to "
            "what it comes to, or write it into targets.yml."
        )
        return f"${{{variable}}}"

    def _path(self, setting: str, path: str) -> str:
        if path.startswith(":memory:"):
            where = f"data/{self._target.name}.duckdb"
            self._note(
                f"{self._target.name}: its database was in memory, which ends with dbt's process; it is {where} now."
            )
            return where
        # md:, s3:// and their like are no files, and a variable or ~ is filled in later.
        is_as_it_is = os.path.isabs(path) or re.match(r"[a-z0-9+]{2,}:|\$|~", path)
        return path if is_as_it_is else self._place(path)


def _reference(found: re.Match[str]) -> str:
    default = found["text"] if found["text"] is not None else found["plain"]
    # A closing brace would end the default in targets.yml.
    return f"${{{found['name']}}}" if default is None or "}" in default else f"${{{found['name']}:-{default}}}"


def _mistakes(entry: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with an entry, without its values; a `${NAME}` may be anything."""
    try:
        model_for(entry).model_validate(entry)
    except ValidationError as exc:
        found: list[str] = []
        for error in exc.errors(include_input=False):
            place = ".".join(map(str, error["loc"]))
            value = entry.get(str(error["loc"][0])) if error["loc"] else None
            if isinstance(value, str) and "${" in value:
                continue
            said = "is required" if error["type"] == "missing" else _without_input(error["msg"])
            found.append(f"{place}: {said}" if place else said)
        return found
    return []


def _without_input(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ").partition(", found ")[0]


def profiles_places(project: Path, given: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """Return where a profiles.yml is looked for, in order; only in one place where that is named."""
    named = given or (Path(environ["DBT_PROFILES_DIR"]) if environ.get("DBT_PROFILES_DIR") else None)
    if named:
        named = named.expanduser()
        return [named if named.suffix in (".yml", ".yaml") else named / "profiles.yml"]
    return [project / "profiles.yml", Path.home() / ".dbt" / "profiles.yml"]
