# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#   "fakesnow[server]==0.12.1",
#   # 5 has no `snowflake.connector.converter`, which fakesnow imports.
#   "snowflake-connector-python>=4.8,<5",
# ]
#
# [tool.uv]
# exclude-newer = "2026-11-01T00:00:00Z"
# ///
"""A local Snowflake: the fakesnow package, made to behave like the service where dbt depends on it.

`uv run --script` makes an environment of its own for it, because it wants another sqlglot than the project and than
the local BigQuery. What is changed, and why:

temporary   tables with a qualified name become plain ones: DuckDB knows temporary tables without a schema only.
merge       qualifies the values it inserts, and writes into one database only.
nulls       of timestamps reach the client as nulls; the package sends 1970-01-01.
sign-in     the password `wrong`, the token `expired`, the role NO_SUCH_ROLE and key pairs that do not fit the public
            key of the option are refused, in Snowflake's words.
places      a database or warehouse that is called NO_SUCH_… is not in use after the sign-in, which goes well.
accepted    and without effect: grants, roles, warehouses, session parameters, comments on columns.
failures    of the package itself become Snowflake errors; an HTTP 500 would be tried again for minutes.
clones      replace what is there, and may be transient and keep grants, which the package does not read.
views       are in INFORMATION_SCHEMA.TABLES too, which `dbt docs generate` reads.
statements  are kept, as are the query tags of sessions, and shown at /statements.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from string import Template
from typing import Any

import fakesnow.arrow as arrow
import fakesnow.cursor as cursor
import fakesnow.server as server
import jwt
import pyarrow as pa
import pyarrow.compute as pc
import snowflake.connector.errors as errors
import uvicorn
from sqlglot import exp
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_Cursor = cursor.FakeSnowflakeCursor
_transform, _execute = _Cursor._transform, _Cursor.execute
_merge, _timestamps = cursor.transforms.merge, arrow.timestamp_to_sf_struct
_comment_sql = cursor.info_schema.insert_table_comment_sql

_ACCEPTED = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\s*alter\s+(table|view)\s+\S+\s+alter\s[\s\S]*?\bcomment\b",
        r"\s*(grant|revoke)\b",
        r"\s*alter\s+session\b",
        r"\s*(create|alter|drop)\s+(or\s+replace\s+)?(role|warehouse)\b",
    )
]
_CLONE = re.compile(
    r"\s*create\s+or\s+replace\s+(?:transient\s+)?table\s+(\S+)\s+clone\s+(\S+)\s+copy\s+grants\s*$", re.IGNORECASE
)
_FUNCTIONS = {"current_session": "'1'", "current_region": "'LOCAL'"}
_NOWHERE = re.compile(r"(databaseName|warehouse)=NO_SUCH_\w+(&schemaName=\w+)?&?")
_GRANTS = ("created_on", "privilege", "granted_on", "name", "granted_to", "grantee_name", "grant_option", "granted_by")
_statements: list[str] = []
_query_tags: list[str | None] = []


def _is_temporary(expression: Any) -> bool:
    return (
        isinstance(expression, exp.Create)
        and expression.kind in ("TABLE", "VIEW")
        and expression.find(exp.TemporaryProperty) is not None
    )


def _plain(expression: Any) -> Any:
    if _is_temporary(expression):
        table = expression.this.find(exp.Table)
        if table is not None and (table.db or table.catalog):
            properties = expression.args["properties"]
            kept = [one for one in properties.expressions if not isinstance(one, exp.TemporaryProperty)]
            properties.set("expressions", kept)
    return expression


def _transformed(self: Any, expression: Any, *arguments: Any, **options: Any) -> Any:
    out = _transform(self, _plain(expression), *arguments, **options)
    if _is_temporary(out):
        out.args.pop("table_comment", None)
    return out


def _qualified_merge(expression: Any) -> Any:
    if isinstance(expression, exp.Merge):
        source = exp.to_identifier(expression.args["using"].alias_or_name)
        for when in expression.args["whens"].expressions:
            then = when.args.get("then")
            if isinstance(then, exp.Insert) and then.expression is not None:
                for column in then.expression.expressions:
                    if isinstance(column, exp.Column) and not column.table:
                        column.set("table", source.copy())
    return _merge(expression)


def _executed(self: Any, command: str, *arguments: Any, **options: Any) -> Any:
    def answer(statement: str) -> Any:
        return _execute(self, statement)

    _statements.append(command)
    functions = _FUNCTIONS | {"current_warehouse": f"'{getattr(self._conn, 'in_use', 'WH')}'"}
    in_use = {"warehouse": getattr(self._conn, "in_use", "WH"), "database": self._conn.database}
    in_use["schema"] = self._conn.schema if self._conn.database else None
    functions |= {f"current_{kind}": "null" for kind, name in in_use.items() if name is None}
    for name, value in functions.items():
        command = re.sub(rf"\b{name}\s*\(\s*\)", value, command, flags=re.IGNORECASE)
    command = _CLONE.sub(r"create or replace table \1 as select * from \2", command)
    try:
        if re.match(r"\s*show\s+grants\b", command, re.IGNORECASE):
            return answer("select " + ", ".join(f"'' as \"{name}\"" for name in _GRANTS) + " where 1 = 0")
        if any(pattern.match(command) for pattern in _ACCEPTED):
            return answer("select 'Statement executed successfully.' as \"status\"")
        return _execute(self, command, *arguments, **options)
    except errors.Error:
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise errors.ProgrammingError(msg=message, errno=603, sqlstate="XX000") from error


def _timestamps_with_nulls(timestamps: Any) -> Any:
    column = timestamps.combine_chunks() if isinstance(timestamps, pa.ChunkedArray) else timestamps
    if column.null_count == 0:
        return _timestamps(column)
    filled = _timestamps(pc.fill_null(column, pa.scalar(0, type=column.type)))
    fields = [filled.type.field(place) for place in range(filled.type.num_fields)]
    return pa.StructArray.from_arrays(filled.flatten(), fields=fields, mask=pc.is_null(column))


def _comment(catalog: str, schema: str, table: str, text: str | None) -> str:
    return _comment_sql(catalog, schema, table, text.replace("'", "''") if text else "")


def _refused(code: str, message: str) -> JSONResponse:
    return JSONResponse({"data": None, "code": code, "message": message, "success": False})


async def _login(request: Any) -> Any:
    body = await request.body()
    text = body if request.headers.get("Content-Encoding") != "gzip" else server.gzip.decompress(body)
    asked = json.loads(text)["data"]
    if asked.get("PASSWORD") == "wrong":
        return _refused("390100", "Incorrect username or password was specified.")
    if asked.get("TOKEN") == "expired":
        return _refused("390318", "OAuth access token expired. [local]")
    if asked.get("AUTHENTICATOR") == "SNOWFLAKE_JWT" and not _fits(asked["TOKEN"]):
        return _refused("390144", "JWT token is invalid. [local]")
    _query_tags.append(asked["SESSION_PARAMETERS"].get("QUERY_TAG"))
    role = request.query_params.get("roleName", "")
    if role == "NO_SUCH_ROLE":
        return _refused(
            "390189",
            f"Role '{role}' specified in the connect string does not exist or not authorized. "
            "Contact your local system administrator, or attempt to login with another role, e.g. PUBLIC.",
        )
    place = _NOWHERE.sub("", request.scope["query_string"].decode())

    async def again() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    answer = await server.login_request(Request(request.scope | {"query_string": place.encode()}, again))
    in_use = None if request.query_params.get("warehouse", "").startswith("NO_SUCH_") else "WH"
    server.sessions[json.loads(answer.body)["data"]["token"]].in_use = in_use
    return answer


def _fits(token: str) -> bool:
    """Say whether a token is signed with the private key to the public key that the server was started with."""
    try:
        jwt.decode(token, _options.public_key.read_bytes(), algorithms=["RS256"])
    except jwt.InvalidTokenError:
        return False
    return True


async def _shown(request: Any) -> JSONResponse:
    return JSONResponse({"statements": _statements, "query_tags": _query_tags})


def _tables_and_views(template: Template) -> Template:
    views = "select database_name, schema_name, view_name as table_name, null as estimated_size, 'VIEW' as kind"
    text = template.template.replace("'BASE TABLE' AS", "tables.kind AS").replace(
        "from duckdb_tables tables",
        "from (select database_name, schema_name, table_name, estimated_size, 'BASE TABLE' as kind from duckdb_tables "
        f"union all {views} from duckdb_views where not internal) tables",
    )
    assert text.count("kind") == 3, "the package makes INFORMATION_SCHEMA.TABLES in another way now"
    return Template(text)


_Cursor._transform, _Cursor.execute = _transformed, _executed
cursor.transforms.merge = _qualified_merge
cursor.info_schema.insert_table_comment_sql = _comment
cursor.info_schema.SQL_CREATE_INFORMATION_SCHEMA_TABLES_VIEW = _tables_and_views(
    cursor.info_schema.SQL_CREATE_INFORMATION_SCHEMA_TABLES_VIEW
)
arrow.timestamp_to_sf_struct = _timestamps_with_nulls

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--public-key", type=Path, required=True, help="of the user, in PEM")
    _options = parser.parse_args()
    routes = [Route("/session/v1/login-request", _login, methods=["POST"]), Route("/statements", _shown)]
    server.app.router.routes[:0] = routes
    uvicorn.run(server.app, host="127.0.0.1", port=_options.port, log_level="warning")
