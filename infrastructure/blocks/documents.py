"""The Prefect blocks that targets.yml asks for, and how they differ from what a server has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from infrastructure.blocks.block_types import BlockType, block_type
from infrastructure.plan import Change, FieldChange
from infrastructure.targets.adapter import AdapterTarget
from infrastructure.targets.outputs import (
    BIGQUERY_SECRETS,
    KEYS_AS_FILES,
    Output,
    is_env_var,
    output_of,
    parse_keyfile,
    parse_private_key,
    secret_block,
)
from infrastructure.targets.secret_names import is_secret_name
from infrastructure.targets.settings import DEFAULT_TASK_RUNS
from infrastructure.targets.target_file import Airbyte, DashboardCache, PagerDuty, SlackWebhook
from infrastructure.targets.warehouses import (
    CREDENTIALS_TYPES,
    BigQueryTarget,
    DuckDBTarget,
    PostgresTarget,
    ProfileBlockTarget,
    SnowflakeTarget,
    Target,
    profile_block,
)

PROFILE_TYPE = "dbt-cli-profile"
CACHE_BLOCK = "dashboard-cache-url"
# The key in a profile block's extras that says which credentials blocks it goes with; dbt never sees it.
SOURCES_KEY = "credentials_from"
# The key that says which environment variables dbt is given besides those it needs; dbt never sees it either.
PASSED_KEY = "pass_env"
# The key that names the block, made by hand, that says the rest.
GIVEN_KEY = "given_block"
# The key that says which dbt builds the target.
PROGRAM_KEY = "dbt"
# The key that says which nodes have a task run of their own.
TASK_RUNS_KEY = "task_runs"

# Names under which people keep secrets in blocks made by hand: their values are compared, never shown.
_NEVER_SHOWN = {"service_account_info", "secrets", "url", "value"}


@dataclass(frozen=True)
class Reference:
    """A field of a block that is another block."""

    type_slug: str
    name: str

    def __str__(self) -> str:
        return f"block {self.slug}"

    @property
    def slug(self) -> str:
        """Return the name of the block in Prefect's command line and UI."""
        return f"{self.type_slug}/{self.name}"


@dataclass(frozen=True)
class BlockDocument:
    """One block as it should be on the server.

    Attributes:
        data: field → value, or a `Reference` to a document that comes earlier.
    """

    type_slug: str
    name: str
    data: dict[str, Any] = field(repr=False)

    @property
    def slug(self) -> str:
        """Return the name of the block in Prefect's command line and UI."""
        return f"{self.type_slug}/{self.name}"

    @property
    def type(self) -> BlockType:
        """Return the block type that the document is of."""
        return block_type(self.type_slug)


@dataclass(frozen=True)
class SavedDocument:
    """One block as a server has it, secrets included.

    Attributes:
        data: field → value, or a `Reference` to another block.
        schema: checksum and version of its block schema.
    """

    data: dict[str, Any] = field(repr=False)
    schema: tuple[str, str]


@dataclass(frozen=True)
class BlockChange(Change):
    """What has to happen to one block."""

    document: BlockDocument = field(kw_only=True)


def target_documents(profile: str, name: str, target: Target, secrets: Mapping[str, str]) -> list[BlockDocument]:
    """Return the blocks of one target, each after those that it refers to.

    Args:
        profile: name of the dbt profile.
        secrets: value by environment variable.

    Raises:
        ConfigError: a secret is not what its setting needs.
    """
    output = output_of(name, target, secrets)
    own = [it for it in _warehouse_documents(name, target, secrets, output) if it.slug != output.given]
    return [
        *own,
        BlockDocument(PROFILE_TYPE, profile_block(name), _profile_data(profile, name, output)),
    ]


def slack_documents(slack: SlackWebhook, secrets: Mapping[str, str]) -> list[BlockDocument]:
    """Return the blocks that alerts are sent through, and the one by which the server's automations reach Slack."""
    addresses = {name: secrets[variable] for name, variable in slack.secret_variables().items()}
    # Slack takes a body without this header for a form.
    call = {"url": secrets[slack.url_env], "method": "POST", "headers": {"Content-Type": "application/json"}}
    return [
        *(BlockDocument("slack-webhook", name, {"url": url}) for name, url in addresses.items()),
        BlockDocument("webhook", "slack-webhook", call),
    ]


def pagerduty_documents(pagerduty: PagerDuty, secrets: Mapping[str, str]) -> list[BlockDocument]:
    """Return the block that holds PagerDuty's key, for alerts and for the server's automations."""
    data = {
        "integration_key": secrets[pagerduty.routing_key_env],
        # Prefect requires one, and PagerDuty's events need none.
        "api_key": "not-used",
        "region_name": pagerduty.region,
        "source": "Prefect",
        "notify_type": "failure",
    }
    return [BlockDocument("pager-duty-webhook", "pagerduty", data)]


def airbyte_documents(airbyte: Airbyte, secrets: Mapping[str, str]) -> list[BlockDocument]:
    """Return the blocks with Airbyte's address and credentials: one text each.

    They are not kept as one object: Prefect 3.8.8 shows the fields of an object in a Secret block in clear.
    """
    values = {"airbyte-api-url": airbyte.api_url.rstrip("/")}
    for setting, variable in airbyte.secret_variables().items():
        values[f"airbyte-{setting.replace('_', '-')}"] = secrets[variable]
    return [BlockDocument("secret", name, {"value": value}) for name, value in values.items()]


def cache_documents(cache: DashboardCache, secrets: Mapping[str, str]) -> list[BlockDocument]:
    """Return the block that holds the address of the dashboard cache."""
    return [BlockDocument("secret", CACHE_BLOCK, {"value": secrets[cache.url_env]})]


def _profile_data(profile: str, name: str, output: Output) -> dict[str, Any]:
    # The target configs are inline and of the plain type: prefect-dbt 0.7.25 loses what a profile refers to.
    # Prefect shows a profile to every reader of the API, so it contains no secret.
    outer = ("type", "schema", "threads")
    extras = {key: value for key, value in output.settings.items() if key not in outer}
    if output.sources:
        extras[SOURCES_KEY] = output.sources
    if output.pass_env:
        extras[PASSED_KEY] = list(output.pass_env)
    if output.dbt:
        extras[PROGRAM_KEY] = output.dbt
    if output.task_runs != DEFAULT_TASK_RUNS:
        extras[TASK_RUNS_KEY] = output.task_runs
    if output.given:
        extras[GIVEN_KEY] = output.given
    configs = {key: output.settings[key] for key in outer if key in output.settings} | {"extras": extras}
    return {
        "name": profile,
        "target": name,
        "target_configs": configs | {"block_type_slug": "dbt-cli-target-configs"},
    }


def _warehouse_documents(name: str, target: Target, secrets: Mapping[str, str], output: Output) -> list[BlockDocument]:
    match target:
        case ProfileBlockTarget():
            return []
        case DuckDBTarget() | AdapterTarget():
            return _any_adapter(name, target, secrets, output)
        case PostgresTarget():
            return _postgres(name, target, secrets, output)
        case SnowflakeTarget():
            return _snowflake(name, target, secrets, output)
        case BigQueryTarget():
            return _bigquery(name, target, secrets, output)


def _any_adapter(
    name: str, target: DuckDBTarget | AdapterTarget, secrets: Mapping[str, str], output: Output
) -> list[BlockDocument]:
    """Return dbt's plain target configs, in which dbt looks secrets up, and a block for each secret."""
    configs = _profile_data("", name, output)["target_configs"]
    del configs["block_type_slug"]
    for ours in (SOURCES_KEY, PASSED_KEY, PROGRAM_KEY, TASK_RUNS_KEY):
        configs["extras"].pop(ours, None)
    block = f"{target.warehouse.replace('_', '-')}-target-configs-{name}"
    return [
        *(
            BlockDocument("secret", secret_block(target, setting), {"value": secrets[variable]})
            for setting, variable in target.secret_variables().items()
        ),
        BlockDocument("dbt-cli-target-configs", block, configs),
    ]


def _postgres(name: str, target: PostgresTarget, secrets: Mapping[str, str], output: Output) -> list[BlockDocument]:
    connection = {
        # The driver that dbt-postgres brings along.
        "driver": "postgresql+psycopg2",
        "host": target.host,
        "port": target.port,
        "username": target.user,
        "database": target.dbname,
    }
    if target.password_env:
        connection["password"] = secrets[target.password_env]
    credentials = BlockDocument(
        CREDENTIALS_TYPES["postgres"], target.credentials_name(), {"connection_info": connection}
    )
    keys = {setting: value for setting in KEYS_AS_FILES if (value := output.secret_of(setting))}
    taken = {"type", "schema", "threads", "host", "port", "user", "password", "dbname", *keys}
    configs = _target_configs(target, output, taken) | {"credentials": _reference(credentials)}
    return [
        *(
            BlockDocument("secret", f"{target.credentials_name()}-{setting}", {"value": value})
            for setting, value in keys.items()
        ),
        credentials,
        BlockDocument("dbt-cli-postgres-target-configs", f"postgres-target-configs-{name}", configs),
    ]


def _snowflake(name: str, target: SnowflakeTarget, secrets: Mapping[str, str], output: Output) -> list[BlockDocument]:
    values = {setting: secrets[variable] for setting, variable in target.secret_variables().items()}
    client_secret = values.pop("oauth_client_secret", None)
    if target.private_key_env:
        values["private_key"] = parse_private_key(target, target.private_key_env, values["private_key"])
    authenticator = target.authenticator or "snowflake"
    if authenticator == "programmatic_access_token":
        # The block knows no such authenticator. Snowflake takes such a token as a password too.
        authenticator, values["password"] = "snowflake", values.pop("token")
    elif authenticator.startswith("https://"):
        authenticator, values["endpoint"] = "okta_endpoint", authenticator
    elif authenticator == "jwt":
        authenticator = "oauth"
    plain = {
        "account": target.account,
        "user": target.user,
        "authenticator": authenticator,
        "private_key_path": target.private_key_path,
        "workload_identity_provider": target.workload_identity_provider,
    }
    credentials = BlockDocument(
        CREDENTIALS_TYPES["snowflake"],
        target.credentials_name(),
        {key: value for key, value in (plain | values).items() if value is not None},
    )
    connector = BlockDocument(
        "snowflake-connector",
        f"snowflake-connector-{name}",
        {
            "database": target.database,
            "warehouse": target.virtual_warehouse,
            "schema": target.schema_name,
            "credentials": _reference(credentials),
        },
    )
    # prefect-dbt refuses a schema in both places, and takes these from the connector and its credentials.
    taken = {"type", "schema", "threads", "account", "user", "database", "warehouse", "authenticator"}
    taken |= {"private_key_path", "workload_identity_provider", *target.secret_variables()}
    configs = _target_configs(target, output, taken) | {"connector": _reference(connector)}
    del configs["schema"]
    documents = [
        credentials,
        connector,
        BlockDocument("dbt-cli-snowflake-target-configs", f"snowflake-target-configs-{name}", configs),
    ]
    if client_secret:
        block = f"{target.credentials_name()}-oauth-client-secret"
        documents.insert(0, BlockDocument("secret", block, {"value": client_secret}))
    return documents


def _bigquery(name: str, target: BigQueryTarget, secrets: Mapping[str, str], output: Output) -> list[BlockDocument]:
    documents: list[BlockDocument] = []
    taken = {"type", "schema", "threads", "project", "method", "keyfile", "keyfile_json"}
    taken |= {"token_endpoint", *BIGQUERY_SECRETS}
    configs = _target_configs(target, output, taken) | ({"project": target.project} if target.project else {})
    documents += [
        BlockDocument("secret", secret_block(target, setting), {"value": secrets[variable]})
        for setting, variable in target.secret_variables().items()
        if setting in BIGQUERY_SECRETS
    ]
    # Application default credentials have nothing to keep: the block finds them where it is loaded.
    if target.keyfile_json_env or target.keyfile:
        if target.keyfile_json_env:
            value = secrets[target.keyfile_json_env]
            data: dict[str, Any] = {"service_account_info": parse_keyfile(target.keyfile_json_env, value)}
        else:
            data = {"service_account_file": target.keyfile}
        documents.append(BlockDocument(CREDENTIALS_TYPES["bigquery"], target.credentials_name(), data))
        configs["credentials"] = _reference(documents[-1])
    elif target.given_block:
        configs["credentials"] = Reference(*target.given_block)
    documents.append(BlockDocument("dbt-cli-bigquery-target-configs", f"bigquery-target-configs-{name}", configs))
    return documents


def _target_configs(target: Target, output: Output, taken: set[str]) -> dict[str, Any]:
    extras = {key: value for key, value in output.settings.items() if key not in taken}
    configs: dict[str, Any] = {
        "type": target.warehouse,
        "schema": target.schema_name,
        "threads": target.threads,
    }
    return configs | ({"extras": extras} if extras else {})


def _reference(document: BlockDocument) -> Reference:
    return Reference(document.type_slug, document.name)


def merge(documents: Sequence[BlockDocument]) -> list[BlockDocument]:
    """Return the documents without duplicates, which targets that share a block have, in the same order."""
    return list({document.slug: document for document in documents}.values())


def change_of(document: BlockDocument, saved: SavedDocument | None) -> BlockChange:
    """Compare a declared block with what a server has."""
    if saved is None:
        fields = [FieldChange(path, None, _text_of(document, path, value)) for path, value in _flat(document.data)]
        return BlockChange(document.slug, "create", tuple(fields), document=document)
    declared, found = dict(_flat(document.data)), dict(_flat(saved.data))
    # A document that was saved by its class or in the UI holds the defaults of its type, and ours does not.
    defaults = document.type.defaults
    fields = [
        _field_change(document, path, found, declared)
        for path in dict.fromkeys((*declared, *found))
        if declared.get(path, defaults.get(path)) != found.get(path, defaults.get(path))
    ]
    schema = (document.type.checksum, document.type.version)
    if saved.schema != schema:
        fields.append(FieldChange("block schema", saved.schema[1], schema[1]))
    return BlockChange(document.slug, "update" if fields else "unchanged", tuple(fields), document=document)


def _field_change(
    document: BlockDocument, path: str, found: Mapping[str, Any], declared: Mapping[str, Any]
) -> FieldChange:
    old, new = (_text_of(document, path, values[path]) if path in values else None for values in (found, declared))
    return FieldChange(path, old, new)


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in data.items():
        if key == "block_type_slug" or value is None or value == {}:
            continue
        if isinstance(value, dict):
            flat += _flat(cast(dict[str, Any], value), f"{prefix}{key}.")
        else:
            flat.append((prefix + key, value))
    return flat


def _text_of(document: BlockDocument, path: str, value: object) -> str:
    is_named_so = any(part in _NEVER_SHOWN or is_secret_name(part) for part in path.split("."))
    is_ours = SOURCES_KEY in path.split(".")
    if document.type.is_secret(path) or (is_named_so and not is_ours and not is_env_var(value)):
        return "(secret)"
    return str(value)
