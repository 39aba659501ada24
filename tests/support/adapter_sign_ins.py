"""Targets on seven adapters that have no class of their own, each as its page of dbt's documents has the output."""

from __future__ import annotations

import re
from typing import Any

from tests.support.sign_ins import SignIn

# https://docs.getdbt.com/docs/local/connect-data-platform/ followed by the name here, up to `setup`.
_OUTPUTS: dict[str, dict[str, Any]] = {
    "databricks-setup": {
        **{"type": "databricks", "catalog": "main", "schema": "marts", "host": "acme.cloud.databricks.com"},
        **{"http_path": "/sql/1.0/warehouses/4711", "token": "dapi-0815", "threads": 4},
    },
    "databricks-setup-oauth": {
        **{"type": "databricks", "catalog": "main", "schema": "marts", "host": "acme.cloud.databricks.com"},
        **{"http_path": "/sql/1.0/warehouses/4711", "auth_type": "oauth", "client_id": "4711"},
        **{"client_secret": "databricks-client-0815", "threads": 4},
        "connection_parameters": {"use_cloud_fetch": True, "proxy": {"password": "databricks-proxy-0815"}},
    },
    "databricks-setup-azure": {
        **{"type": "databricks", "catalog": "main", "schema": "marts", "host": "adb-4711.7.azuredatabricks.net"},
        **{"http_path": "/sql/1.0/warehouses/4711", "auth_type": "oauth", "azure_client_id": "4711"},
        **{"azure_client_secret": "azure-client-0815", "session_properties": {"ansi_mode": True}, "threads": 4},
    },
    "redshift-setup": {
        **{"type": "redshift", "host": "acme.eu-west-1.redshift.amazonaws.com", "user": "loader", "port": 5439},
        **{"password": "redshift-0815", "dbname": "analytics", "schema": "marts", "threads": 4, "sslmode": "require"},
        **{"connect_timeout": 30, "ra3_node": True, "autocommit": True},
    },
    "redshift-setup-iam": {
        **{"type": "redshift", "method": "iam", "cluster_id": "acme", "host": "acme.eu-west-1.redshift.amazonaws.com"},
        **{"user": "loader", "iam_profile": "analyst", "region": "eu-west-1", "dbname": "analytics", "port": 5439},
        **{"schema": "marts", "threads": 4, "autocreate": True, "db_groups": ["ANALYSTS"], "datasharing": True},
    },
    "trino-setup": {
        **{"type": "trino", "method": "ldap", "user": "loader", "password": "trino-0815", "database": "lake"},
        **{"host": "trino.example.org", "port": 443, "schema": "marts", "threads": 8, "http_scheme": "https"},
        "session_properties": {"query_max_run_time": "4h", "exchange_compression": True},
    },
    "trino-setup-jwt": {
        **{"type": "trino", "method": "jwt", "jwt_token": "a.b.trino-0815", "host": "trino.example.org", "port": 443},
        **{"database": "lake", "schema": "marts", "threads": 4, "roles": {"system": "analyst"}},
        "http_headers": {"X-Trino-Client-Info": "dbt", "Authorization": "trino-header-0815"},
    },
    "trino-setup-kerberos": {
        **{"type": "trino", "method": "kerberos", "user": "loader", "keytab": "/etc/trino.keytab", "threads": 4},
        **{"krb5_config": "/etc/krb5.conf", "principal": "trino@EXAMPLE.ORG", "host": "trino.example.org"},
        **{"port": 443, "database": "lake", "schema": "marts", "mutual_authentication": False},
    },
    "trino-setup-certificate": {
        **{"type": "trino", "method": "certificate", "database": "lake", "host": "trino.example.org", "port": 443},
        **{"client_certificate": "/etc/trino/client.pem", "client_private_key": "/etc/trino/client.key"},
        **{"schema": "marts", "threads": 4},
    },
    "clickhouse-setup": {
        **{"type": "clickhouse", "schema": "marts", "host": "clickhouse.example.org", "port": 8443, "user": "loader"},
        **{"password": "clickhouse-0815", "driver": "http", "secure": True, "cluster": "main", "threads": 4},
        "custom_settings": {"max_threads": 4},
    },
    "mssql-setup": {
        **{"type": "sqlserver", "driver": "ODBC Driver 18 for SQL Server", "server": "sql.example.org", "port": 1433},
        **{"database": "analytics", "schema": "dbo", "authentication": "ServicePrincipal", "tenant_id": "4711"},
        **{"client_id": "0815", "client_secret": "sqlserver-0815", "encrypt": True, "threads": 4},
    },
    "mssql-setup-password": {
        **{"type": "sqlserver", "driver": "ODBC Driver 18 for SQL Server", "server": "sql.example.org", "port": 1433},
        **{"database": "analytics", "schema": "dbo", "user": "loader", "password": "mssql-0815", "trust_cert": True},
        **{"authentication": "ActiveDirectoryPassword", "login_timeout": 30, "threads": 4},
    },
    "mssql-setup-windows": {
        **{"type": "sqlserver", "driver": "ODBC Driver 18 for SQL Server", "server": "sql.example.org", "port": 1433},
        **{"database": "analytics", "schema": "dbo", "windows_login": True, "threads": 4},
    },
    "athena-setup-profile": {
        **{"type": "athena", "s3_staging_dir": "s3://acme/staging/", "s3_data_dir": "s3://acme/data/", "threads": 4},
        **{"s3_data_naming": "schema_table", "region_name": "eu-west-1", "database": "lake", "schema": "marts"},
        **{"aws_profile_name": "acme", "num_retries": 3},
    },
    "spark-setup": {
        **{"type": "spark", "method": "odbc", "driver": "/opt/simba/libsparkodbc.so", "schema": "marts", "threads": 4},
        **{"host": "acme.cloud.databricks.com", "token": "spark-0815", "cluster": "4711", "port": 443},
    },
    "spark-setup-thrift": {
        **{"type": "spark", "method": "thrift", "schema": "marts", "host": "emr.example.org", "port": 10001},
        **{"user": "loader", "auth": "LDAP", "password": "thrift-0815", "use_ssl": True, "threads": 4},
        "server_side_parameters": {
            "spark.driver.memory": "4g",
            "spark.hadoop.fs.s3a.secret.key": "s3a-0815",
            "fs.azure.account.key.acme.dfs.core.windows.net": "azure-storage-0815",
        },
    },
    "spark-setup-session": {
        **{"type": "spark", "method": "session", "schema": "marts", "host": "NA", "threads": 1},
        "server_side_parameters": {"spark.driver.memory": "4g"},
    },
    "athena-setup": {
        **{"type": "athena", "s3_staging_dir": "s3://acme/athena/", "region_name": "eu-west-1", "schema": "marts"},
        **{"database": "awsdatacatalog", "threads": 4, "aws_access_key_id": "AKIA4711", "num_retries": 5},
        **{"aws_secret_access_key": "athena-0815", "work_group": "dbt", "seed_s3_upload_args": {"ACL": "private"}},
    },
}


def adapter_sign_ins() -> list[SignIn]:
    """Return a target for each output, with a variable in place of each secret."""
    found: list[SignIn] = []
    for page, output in _OUTPUTS.items():
        environ: dict[str, str] = {}
        settings = _as_declared(output, page, environ)
        settings["adapter"] = settings.pop("type")
        found.append(SignIn(page, settings, output, environ, tuple(environ.values())))
    return found


def _as_declared(settings: dict[str, Any], place: str, environ: dict[str, str]) -> dict[str, Any]:
    declared: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            declared[name] = _as_declared(value, f"{place}-{name}", environ)
        elif str(value).endswith("-0815"):
            variable = re.sub(r"[^A-Z0-9]", "_", f"{place}-{name}".upper())
            environ[variable] = value
            declared[f"{name}_env"] = variable
        else:
            declared[name] = value
    return declared
