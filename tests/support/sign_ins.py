"""Every way of signing in to every warehouse: what targets.yml says, and what dbt must get."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from infrastructure.targets.key_files import path_of_key

PASSPHRASE = "passphrase-4711"


@cache
def private_key(passphrase: str | None = None) -> str:
    """Return a real RSA key in PEM format; the same one all session long."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return pem.decode()


@cache
def keyfile() -> dict[str, str]:
    """Return the key file of a service account that does not exist."""
    return {
        "type": "service_account",
        "project_id": "acme-data",
        "private_key_id": "0f1e2d3c4b5a69788796a5b4c3d2e1f000112233",
        "private_key": private_key(),
        "client_email": "loader@acme-data.iam.gserviceaccount.com",
        "client_id": "104711081511047110815",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/loader",
    }


@dataclass(frozen=True)
class SignIn:
    """One target.

    Attributes:
        settings: its entry in targets.yml.
        environ: the variables that it names.
        connection: dbt's output, secrets put in.
        secrets: what no reader may see.
    """

    name: str
    settings: dict[str, Any]
    connection: dict[str, Any]
    environ: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


_POSTGRES: dict[str, Any] = {
    "warehouse": "postgres",
    "host": "warehouse.example.org",
    "port": 5433,
    "user": "loader",
    "dbname": "analytics",
    "schema": "marts",
    "threads": 6,
}
_POSTGRES_OUTPUT: dict[str, Any] = {
    "type": "postgres",
    "host": "warehouse.example.org",
    "port": 5433,
    "user": "loader",
    "dbname": "analytics",
    "schema": "marts",
    "threads": 6,
}
_SNOWFLAKE: dict[str, Any] = {
    "warehouse": "snowflake",
    "account": "acme-europe",
    "database": "ANALYTICS",
    "virtual_warehouse": "TRANSFORMING",
    "schema": "marts",
}
_SNOWFLAKE_OUTPUT: dict[str, Any] = {
    "type": "snowflake",
    "account": "acme-europe",
    "database": "ANALYTICS",
    "warehouse": "TRANSFORMING",
    "schema": "marts",
    "threads": 4,
}
_USER = {"user": "LOADER"}
_BIGQUERY: dict[str, Any] = {"warehouse": "bigquery", "project": "acme-data", "schema": "marts"}
_POOL = "//iam.googleapis.com/projects/4711/locations/global/workloadIdentityPools/acme/providers/entra"
_BIGQUERY_OUTPUT: dict[str, Any] = {
    "type": "bigquery",
    "project": "acme-data",
    "schema": "marts",
    "threads": 4,
}


def sign_ins(service_account_file: str, private_key_file: str) -> list[SignIn]:
    """Return every sign-in.

    Args:
        service_account_file: a path that holds `keyfile()`.
        private_key_file: a path that holds `private_key()`.
    """
    encrypted = private_key(PASSPHRASE)
    return [
        SignIn(
            "duckdb",
            {
                "warehouse": "duckdb",
                "path": "/data/dev.duckdb",
                "schema": "analytics",
                "settings": {"memory_limit": "2GB"},
            },
            {
                "type": "duckdb",
                "path": "/data/dev.duckdb",
                "schema": "analytics",
                "threads": 4,
                "settings": {"memory_limit": "2GB"},
            },
        ),
        SignIn(
            "pg-password",
            _POSTGRES
            | {
                "password_env": "PG_PASSWORD",
                "sslmode": "verify-full",
                "sslrootcert": "/certs/root.pem",
                "role": "transformer",
                "search_path": "marts,public",
                "keepalives_idle": 30,
                "connect_timeout": 5,
                "retries": 2,
                "application_name": "tributary",
            },
            _POSTGRES_OUTPUT
            | {
                "password": "pg-password-0815",
                "sslmode": "verify-full",
                "sslrootcert": "/certs/root.pem",
                "role": "transformer",
                "search_path": "marts,public",
                "keepalives_idle": 30,
                "connect_timeout": 5,
                "retries": 2,
                "application_name": "tributary",
            },
            {"PG_PASSWORD": "pg-password-0815"},
            ("pg-password-0815",),
        ),
        SignIn("pg-no-password", dict(_POSTGRES), _POSTGRES_OUTPUT | {"password": ""}),
        SignIn(
            "pg-certificate",
            _POSTGRES | {"sslmode": "require", "sslcert": "/certs/client.pem", "sslkey": "/certs/client.key"},
            _POSTGRES_OUTPUT
            | {
                "password": "",
                "sslmode": "require",
                "sslcert": "/certs/client.pem",
                "sslkey": "/certs/client.key",
            },
        ),
        SignIn(
            "pg-key-in-variable",
            _POSTGRES | {"sslmode": "verify-full", "sslcert": "/certs/client.pem", "sslkey_env": "PG_CLIENT_KEY"},
            _POSTGRES_OUTPUT
            | {
                "password": "",
                "sslmode": "verify-full",
                "sslcert": "/certs/client.pem",
                "sslkey": path_of_key(private_key()),
            },
            {"PG_CLIENT_KEY": private_key()},
            (private_key(),),
        ),
        SignIn(
            "sf-password",
            _SNOWFLAKE | _USER | {"password_env": "SF_PASSWORD", "role": "TRANSFORMER"},
            _SNOWFLAKE_OUTPUT | _USER | {"password": "sf-password-0815", "role": "TRANSFORMER"},
            {"SF_PASSWORD": "sf-password-0815"},
            ("sf-password-0815",),
        ),
        SignIn(
            "sf-key-pair",
            _SNOWFLAKE | _USER | {"private_key_env": "SF_KEY", "query_tag": "tributary"},
            _SNOWFLAKE_OUTPUT | _USER | {"private_key": private_key(), "query_tag": "tributary"},
            {"SF_KEY": private_key()},
            (private_key(),),
        ),
        SignIn(
            "sf-encrypted-key-pair",
            _SNOWFLAKE | _USER | {"private_key_env": "SF_ENCRYPTED_KEY", "private_key_passphrase_env": "SF_PASSPHRASE"},
            _SNOWFLAKE_OUTPUT | _USER | {"private_key": encrypted, "private_key_passphrase": PASSPHRASE},
            # As many settings pages hand a key over: one line, with \n for its line breaks.
            {"SF_ENCRYPTED_KEY": encrypted.replace("\n", "\\n"), "SF_PASSPHRASE": PASSPHRASE},
            (encrypted, PASSPHRASE),
        ),
        SignIn(
            "sf-key-file",
            _SNOWFLAKE | _USER | {"private_key_path": private_key_file},
            _SNOWFLAKE_OUTPUT | _USER | {"private_key_path": private_key_file},
        ),
        SignIn(
            "sf-oauth-token",
            _SNOWFLAKE | _USER | {"authenticator": "oauth", "token_env": "SF_TOKEN"},
            _SNOWFLAKE_OUTPUT | _USER | {"authenticator": "oauth", "token": "sf-token-0815"},
            {"SF_TOKEN": "sf-token-0815"},
            ("sf-token-0815",),
        ),
        SignIn(
            "sf-oauth-refresh",
            _SNOWFLAKE
            | _USER
            | {
                "authenticator": "oauth",
                "token_env": "SF_REFRESH_TOKEN",
                "oauth_client_id": "client-4711",
                "oauth_client_secret_env": "SF_CLIENT_SECRET",
            },
            _SNOWFLAKE_OUTPUT
            | _USER
            | {
                "authenticator": "oauth",
                "token": "sf-refresh-token-0815",
                "oauth_client_id": "client-4711",
                "oauth_client_secret": "sf-client-secret-0815",
            },
            {"SF_REFRESH_TOKEN": "sf-refresh-token-0815", "SF_CLIENT_SECRET": "sf-client-secret-0815"},
            ("sf-refresh-token-0815", "sf-client-secret-0815"),
        ),
        SignIn(
            "sf-jwt",
            _SNOWFLAKE | _USER | {"authenticator": "jwt", "token_env": "SF_JWT"},
            _SNOWFLAKE_OUTPUT | _USER | {"authenticator": "jwt", "token": "sf-jwt-0815"},
            {"SF_JWT": "sf-jwt-0815"},
            ("sf-jwt-0815",),
        ),
        SignIn(
            "sf-access-token",
            _SNOWFLAKE | _USER | {"authenticator": "programmatic_access_token", "token_env": "SF_PAT"},
            _SNOWFLAKE_OUTPUT | _USER | {"authenticator": "programmatic_access_token", "token": "sf-access-token-0815"},
            {"SF_PAT": "sf-access-token-0815"},
            ("sf-access-token-0815",),
        ),
        SignIn(
            "sf-mfa",
            _SNOWFLAKE | _USER | {"authenticator": "username_password_mfa", "password_env": "SF_MFA"},
            _SNOWFLAKE_OUTPUT | _USER | {"authenticator": "username_password_mfa", "password": "sf-mfa-0815"},
            {"SF_MFA": "sf-mfa-0815"},
            ("sf-mfa-0815",),
        ),
        SignIn(
            "sf-okta",
            _SNOWFLAKE | _USER | {"authenticator": "https://acme.okta.com", "password_env": "SF_OKTA"},
            _SNOWFLAKE_OUTPUT | _USER | {"authenticator": "https://acme.okta.com", "password": "sf-okta-0815"},
            {"SF_OKTA": "sf-okta-0815"},
            ("sf-okta-0815",),
        ),
        SignIn(
            "sf-browser",
            _SNOWFLAKE | _USER | {"authenticator": "externalbrowser"},
            _SNOWFLAKE_OUTPUT | _USER | {"authenticator": "externalbrowser"},
        ),
        SignIn(
            "sf-workload-identity",
            _SNOWFLAKE | {"authenticator": "workload_identity", "workload_identity_provider": "aws"},
            _SNOWFLAKE_OUTPUT | {"authenticator": "workload_identity", "workload_identity_provider": "aws"},
        ),
        SignIn(
            "sf-private-link",
            _SNOWFLAKE
            | _USER
            | {
                "password_env": "SF_LINK_PASSWORD",
                "host": "acme-europe.privatelink.snowflakecomputing.com",
                "port": 443,
                "protocol": "https",
                "s3_stage_vpce_dns_name": "*.vpce-0a1b.s3.example.org",
                "session_parameters": {"STATEMENT_TIMEOUT_IN_SECONDS": 600},
                "client_session_keep_alive": True,
                "connect_retries": 3,
                "connect_timeout": 10,
                "retry_on_database_errors": True,
            },
            _SNOWFLAKE_OUTPUT
            | _USER
            | {
                "password": "sf-link-0815",
                "host": "acme-europe.privatelink.snowflakecomputing.com",
                "port": 443,
                "protocol": "https",
                "s3_stage_vpce_dns_name": "*.vpce-0a1b.s3.example.org",
                "session_parameters": {"STATEMENT_TIMEOUT_IN_SECONDS": 600},
                "client_session_keep_alive": True,
                "connect_retries": 3,
                "connect_timeout": 10,
                "retry_on_database_errors": True,
            },
            {"SF_LINK_PASSWORD": "sf-link-0815"},
            ("sf-link-0815",),
        ),
        SignIn(
            "bq-key-in-variable",
            _BIGQUERY
            | {
                "keyfile_json_env": "BQ_KEY",
                "location": "EU",
                "priority": "batch",
                "maximum_bytes_billed": 1_000_000_000,
                "job_execution_timeout_seconds": 600,
                "job_creation_timeout_seconds": 60,
                "job_retries": 2,
                "execution_project": "acme-billing",
            },
            _BIGQUERY_OUTPUT
            | {
                "method": "service-account-json",
                "keyfile_json": {
                    name: keyfile()[name]
                    for name in ("type", "token_uri", "private_key", "private_key_id", "client_email")
                },
                "location": "EU",
                "priority": "batch",
                "maximum_bytes_billed": 1_000_000_000,
                "job_execution_timeout_seconds": 600,
                "job_creation_timeout_seconds": 60,
                "job_retries": 2,
                "execution_project": "acme-billing",
            },
            {"BQ_KEY": json.dumps(keyfile())},
            (keyfile()["private_key"], keyfile()["private_key_id"], keyfile()["client_email"]),
        ),
        SignIn(
            "bq-key-file",
            _BIGQUERY | {"keyfile": service_account_file},
            _BIGQUERY_OUTPUT | {"method": "service-account", "keyfile": service_account_file},
        ),
        SignIn("bq-default", _BIGQUERY | {"method": "oauth"}, _BIGQUERY_OUTPUT | {"method": "oauth"}),
        SignIn(
            "bq-impersonation",
            _BIGQUERY
            | {
                "method": "oauth",
                "impersonate_service_account": "builder@acme-data.iam.gserviceaccount.com",
                "scopes": ["https://www.googleapis.com/auth/bigquery"],
                "quota_project": "acme-billing",
                "api_endpoint": "https://bigquery.example.org",
            },
            _BIGQUERY_OUTPUT
            | {
                "method": "oauth",
                "impersonate_service_account": "builder@acme-data.iam.gserviceaccount.com",
                "scopes": ["https://www.googleapis.com/auth/bigquery"],
                "quota_project": "acme-billing",
                "api_endpoint": "https://bigquery.example.org",
            },
        ),
        SignIn(
            "bq-access-token",
            _BIGQUERY | {"token_env": "BQ_TOKEN"},
            _BIGQUERY_OUTPUT | {"method": "oauth-secrets", "token": "bq-token-0815"},
            {"BQ_TOKEN": "bq-token-0815"},
            ("bq-token-0815",),
        ),
        SignIn(
            "bq-refresh-token",
            _BIGQUERY
            | {
                "refresh_token_env": "BQ_REFRESH_TOKEN",
                "client_id": "4711.apps.googleusercontent.com",
                "client_secret_env": "BQ_CLIENT_SECRET",
            },
            _BIGQUERY_OUTPUT
            | {
                "method": "oauth-secrets",
                "refresh_token": "bq-refresh-token-0815",
                "client_id": "4711.apps.googleusercontent.com",
                "client_secret": "bq-client-secret-0815",
                "token_uri": "https://oauth2.googleapis.com/token",
            },
            {"BQ_REFRESH_TOKEN": "bq-refresh-token-0815", "BQ_CLIENT_SECRET": "bq-client-secret-0815"},
            ("bq-refresh-token-0815", "bq-client-secret-0815"),
        ),
        SignIn(
            "bq-workload-identity",
            _BIGQUERY
            | {
                "workload_pool_provider_path": _POOL,
                "token_request_url": "https://login.microsoftonline.com/acme/oauth2/v2.0/token",
                "token_request_data_env": "BQ_TOKEN_REQUEST",
                "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/acme:generateAccessToken",
            },
            _BIGQUERY_OUTPUT
            | {
                "method": "external-oauth-wif",
                "workload_pool_provider_path": _POOL,
                "token_endpoint": {
                    "type": "entra",
                    "request_url": "https://login.microsoftonline.com/acme/oauth2/v2.0/token",
                    "request_data": "client_id=4711&client_secret=entra-secret-0815",
                },
                "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/acme:generateAccessToken",
            },
            {"BQ_TOKEN_REQUEST": "client_id=4711&client_secret=entra-secret-0815"},
            ("client_id=4711&client_secret=entra-secret-0815",),
        ),
    ]
