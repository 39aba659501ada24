"""Which errors of a warehouse are worth another try."""

from __future__ import annotations

import re

import pytest

from flows.engine.ledger.transient import TRANSIENT, is_transient

MESSAGES = [
    ("duckdb", 'IO Error: Could not set lock on file "/data/dev.duckdb": Conflicting lock is held in python (PID 7)'),
    ("duckdb", "TransactionContext Error: Failed to commit: write-write conflict on key"),
    ("postgres", "deadlock detected\nDETAIL:  Process 1 waits for ShareLock on transaction 2"),
    ("postgres", "could not serialize access due to concurrent update"),
    ("postgres", "canceling statement due to lock timeout"),
    ("postgres", 'connection to server at "h", port 5432 failed: FATAL:  sorry, too many clients already'),
    ("postgres", "terminating connection due to administrator command"),
    ("postgres", 'connection to server at "h" (10.0.0.1), port 5432 failed: Connection refused'),
    ("postgres", "server closed the connection unexpectedly"),
    ("postgres", "FATAL:  the database system is starting up"),
    ("snowflake", "250001 (08001): Failed to connect to DB: acme.snowflakecomputing.com:443"),
    ("snowflake", "390114 (08001): Authentication token has expired."),
    ("bigquery", "Exceeded rate limits: too many table update operations; reason: rateLimitExceeded"),
    ("bigquery", "503 Service Unavailable: try again"),
    ("bigquery", "Quota exceeded: Your project exceeded quota for concurrent queries"),
    ("any", "Connection reset by peer"),
    ("databricks", "[DELTA_CONCURRENT_APPEND.ROW_LEVEL_CHANGES] Transaction conflict detected. SQLSTATE: 2D521"),
    ("databricks", "io.delta.exceptions.ConcurrentDeleteReadException: This transaction attempted to read files"),
    ("databricks", "[DELTA_PROTOCOL_CHANGED.CONFLICTING_COMMIT] ProtocolChangedException: The protocol version of the"),
    ("spark", "org.apache.spark.sql.delta.ConcurrentAppendException: [DELTA_CONCURRENT_APPEND] Files were added"),
    ("spark", "[DELTA_PROTOCOL_CHANGED] ProtocolChangedException: The protocol version of the Delta table has changed"),
    ("spark", "TTransportException: Could not connect to any of [('127.0.0.1', 10000)]: Connection refused"),
    ("redshift", "ERROR:1023 DETAIL: Serializable isolation violation on table in Redshift"),
    ("redshift", "deadlock detected"),
    ("trino", "TrinoQueryError(type=INTERNAL_ERROR, name=NO_NODES_AVAILABLE, message='No nodes available')"),
    ("trino", "TrinoExternalError(type=INTERNAL_ERROR, name=REMOTE_HOST_GONE, message='gone')"),
    ("trino", "TrinoQueryError(type=INSUFFICIENT_RESOURCES, name=QUERY_QUEUE_FULL, message='Too many queued')"),
    ("trino", "TrinoQueryError(type=INSUFFICIENT_RESOURCES, name=CLUSTER_OUT_OF_MEMORY, message='low memory')"),
    (
        "sqlserver",
        "('40001', '[40001] Transaction (Process ID 55) was deadlocked and has been chosen as the deadlock victim",
    ),
    ("sqlserver", "[HYT00] Lock request time out period exceeded. (1222) (SQLExecDirectW)"),
    ("sqlserver", "cannot obtain a LOCK resource at this time. Rerun your statement. (1204)"),
    ("sqlserver", "('HY000', \"Database 'analytics' on server 'acme' is not currently available. (40613)\")"),
    ("sqlserver", "Resource ID : 1. The request limit for the database is 60 and has been reached. (10928)"),
    ("clickhouse", "Code: 202. DB::Exception: Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)"),
    ("clickhouse", "Code: 210. DB::NetException: I/O error: while writing to socket. (NETWORK_ERROR)"),
    ("clickhouse", "Code: 999. Coordination::Exception: Session expired. (KEEPER_EXCEPTION)"),
    ("clickhouse", "Code: 384. DB::Exception: Part is locked. (PART_IS_TEMPORARILY_LOCKED)"),
    ("any", "[Errno 32] Broken pipe"),
    ("any", "('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))"),
    ("any", "HTTP Error: HTTP 429 Too Many Requests"),
    ("any", "504 Gateway Timeout"),
    ("any", "Rate limit exceeded"),
    ("postgres", "SSL connection has been closed unexpectedly"),
    ("postgres", "could not receive data from server: Connection timed out"),
    ("postgres", "canceling statement due to conflict with recovery"),
    ("postgres", "out of memory\n  DETAIL:  Failed on request of size 1048576 in memory context"),
    ("postgres", "terminating connection because of crash of another server process"),
    ("postgres", "terminating connection due to idle-session timeout"),
    ("postgres", "tuple concurrently updated"),
    (
        "snowflake",
        "000603 (XX000): SQL execution internal error:\nProcessing aborted by error 300010:391167117; incident 47.",
    ),
    ("snowflake", "251012: 251012: Retryable error"),
    ("snowflake", "252007: 252007: Failed to renew the session"),
    ("snowflake", "290503 (08001): None: 503 Service Unavailable"),
    (
        "snowflake",
        "000625 (57014): Statement '01b' has locked table 'T' in transaction 17 and this lock has not yet been "
        "released.\nYour statement '01c' was aborted because the number of waiters for this lock exceeds the 20 "
        "statements limit.",
    ),
    ("bigquery", "500 Error encountered during execution. Retrying may solve the problem.; reason: backendError"),
    ("bigquery", "Job exceeded rate limits: Your project exceeded quota for concurrent queries; jobRateLimitExceeded"),
    (
        "bigquery",
        "503 GET https://bigquery.googleapis.com/bigquery/v2/projects/p/jobs/1: Visibility check was unavailable",
    ),
    ("bigquery", "jobInternalError"),
    ("bigquery", "Could not serialize access to table p:d.t due to concurrent update"),
    ("snowflake", "Temporary failure in name resolution"),
]
DETERMINISTIC = [
    ("duckdb", 'Binder Error: Referenced column "no_such_column" not found in FROM clause!'),
    ("duckdb", 'Parser Error: syntax error at or near "form"'),
    ("duckdb", "Conversion Error: Could not convert string 'deadlock' to INT32"),
    ("postgres", 'relation "raw.orders" does not exist'),
    ("postgres", "division by zero"),
    ("postgres", 'duplicate key value violates unique constraint "orders_pkey"'),
    ("postgres", "permission denied for schema raw"),
    ("postgres", 'FATAL:  password authentication failed for user "shop"'),
    ("postgres", 'null value in column "id" violates not-null constraint DETAIL: Failing row contains (502, null)'),
    ("snowflake", "002003 (42S02): SQL compilation error: Object 'A.B' does not exist or not authorized."),
    ("bigquery", "Access Denied: Table p:d.t: User does not have permission to query table"),
    ("bigquery", "Query exceeded limit for bytes billed: 1000000. 20971520 or higher required."),
    ("postgres", "could not extend file: No space left on device"),
    ("postgres", "canceling statement due to statement timeout"),
    ("postgres", "out of shared memory HINT: You might need to increase max_locks_per_transaction"),
    ("duckdb", "Out of Memory Error: failed to allocate data of size 16.0 MiB"),
    (
        "snowflake",
        "000630 (57014): Statement reached its statement or warehouse timeout of 60 second(s) and was canceled",
    ),
    ("snowflake", "250008: unable to open a browser"),
    ("bigquery", "Quota exceeded: Your project exceeded quota for free query bytes scanned"),
    ("bigquery", "Resources exceeded during query execution: the query could not be executed in the allotted memory"),
    ("duckdb", "Got 2 results, configured to fail if != 0"),
    ("databricks", "[DELTA_CONCURRENT_APPEND.CHANGE_TYPE_COLUMN] The table contains a column named _change_type"),
    ("trino", "TrinoQueryError(type=INSUFFICIENT_RESOURCES, name=EXCEEDED_LOCAL_MEMORY_LIMIT, message='too large')"),
    ("sqlserver", "[42000] Login failed for user 'loader'. (18456)"),
    ("clickhouse", "Code: 241. DB::Exception: Memory limit (for query) exceeded. (MEMORY_LIMIT_EXCEEDED)"),
    ("redshift", "Query cancelled on user's request: statement timeout"),
]


@pytest.mark.parametrize(("warehouse", "message"), MESSAGES)
def test_what_can_pass_by_itself_is_transient(warehouse: str, message: str) -> None:
    assert is_transient(message, warehouse)


@pytest.mark.parametrize(("warehouse", "message"), DETERMINISTIC)
def test_what_stays_wrong_is_not(warehouse: str, message: str) -> None:
    assert not is_transient(message, warehouse)


def test_the_words_of_one_warehouse_do_not_count_for_another() -> None:
    assert not is_transient("Could not set lock on file", "postgres")
    assert not is_transient("deadlock detected", "a warehouse nobody knows")


def test_every_row_has_a_source_and_a_message_that_it_alone_is_there_for() -> None:
    for warehouse, rows in TRANSIENT.items():
        mine = [message for name, message in MESSAGES if warehouse in (name, "any")]
        for row in rows:
            assert row.why
            assert row.source.startswith("https://")
            assert any(re.search(row.pattern, message, re.IGNORECASE | re.DOTALL) for message in mine), row
