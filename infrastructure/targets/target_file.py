"""The environments of a workspace's targets.yml, read into typed models that hold no secret."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from infrastructure.errors import ConfigError
from infrastructure.targets.adapter import AdapterTarget, read_numbers
from infrastructure.targets.settings import Name, Settings, Variable, WarehouseTarget
from infrastructure.targets.warehouses import ProfileBlockTarget, Target, model_for, profile_block
from infrastructure.workspace import targets_file, workspace
from infrastructure.yaml_file import (
    Mistake,
    Place,
    all_of,
    field_names,
    meant,
    put_in_variables,
    read_yaml,
    unset_mistakes,
)

# The entries beside the targets that become blocks.
SERVICES = ("slack_webhook", "pagerduty", "airbyte", "dashboard_cache")

_NEVER_HERE = "no secret is written in this file: put it in an environment variable, and name that with `{}`"
# Names that other tools have for our settings.
_HINTS = {
    "password": _NEVER_HERE.format("password_env"),
    "pass": _NEVER_HERE.format("password_env"),
    "private_key": _NEVER_HERE.format("private_key_env"),
    "private_key_passphrase": _NEVER_HERE.format("private_key_passphrase_env"),
    "token": _NEVER_HERE.format("token_env"),
    "oauth_client_secret": _NEVER_HERE.format("oauth_client_secret_env"),
    "refresh_token": _NEVER_HERE.format("refresh_token_env"),
    "token_request_data": _NEVER_HERE.format("token_request_data_env"),
    "client_secret": _NEVER_HERE.format("client_secret_env"),
    "client_id": _NEVER_HERE.format("client_id_env"),
    "keyfile_json": _NEVER_HERE.format("keyfile_json_env"),
    "url": _NEVER_HERE.format("url_env"),
    "routing_key": _NEVER_HERE.format("routing_key_env"),
    "type": "is called `warehouse` here",
    "dataset": "is called `schema` here",
    "timeout_seconds": "is called `job_execution_timeout_seconds` here",
}


class SlackWebhook(Settings):
    """Where alerts go: the block slack-webhook, and one slack-webhook-<name> for each further channel."""

    url_env: Variable = Field(description="Variable that holds the address of the incoming webhook.")
    channels: dict[Name, Variable] = Field(
        default_factory=dict, description="Further channels, each with the variable of an incoming webhook of its own."
    )

    def secret_variables(self) -> dict[str, str]:
        """Return the environment variable of each address, by the name of its block."""
        more = {f"slack-webhook-{name}": variable for name, variable in self.channels.items()}
        return {"slack-webhook": self.url_env, **more}


class PagerDuty(Settings):
    """The PagerDuty service that critical alerts page: the block pagerduty."""

    routing_key_env: Variable = Field(description="Variable that holds the integration key of a service (Events v2).")
    region: Literal["us", "eu"] = Field(default="us", description="Where the PagerDuty account is kept.")


class Airbyte(Settings):
    """The Airbyte whose syncs feed the raw tables."""

    api_url: str = Field(min_length=1, description="https://api.airbyte.com/v1, or <your server>/api/public/v1.")
    client_id_env: Variable | None = None
    client_secret_env: Variable | None = None

    @model_validator(mode="after")
    def _client_is_whole(self) -> Airbyte:
        if bool(self.client_id_env) != bool(self.client_secret_env):
            raise ValueError("client_id_env and client_secret_env go together; a server without sign-in needs neither")
        return self


class DashboardCache(Settings):
    """The Redis from which dashboards read what was just built."""

    url_env: Variable = Field(description="Variable that holds its address, such as redis://:password@host:6379/0.")


class Targets(Settings):
    """The content of targets.yml."""

    profile: str = Field(
        default="tributary", min_length=1, description="Name of the dbt profile, as in dbt_project.yml."
    )
    default: Name = Field(description="The target that is used where none is named.")
    targets: dict[Name, Target] = Field(
        description="The environments, by name.", json_schema_extra={"minProperties": 1}
    )
    slack_webhook: SlackWebhook | None = None
    pagerduty: PagerDuty | None = None
    airbyte: Airbyte | None = None
    dashboard_cache: DashboardCache | None = None

    _unset: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict[str, tuple[str, ...]])

    @property
    def unset(self) -> dict[str, tuple[str, ...]]:
        """Return the entries that are left out because a `${VARIABLE}` is not set: entry → variables."""
        return self._unset

    @property
    def names(self) -> list[str]:
        """Return the names of all targets in the file, including those that lack a variable."""
        return [*self.targets, *(name for name in self._unset if name not in SERVICES)]

    def find(self, name: str) -> Target:
        """Return a target.

        Raises:
            ConfigError: there is no such target, or its settings name a variable that is not set.
        """
        if name in self.targets:
            return self.targets[name]
        if name in self._unset:
            variables = all_of(self._unset[name])
            raise ConfigError(f"Target {name} cannot be used: set {variables}, which {targets_file()} names.")
        hint = meant(name, self.names).removeprefix("; ")
        raise ConfigError(
            f"There is no target {name!r} in {targets_file()}, which has {', '.join(self.names)}."
            + (f" D{hint[1:]}" if hint else "")
        )


def secrets_of_others(target: str, path: Path | None = None) -> frozenset[str]:
    """Return the variables of secrets in targets.yml, without those of one target; none where there is no such file.

    The file is read without checks: an entry that can't be used may still have its secret set.
    """
    try:
        entries = read_yaml(path or workspace().targets).data
    except ConfigError:
        return frozenset()
    targets = entries.get("targets")
    declared = cast(dict[str, Any], targets) if isinstance(targets, dict) else {}
    own = _named_secrets(declared.get(target))
    services = [name for service in SERVICES for name in _named_secrets(entries.get(service))]
    return frozenset([*services, *(name for entry in declared.values() for name in _named_secrets(entry))]) - {*own}


def default_target() -> str:
    """Return the target that is used where none is named; `dev` where targets.yml does not say.

    The file is read without checks: a mistake in it does not keep a run from starting.
    """
    try:
        data, unset = put_in_variables(read_yaml(workspace().targets), os.environ)
    except ConfigError:
        return "dev"
    named = data.get("default")
    return named if isinstance(named, str) and ("default",) not in unset else "dev"


def require_declared(target: str) -> None:
    """Raise an error if targets.yml has no such target; a file with mistakes says nothing about its targets.

    Raises:
        ConfigError: names the target that may have been meant.
    """
    try:
        targets = load_targets()
    except ConfigError:
        return
    if target not in targets.names:
        targets.find(target)


def _named_secrets(entry: object) -> list[str]:
    settings = cast(dict[str, Any], entry) if isinstance(entry, dict) else {}
    named = [value for name, value in settings.items() if str(name).endswith("_env") and isinstance(value, str)]
    channels = settings.get("channels")
    more = cast(dict[str, Any], channels).values() if isinstance(channels, dict) else ()
    # An adapter's settings may be mappings with secrets inside.
    inner = [each for value in settings.values() for each in _named_secrets(value)]
    return [*named, *map(str, more), *inner]


def load_targets(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Targets:
    """Read and check the targets file.

    Args:
        path: that of the workspace in use when None.
        environ: where `${NAME}` is looked up; the process environment when None.

    Raises:
        ConfigError: lists every mistake in the file, with its line.
    """
    file = read_yaml(path or workspace().targets)
    environ = os.environ if environ is None else environ
    data, unset = put_in_variables(file, environ)
    _read_numbers(file.data, data)
    _give_blocks_of_their_own(file.data, data)
    mistakes: dict[Place, Mistake] = {}
    try:
        Targets.model_validate(data)
    except ValidationError as exc:
        found = file.mistakes(exc, _known_names(data), _HINTS)
        mistakes = {place: mistake for place, mistake in found.items() if place not in unset}
    mistakes |= {mistake.place: mistake for mistake in _misnamed(data, unset)}
    if mistakes:
        raise file.error(list(mistakes.values()))
    waiting = _waiting(data, unset, environ)
    data["targets"] = {name: target for name, target in data["targets"].items() if name not in waiting}
    targets = Targets.model_validate({key: value for key, value in data.items() if key not in waiting})
    targets.unset.update(waiting)
    if contradictions := [*_shared_in_vain(targets), *_overwritten(targets)]:
        raise file.error(contradictions)
    return targets


def _read_numbers(written: dict[str, Any], data: dict[str, Any]) -> None:
    """Have variables be numbers where a model of an adapter's settings that would know is not there."""
    before, entries = written.get("targets"), data.get("targets")
    if isinstance(before, dict) and isinstance(entries, dict):
        for name, entry in cast(dict[str, Any], entries).items():
            if isinstance(entry, dict) and "adapter" in entry:
                entries[name] = read_numbers(cast(dict[str, Any], before)[name], cast(dict[str, Any], entry))


def _give_blocks_of_their_own(written: dict[str, Any], data: dict[str, Any]) -> None:
    """Name a credentials block for each target that signs in otherwise than the first on its warehouse.

    What is written decides, not what its variables hold: a block has the same name on every machine, also on one where
    the first target waits for a variable.
    """
    before, entries = written.get("targets"), data.get("targets")
    if not isinstance(before, dict) or not isinstance(entries, dict):
        return
    first: dict[str, dict[str, Any]] = {}
    for name, entry in cast(dict[str, Any], before).items():
        if not isinstance(entry, dict) or "credentials_block" in entry:
            continue
        default, ours = _default_credentials(cast(dict[str, Any], entry))
        theirs = first.setdefault(default, ours)
        if default and any(theirs[key] != value for key, value in ours.items() if key in theirs):
            entries[name] = {**entries[name], "credentials_block": f"{default}-{name}"}


def _default_credentials(entry: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of the credentials block where none is given, and what is in it as it is written."""
    try:
        model = model_for(entry)
    except ValidationError:
        return "", {}
    if model is not AdapterTarget:
        fields = {field: entry.get(field) for field in model.credential_settings}
        return model.default_credentials_block, fields
    name = f"{str(entry['adapter']).replace('_', '-')}-credentials"
    return name, dict(_secret_places(entry))


def _secret_places(entry: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, object]]:
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _secret_places(cast(dict[str, Any], value), f"{within}{name}.")
        elif str(name).endswith("_env"):
            yield f"{within}{name}", value


def _misnamed(data: dict[str, Any], unset: Mapping[Place, list[str]]) -> list[Mistake]:
    """Find names that are valid, but contradict the rest of the file."""
    mistakes = [it for place, it in unset_mistakes(unset).items() if place[0] in ("profile", "default")]
    targets, default = data.get("targets"), data.get("default")
    if not isinstance(targets, dict):
        return mistakes
    names = [str(name) for name in cast(dict[Any, Any], targets)]
    if not names:
        mistakes.append(Mistake(("targets",), "expected at least one target"))
    elif isinstance(default, str) and default not in names and ("default",) not in unset:
        mistakes.append(Mistake(("default",), f"there is no target {default!r}{meant(default, names)}"))
    return mistakes + [
        Mistake(("targets", name), "is a reserved name; choose another") for name in names if name in SERVICES
    ]


def _waiting(
    data: dict[str, Any], unset: Mapping[Place, list[str]], environ: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return the entries whose settings name variables that are not set: entry → variables."""
    waiting: dict[str, dict[str, None]] = {}
    for place, variables in unset.items():
        entry = str(place[1]) if place[0] == "targets" else str(place[0])
        waiting.setdefault(entry, {}).update(dict.fromkeys(variables))
    for entry, variables in waiting.items():
        settings: dict[str, Any] = data[entry] if entry in SERVICES else data["targets"][entry]
        variables.update(dict.fromkeys(name for name in _named_secrets(settings) if not environ.get(name)))
    return {entry: tuple(variables) for entry, variables in waiting.items()}


def _known_names(data: dict[str, Any]) -> Callable[[Place], list[str]]:
    def names(place: Place) -> list[str]:
        if place[0] == "targets":
            return field_names(model_for(data["targets"][place[1]]))
        services = {
            "slack_webhook": SlackWebhook,
            "pagerduty": PagerDuty,
            "airbyte": Airbyte,
            "dashboard_cache": DashboardCache,
        }
        return field_names(services.get(str(place[0]), Targets))

    return names


def _shared_in_vain(targets: Targets) -> list[Mistake]:
    """Find targets that share a credentials block but differ in its settings."""
    mistakes: list[Mistake] = []
    owners: dict[tuple[str, str], tuple[str, WarehouseTarget]] = {}
    for name, target in targets.targets.items():
        block = target.credentials_name()
        first, other = owners.setdefault((target.warehouse, block), (name, target))
        ours, theirs = target.credential_values(), other.credential_values()
        apart = [setting for setting in ours if setting in theirs and ours[setting] != theirs[setting]]
        if apart:
            text = (
                f"shares the credentials block {block} with {first} but differs in {', '.join(apart)}; "
                f"give one of them a block of its own, such as `credentials_block: {block}-{name}`"
            )
            mistakes.append(Mistake(("targets", name), text))
    return mistakes


def _overwritten(targets: Targets) -> list[Mistake]:
    """Find profile blocks of one's own that have the name which setup saves a target's profile under."""
    saved = {profile_block(name): name for name in targets.names}
    return [
        Mistake(
            ("targets", name, "profile_block"),
            f"names {target.profile_block}, which setup saves the profile of target {saved[target.profile_block]} "
            "under; save yours under another name and name that here",
        )
        for name, target in targets.targets.items()
        if isinstance(target, ProfileBlockTarget) and target.profile_block in saved
    ]
