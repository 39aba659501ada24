"""The settings of a target's warehouse: one class per warehouse, with every way of signing in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from infrastructure.targets.adapter import AdapterTarget
from infrastructure.targets.settings import Count, Name, Port, Seconds, Variable, WarehouseTarget
from infrastructure.yaml_file import meant

# The types of the blocks that hold what a target signs in with.
CREDENTIALS_TYPES = {
    "postgres": "sqlalchemy-connector",
    "snowflake": "snowflake-credentials",
    "bigquery": "gcp-credentials",
}


def _or_block(*names: str) -> ConfigDict:
    """Have editors ask for settings, or for the block of one's own that they may be in."""

    def relax(schema: dict[str, Any]) -> None:
        schema["required"] = [name for name in schema["required"] if name not in names]
        schema["anyOf"] = [{"required": list(names)}, {"required": ["credentials_block"]}]

    return ConfigDict(json_schema_extra=relax)


def _no_memory(path: str) -> str:
    if path.startswith(":memory:"):
        raise ValueError("must be a file: dbt runs in a process per command, and a database in memory ends with it")
    return path


class DuckDBTarget(WarehouseTarget):
    """A DuckDB file: no server, no account, no secret."""

    warehouse: Literal["duckdb"]
    path: Annotated[str, AfterValidator(_no_memory)] = Field(
        min_length=1, description="Database file; a relative path starts at the workspace."
    )
    extensions: list[str] | None = Field(default=None, description="DuckDB extensions to install and load.")
    settings: dict[str, str | int | bool] | None = Field(
        default=None, description="DuckDB settings, such as memory_limit."
    )


class PostgresTarget(WarehouseTarget):
    """A PostgreSQL database."""

    model_config = _or_block("host", "user", "dbname")
    credential_settings: ClassVar[tuple[str, ...]] = ("host", "port", "user", "dbname", "password_env", "sslkey_env")
    default_credentials_block: ClassVar[str] = "postgres-credentials"

    warehouse: Literal["postgres"]
    host: str = Field(min_length=1)
    port: Port = 5432
    user: str = Field(min_length=1)
    password_env: Variable | None = Field(
        default=None,
        description="Variable that holds the password. Leave it out for trust, peer, certificate or .pgpass.",
    )
    dbname: str = Field(min_length=1)
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = None
    sslrootcert: str | None = Field(
        default=None, description="Path on the machine where dbt runs; as are sslcert and sslkey."
    )
    sslcert: str | None = None
    sslkey: str | None = None
    sslkey_env: Variable | None = Field(
        default=None, description="Variable that holds the client key's PEM text, in place of a file; not encrypted."
    )
    role: str | None = Field(default=None, description="Role to take on after the connection is made.")
    search_path: str | None = None
    keepalives_idle: Count | None = Field(
        default=None, description="Seconds of silence before a keepalive; 0 is the system's."
    )
    connect_timeout: Seconds | None = Field(default=None, description="Seconds; dbt's default is 10.")
    retries: Count | None = Field(default=None, description="How often a connection is tried again.")
    application_name: str | None = None

    @model_validator(mode="after")
    def _has_one_client_key(self) -> PostgresTarget:
        if self.sslkey and self.sslkey_env:
            raise ValueError("has its client key in sslkey and in sslkey_env; keep one of them")
        if self.sslkey_env and not self.sslcert:
            raise ValueError("sslkey_env needs sslcert, the certificate that the key belongs to")
        return self


SNOWFLAKE_TOKEN_AUTHENTICATORS = ("oauth", "jwt", "programmatic_access_token")
_AUTHENTICATORS = (
    *SNOWFLAKE_TOKEN_AUTHENTICATORS,
    "externalbrowser",
    "username_password_mfa",
    "workload_identity",
)


def _is_authenticator(text: str) -> str:
    if text not in _AUTHENTICATORS and not text.startswith("https://"):
        known = ", ".join(_AUTHENTICATORS)
        raise ValueError(f"expected {known} or https://<your Okta>, found {text!r}{meant(text, _AUTHENTICATORS)}")
    return text


class SnowflakeTarget(WarehouseTarget):
    """A Snowflake account: key pair, password, token, browser, Okta or workload identity."""

    model_config = _or_block("account")
    credential_settings: ClassVar[tuple[str, ...]] = (
        "account",
        "user",
        "authenticator",
        "password_env",
        "private_key_env",
        "private_key_path",
        "private_key_passphrase_env",
        "token_env",
        "oauth_client_secret_env",
        "workload_identity_provider",
    )
    default_credentials_block: ClassVar[str] = "snowflake-credentials"

    warehouse: Literal["snowflake"]
    account: str = Field(min_length=1, description="Account identifier, such as myorg-myaccount.")
    user: str | None = None
    database: str = Field(min_length=1)
    virtual_warehouse: str = Field(min_length=1, description="What Snowflake calls a warehouse: it runs the queries.")
    role: str | None = None
    password_env: Variable | None = None
    private_key_env: Variable | None = Field(default=None, description="Variable that holds the key pair's PEM text.")
    private_key_path: str | None = Field(default=None, description="PEM file on the machine where dbt runs.")
    private_key_passphrase_env: Variable | None = None
    token_env: Variable | None = Field(default=None, description="Variable that holds the OAuth, JWT or access token.")
    oauth_client_id: str | None = Field(
        default=None, description="With a client id and secret, the token is a refresh token."
    )
    oauth_client_secret_env: Variable | None = None
    authenticator: Annotated[str, AfterValidator(_is_authenticator)] | None = Field(
        default=None,
        description="externalbrowser, username_password_mfa, oauth, jwt, programmatic_access_token, "
        "workload_identity or https://<your Okta>. Leave it out for a password or a key pair.",
    )
    workload_identity_provider: Literal["aws", "azure", "gcp", "oidc"] | None = None
    host: str | None = Field(default=None, description="Host of a private link, if the account is reached through one.")
    port: Port | None = None
    protocol: Literal["http", "https"] | None = None
    s3_stage_vpce_dns_name: str | None = Field(default=None, description="Private endpoint of the internal stage.")
    query_tag: str | None = Field(default=None, max_length=2000)
    session_parameters: dict[str, str | int | bool] | None = Field(
        default=None,
        description="For Python clients of the warehouse; dbt-snowflake 1.12 has no such setting.",
    )
    client_session_keep_alive: bool | None = None
    reuse_connections: bool | None = None
    connect_retries: Count | None = None
    connect_timeout: Seconds | None = None
    retry_on_database_errors: bool | None = None
    retry_all: bool | None = None

    @model_validator(mode="after")
    def _signs_in_one_way(self) -> SnowflakeTarget:
        ways = [
            name for name in ("password_env", "private_key_env", "private_key_path", "token_env") if getattr(self, name)
        ]
        authenticator = self.authenticator or ""
        if len(ways) > 1:
            raise ValueError(f"signs in with {' and '.join(ways)}; keep one of them")
        if authenticator == "workload_identity":
            if not self.workload_identity_provider:
                raise ValueError("workload_identity needs workload_identity_provider: aws, azure, gcp or oidc")
            if self.workload_identity_provider == "oidc" and ways != ["token_env"]:
                raise ValueError("workload_identity with oidc needs token_env")
        elif authenticator in SNOWFLAKE_TOKEN_AUTHENTICATORS and ways != ["token_env"]:
            raise ValueError(f"authenticator {authenticator} needs token_env, the variable that holds the token")
        elif (authenticator == "username_password_mfa" or authenticator.startswith("https://")) and ways != [
            "password_env"
        ]:
            raise ValueError(f"authenticator {authenticator} needs password_env, the variable that holds the password")
        elif ways == ["token_env"] and authenticator not in SNOWFLAKE_TOKEN_AUTHENTICATORS:
            raise ValueError(
                "token_env needs an authenticator: oauth, jwt, programmatic_access_token or workload_identity"
            )
        elif not ways and authenticator != "externalbrowser":
            raise ValueError("does not say how to sign in: give private_key_env, password_env or an authenticator")
        if self.private_key_passphrase_env and not (self.private_key_env or self.private_key_path):
            raise ValueError("private_key_passphrase_env needs private_key_env or private_key_path")
        if bool(self.oauth_client_id) != bool(self.oauth_client_secret_env):
            raise ValueError("oauth_client_id and oauth_client_secret_env go together")
        if self.oauth_client_id and authenticator != "oauth":
            raise ValueError("oauth_client_id needs authenticator: oauth")
        if not self.user and authenticator not in ("workload_identity", "oauth", "jwt"):
            raise ValueError("user is required")
        return self


def _not_scrubbed(variable: str | None) -> str | None:
    # dbt refuses filters on such variables, and the local profiles.yml needs one to turn text into a mapping.
    if variable and variable.startswith("DBT_ENV_SECRET_"):
        raise ValueError("cannot begin with DBT_ENV_SECRET_: dbt does not read JSON out of such a variable")
    return variable


# The setting that selects each way of signing in to BigQuery, and dbt-bigquery's name of the way.
BIGQUERY_WAYS = {
    "keyfile_json_env": "service-account-json",
    "keyfile": "service-account",
    "method": "oauth",
    "token_env": "oauth-secrets",
    "refresh_token_env": "oauth-secrets",
    "workload_pool_provider_path": "external-oauth-wif",
}


class BigQueryTarget(WarehouseTarget):
    """A BigQuery project: service account, default credentials, OAuth token or workload identity federation."""

    model_config = _or_block("project")
    credential_settings: ClassVar[tuple[str, ...]] = (
        "keyfile_json_env",
        "keyfile",
        "token_env",
        "refresh_token_env",
        "client_secret_env",
        "token_request_data_env",
    )
    default_credentials_block: ClassVar[str] = "gcp-credentials"

    warehouse: Literal["bigquery"]
    project: str = Field(min_length=1)
    keyfile_json_env: Annotated[Variable | None, AfterValidator(_not_scrubbed)] = Field(
        default=None, description="Variable that holds the JSON text of a service account's key file."
    )
    keyfile: str | None = Field(
        default=None, description="Key file of a service account on the machine where dbt runs."
    )
    method: Literal["oauth"] | None = Field(
        default=None, description="oauth: application default credentials, no key at all."
    )
    token_env: Variable | None = Field(
        default=None, description="Variable that holds an OAuth access token, which works for an hour."
    )
    refresh_token_env: Variable | None = Field(
        default=None, description="Variable that holds an OAuth refresh token; needs client_id and client_secret_env."
    )
    client_id: str | None = Field(default=None, description="Client id that the refresh token belongs to.")
    client_secret_env: Variable | None = None
    token_uri: str | None = Field(default=None, description="Where a refresh token is exchanged, if not at Google.")
    workload_pool_provider_path: str | None = Field(
        default=None,
        description="//iam.googleapis.com/projects/…/providers/…: workload identity federation with Microsoft Entra. "
        "For GKE, AWS and every other provider use method: oauth.",
    )
    token_request_url: str | None = Field(
        default=None,
        description="Entra's address of tokens: https://login.microsoftonline.com/<tenant>/oauth2/v2.0/token.",
    )
    token_request_data_env: Variable | None = Field(
        default=None, description="Variable that holds the form that is posted there: client_id=…&client_secret=…&…"
    )
    service_account_impersonation_url: str | None = Field(
        default=None, description="Service account that the federated identity acts as."
    )
    impersonate_service_account: str | None = None
    location: str | None = Field(default=None, description="Where the dataset is, such as EU.")
    execution_project: str | None = Field(
        default=None, description="Project that pays for the queries, if another one."
    )
    quota_project: str | None = None
    priority: Literal["interactive", "batch"] | None = None
    maximum_bytes_billed: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="A query that would bill more fails, and costs nothing."
    )
    job_execution_timeout_seconds: Seconds | None = None
    job_creation_timeout_seconds: Seconds | None = None
    job_retries: Count | None = None
    job_retry_deadline_seconds: Seconds | None = None
    scopes: list[str] | None = None
    api_endpoint: str | None = Field(default=None, description="Address of a private endpoint or of a local server.")

    @model_validator(mode="after")
    def _signs_in_one_way(self) -> BigQueryTarget:
        ways = [name for name in BIGQUERY_WAYS if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"signs in with {' and '.join(ways)}; keep one of them")
        if not ways:
            raise ValueError(
                "does not say how to sign in: give keyfile_json_env (a variable), keyfile (a path), "
                "method: oauth (application default credentials), refresh_token_env or token_env"
            )
        _belongs(self, "refresh_token_env", ("client_id", "client_secret_env"), ("token_uri",))
        federated = ("token_request_url", "token_request_data_env")
        _belongs(self, "workload_pool_provider_path", federated, ("service_account_impersonation_url",))
        return self


def _belongs(target: WarehouseTarget, way: str, needed: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """Raise ValueError when a way of signing in lacks one of its settings, or when one is there without it."""
    given = [name for name in (*needed, *allowed) if getattr(target, name)]
    lacking = [name for name in needed if name not in given]
    if getattr(target, way) and lacking:
        raise ValueError(f"{way} needs {' and '.join(lacking)}")
    if given and not getattr(target, way):
        raise ValueError(f"{' and '.join(given)} goes with {way}, which is not there")


class PostgresOfBlock(PostgresTarget):
    """A PostgreSQL database whose host, user and password are in a SqlAlchemyConnector block of one's own."""

    given_type: ClassVar[str] = CREDENTIALS_TYPES["postgres"]
    credential_settings: ClassVar[tuple[str, ...]] = ()

    host: str = ""
    user: str = ""
    dbname: str = ""


class SnowflakeOfBlock(SnowflakeTarget):
    """A Snowflake account that a SnowflakeCredentials block of one's own signs in to."""

    given_type: ClassVar[str] = CREDENTIALS_TYPES["snowflake"]
    credential_settings: ClassVar[tuple[str, ...]] = ()

    account: str = ""

    @model_validator(mode="after")
    def _signs_in_one_way(self) -> SnowflakeOfBlock:
        return self


class BigQueryOfBlock(BigQueryTarget):
    """A BigQuery project that a GcpCredentials block of one's own signs in to."""

    given_type: ClassVar[str] = CREDENTIALS_TYPES["bigquery"]
    credential_settings: ClassVar[tuple[str, ...]] = ()

    project: str = ""

    @model_validator(mode="after")
    def _signs_in_one_way(self) -> BigQueryOfBlock:
        return self


def profile_block(target: str) -> str:
    """Return the name of the block that setup saves a target's profile under."""
    return f"dbt-cli-profile-{target}"


class ProfileBlockTarget(WarehouseTarget):
    """A target that a DbtCliProfile block of one's own describes, on any adapter."""

    given_type: ClassVar[str] = "dbt-cli-profile"

    profile_block: Name = Field(
        description="A dbt CLI Profile block of yours, used as it is; `schema` and `threads` here come before its own."
    )
    schema_name: str = Field(default="", alias="schema", description="In place of the schema in the block.")

    @model_validator(mode="after")
    def _is_its_own_sign_in(self) -> ProfileBlockTarget:
        if self.credentials_block:
            raise ValueError("has `profile_block`, which brings its credentials: leave `credentials_block` out")
        return self

    @property
    def warehouse(self) -> str:
        """Return "", as only the block says which warehouse it is."""
        return ""

    def credentials_name(self) -> str:
        """Return the name of the block."""
        return self.profile_block


WAREHOUSES: dict[str, type[WarehouseTarget]] = {
    "duckdb": DuckDBTarget,
    "postgres": PostgresTarget,
    "snowflake": SnowflakeTarget,
    "bigquery": BigQueryTarget,
}


# Each with the settings that say how to sign in: an entry that has none of them, and names a block, means its own.
_OF_BLOCK: dict[str, tuple[type[WarehouseTarget], frozenset[str]]] = {
    "postgres": (PostgresOfBlock, frozenset(PostgresTarget.credential_settings)),
    "snowflake": (SnowflakeOfBlock, frozenset(SnowflakeTarget.credential_settings)),
    "bigquery": (BigQueryOfBlock, frozenset({*BigQueryTarget.credential_settings, *BIGQUERY_WAYS})),
}


def model_for(entry: Mapping[str, Any]) -> type[WarehouseTarget]:
    """Return the class of the settings of an entry in targets.yml.

    Raises:
        ValidationError: it names no warehouse that has one, and no adapter.
    """
    if "profile_block" in entry:
        return ProfileBlockTarget
    if "adapter" in entry:
        return AdapterTarget
    warehouse = entry.get("warehouse")
    if isinstance(warehouse, str) and warehouse in _OF_BLOCK and "credentials_block" in entry:
        model, sign_in = _OF_BLOCK[warehouse]
        if not sign_in & entry.keys():
            return model
    if isinstance(warehouse, str) and warehouse in WAREHOUSES:
        return WAREHOUSES[warehouse]
    error = InitErrorDetails(type="missing", loc=("warehouse",), input=None)
    if warehouse is not None:
        known = ", ".join(f"`{name}`" for name in WAREHOUSES)
        other = meant(str(warehouse), list(WAREHOUSES)) or "; any other dbt adapter is named with `adapter`"
        text = ValueError(f"expected one of {known}, found {str(warehouse)!r}{other}")
        error = InitErrorDetails(type="value_error", loc=("warehouse",), input=None, ctx={"error": text})
    raise ValidationError.from_exception_data("Target", [error])


def _read(entry: object) -> WarehouseTarget:
    if isinstance(entry, WarehouseTarget):
        return entry
    if not isinstance(entry, dict):
        raise ValidationError.from_exception_data("Target", [InitErrorDetails(type="dict_type", input=entry)])
    settings = cast(dict[str, Any], entry)
    return model_for(settings).model_validate(settings)


_OfFour = Annotated[DuckDBTarget | PostgresTarget | SnowflakeTarget | BigQueryTarget, Field(discriminator="warehouse")]
Target = Annotated[
    DuckDBTarget | PostgresTarget | SnowflakeTarget | BigQueryTarget | AdapterTarget | ProfileBlockTarget,
    # A union of pydantic's would say of every class what does not fit it.
    PlainValidator(_read, json_schema_input_type=_OfFour | AdapterTarget | ProfileBlockTarget),
]
