"""What a warehouse says when the same statement can succeed a little later: one table, each row with its source.

dbt passes on a driver's message, not its code, so the rows are the words of the messages, matched without regard to
case. What a person has to fix is never in here, however much it sounds like load: a query that needs more memory than
there is, a disk that is full, a daily quota, a statement's own time limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

_POSTGRES = "https://www.postgresql.org/docs/current/errcodes-appendix.html"
_LIBPQ = "https://www.postgresql.org/docs/current/libpq-status.html"
_DUCKDB = "https://duckdb.org/docs/stable/connect/concurrency"
_SNOWFLAKE = "https://docs.snowflake.com/en/sql-reference/transactions"
_SNOWFLAKE_CONNECTOR = (
    "https://github.com/snowflakedb/snowflake-connector-python/blob/main/src/snowflake/connector/errorcode.py"
)
# The class of errors that dbt-snowflake itself tries again, when it connects.
_DBT_SNOWFLAKE = (
    "https://github.com/dbt-labs/dbt-adapters/blob/main/dbt-snowflake/src/dbt/adapters/snowflake/connections.py"
)
_SNOWFLAKE_SESSION = "https://docs.snowflake.com/en/user-guide/session-policies"
_BIGQUERY = "https://cloud.google.com/bigquery/docs/error-messages"
_BIGQUERY_CLIENT = "https://github.com/googleapis/python-bigquery/blob/main/google/cloud/bigquery/retry.py"
_BIGQUERY_QUOTAS = "https://cloud.google.com/bigquery/docs/troubleshoot-quotas"
_BIGQUERY_DML = "https://cloud.google.com/bigquery/docs/data-manipulation-language#dml-limitations"
_DATABRICKS_DELTA = "https://docs.databricks.com/aws/en/optimizations/isolation/row-level-concurrency"
_DELTA_APPEND = "https://docs.databricks.com/gcp/en/error-messages/delta-concurrent-append-error-class"
_DELTA_PROTOCOL = "https://docs.databricks.com/gcp/en/error-messages/delta-protocol-changed-error-class"
_REDSHIFT = (
    "https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation-serializable-isolation-troubleshooting.html"
)
_TRINO = "https://github.com/trinodb/trino/blob/master/core/trino-spi/src/main/java/io/trino/spi/StandardErrorCode.java"
_SQL_SERVER = (
    "https://learn.microsoft.com/en-us/dotnet/api/microsoft.data.sqlclient.sqlconfigurableretryfactory"
    ".baselinetransienterrors"
)
_CLICKHOUSE = "https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp"
_HTTP = "https://www.rfc-editor.org/rfc/rfc9110#name-status-codes"
_HTTP_429 = "https://www.rfc-editor.org/rfc/rfc6585#section-4"
_ERRNO = "https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/errno.h.html"


@dataclass(frozen=True)
class Transient:
    """One kind of failure that passes by itself.

    Attributes:
        pattern: regular expression for the message.
        why: the vendor's name or code for it, and what it means.
        source: where the vendor says so.
    """

    pattern: str
    why: str
    source: str


# Delta Lake's own, on Databricks and on Spark alike.
_DELTA = (
    Transient(
        # A column that is named like one of Delta's own does not pass.
        r"\bdelta_concurrent_(append|delete_delete|delete_read|transaction|write)\b(?!\.change_type_column)",
        "another write changed the same table",
        _DELTA_APPEND,
    ),
    Transient(
        r"\b(concurrent(append|deletedelete|deleteread|transaction|write)|metadatachanged|protocolchanged)exception\b",
        "the same, as runtimes with exceptions in place of codes word it",
        _DATABRICKS_DELTA,
    ),
    Transient(
        r"\bdelta_protocol_changed\b", "another write upgraded the table, or made it at the same time", _DELTA_PROTOCOL
    ),
)

TRANSIENT: Mapping[str, tuple[Transient, ...]] = {
    "any": (
        Transient(
            r"connection (was )?(reset|refused|closed|aborted|timed out)", "ECONNRESET and its neighbours", _ERRNO
        ),
        Transient(r"broken pipe|network is unreachable|no route to host", "EPIPE, ENETUNREACH, EHOSTUNREACH", _ERRNO),
        Transient(r"remote end closed connection|remotedisconnected", "the server hung up before it answered", _HTTP),
        Transient(r"temporary failure in name resolution", "EAI_AGAIN of getaddrinfo", _ERRNO),
        Transient(r"\b429\b.{0,40}too many|too many requests", "429 Too Many Requests", _HTTP_429),
        Transient(
            r"\b(502|503|504)\b.{0,40}(bad gateway|unavailable|time-?out)", "502, 503 and 504 of a gateway", _HTTP
        ),
        Transient(r"rate ?limit ?exceeded", "more requests in a moment than are allowed", _HTTP_429),
    ),
    "postgres": (
        Transient(r"server closed the connection unexpectedly|connection not open", "class 08: connection", _LIBPQ),
        Transient(r"could not (connect to|receive data from|send data to) server", "class 08: connection", _LIBPQ),
        Transient(r"ssl connection has been closed unexpectedly", "class 08: connection", _LIBPQ),
        Transient(r"could not serialize access", "40001 serialization_failure", _POSTGRES),
        Transient(r"canceling statement due to conflict with recovery", "40001, on a standby", _POSTGRES),
        Transient(r"deadlock detected", "40P01 deadlock_detected", _POSTGRES),
        Transient(
            r"too many (connections|clients already)|remaining connection slots are reserved",
            "53300 too_many_connections",
            _POSTGRES,
        ),
        Transient(
            r"out of memory\s+detail:\s+failed on request", "53200 out_of_memory, of the whole server", _POSTGRES
        ),
        Transient(
            r"canceling statement due to lock timeout|could not obtain lock on", "55P03 lock_not_available", _POSTGRES
        ),
        Transient(r"terminating connection due to administrator command", "57P01 admin_shutdown", _POSTGRES),
        Transient(r"terminating connection because of crash of another", "57P02 crash_shutdown", _POSTGRES),
        Transient(
            r"the database system is (starting up|shutting down|in recovery mode|not yet accepting connections)",
            "57P03 cannot_connect_now",
            _POSTGRES,
        ),
        Transient(r"terminating connection due to idle-session timeout", "57P05 idle_session_timeout", _POSTGRES),
        Transient(r"tuple concurrently (updated|deleted)", "XX000: two sessions changed one catalogue row", _POSTGRES),
    ),
    "duckdb": (
        Transient(r"could not set lock on file", "another process writes to the file", _DUCKDB),
        Transient(
            r"transaction conflict|write-write conflict|conflict on (tuple|update)",
            "two transactions changed the same rows or table",
            _DUCKDB,
        ),
    ),
    "snowflake": (
        Transient(r"\b25000[1356]\b", "ER_FAILED_TO_CONNECT_TO_DB, _REQUEST, _SERVER, IDP", _SNOWFLAKE_CONNECTOR),
        Transient(r"\b25101[12]\b", "ER_CONNECTION_TIMEOUT, ER_RETRYABLE_CODE", _SNOWFLAKE_CONNECTOR),
        Transient(r"\b(252007|252010)\b", "a session not renewed, a part of a result not loaded", _SNOWFLAKE_CONNECTOR),
        Transient(r"\b290(429|50[0234])\b", "290000 and the status of HTTP", _SNOWFLAKE_CONNECTOR),
        Transient(
            r"\b(390111|390112|390114)\b|authentication token has expired",
            "an expired session or token; the next command signs in again",
            _SNOWFLAKE_SESSION,
        ),
        Transient(
            r"sql execution internal error",
            "000603: the service's own failure, which may or may not last",
            _DBT_SNOWFLAKE,
        ),
        Transient(
            r"\b000625\b|this lock has not yet been released", "000625: others hold or await the lock", _SNOWFLAKE
        ),
    ),
    "bigquery": (
        Transient(r"\b(job)?backend ?error\b", "backendError, jobBackendError", _BIGQUERY),
        Transient(r"\b(job)?internal ?error\b", "internalError, jobInternalError", _BIGQUERY),
        Transient(
            r"\b(job)?ratelimitexceeded\b|exceeded rate limits", "rateLimitExceeded, jobRateLimitExceeded", _BIGQUERY
        ),
        Transient(
            r"exceeded quota for concurrent", "quotaExceeded of what runs at once, not of a day", _BIGQUERY_QUOTAS
        ),
        Transient(
            r"\b50[0234] (get|post|put|patch|delete) http", "a 5xx of its API, as its client words it", _BIGQUERY_CLIENT
        ),
        Transient(r"retrying (the job )?may solve the problem", "backendError, in its own words", _BIGQUERY),
        Transient(
            r"could not serialize access to table|aborted due to concurrent update",
            "two statements changed the same table",
            _BIGQUERY_DML,
        ),
    ),
    "databricks": _DELTA,
    "spark": _DELTA,
    "redshift": (
        Transient(r"serializable isolation violation", "1023: retry the canceled transaction", _REDSHIFT),
        Transient(r"deadlock detected", "40P01, as in PostgreSQL, which Redshift comes from", _POSTGRES),
    ),
    "trino": (
        Transient(
            r"\b(server_starting_up|server_shutting_down|no_nodes_available)\b",
            "65548, 65545, 65541: the cluster starts, stops or has no worker yet",
            _TRINO,
        ),
        Transient(
            r"\b(too_many_requests_failed|page_transport_(error|timeout)|remote_task_error|remote_host_gone)\b"
            r"|encountered too many errors talking to a worker node",
            "65537, 65539, 65540, 65542, 65558: a worker did not answer",
            _TRINO,
        ),
        Transient(r"\bquery_queue_full\b", "131074: others wait already", _TRINO),
        Transient(r"\bcluster_out_of_memory\b", "131076: too many queries at once; one alone has other codes", _TRINO),
    ),
    "sqlserver": (
        Transient(r"\(1205\)|chosen as the deadlock victim", "1205: rerun the transaction", _SQL_SERVER),
        Transient(r"\(1222\)|lock request time ?out period exceeded", "1222: others hold the lock", _SQL_SERVER),
        Transient(r"\(1204\)|cannot obtain a lock resource at this time", "1204: no lock left", _SQL_SERVER),
        Transient(r"\((40197|40501|40613)\)", "Azure SQL: moved, busy, or not available at the moment", _SQL_SERVER),
        Transient(r"\((10928|10929|49918|49919|49920)\)", "Azure SQL: too much at once", _SQL_SERVER),
    ),
    "clickhouse": (
        Transient(r"\btoo_many_simultaneous_queries\b|code: 202\b", "202 TOO_MANY_SIMULTANEOUS_QUERIES", _CLICKHOUSE),
        Transient(
            r"\b(no_free_connection|socket_timeout|network_error|all_connection_tries_failed)\b"
            r"|code: (203|209|210|279)\b",
            "203, 209, 210, 279: a server of the cluster did not answer",
            _CLICKHOUSE,
        ),
        Transient(
            r"\b(no_zookeeper|keeper_exception)\b|code: (225|999)\b", "225, 999: no session with Keeper", _CLICKHOUSE
        ),
        Transient(
            r"\bpart_is_temporarily_locked\b|code: 384\b", "384: another query works on the same part", _CLICKHOUSE
        ),
    ),
}


def is_transient(message: str, warehouse: str) -> bool:
    """Say whether an error of this warehouse is one that a later try can get past."""
    return any(pattern.search(message) for pattern in (*_patterns("any"), *_patterns(warehouse)))


@cache
def _patterns(warehouse: str) -> tuple[re.Pattern[str], ...]:
    rows = TRANSIENT.get(warehouse, ())
    return tuple(re.compile(row.pattern, re.IGNORECASE | re.DOTALL) for row in rows)
