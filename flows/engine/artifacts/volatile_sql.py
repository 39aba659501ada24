"""What of a node's SQL no fingerprint of code and data can see: the clock, chance, files, tables outside the DAG."""

from __future__ import annotations

import re

# Words whose value is another one the next time. `current_timestamp` also stands for dbt's macro of that name.
_CLOCK = re.compile(
    r"\b(current_timestamp|current_date|current_time|current_datetime|localtimestamp|localtime|sysdate|systimestamp"
    r"|statement_timestamp|transaction_timestamp|clock_timestamp|run_started_at|get_current_timestamp)\b"
    r"|\b(now|getdate|getutcdate|today|utcnow|sysutcdatetime)\s*\(",
    re.IGNORECASE,
)
_CHANCE = re.compile(
    r"\b(random|rand|randn|uuid|uuidv4|uuidv7|gen_random_uuid|generate_uuid|uuid_string|newid|randstr|nextval|uniform)"
    r"\s*\(|\btablesample\b|\busing\s+sample\b|\binvocation_id\b",
    re.IGNORECASE,
)
_OUTSIDE = re.compile(
    r"\b(read_csv|read_csv_auto|read_parquet|read_json|read_json_auto|read_ndjson|read_text|read_blob|parquet_scan"
    r"|csv_scan|iceberg_scan|delta_scan|sqlite_scan|postgres_scan|postgres_query|mysql_scan|glob|external_query|dblink)"
    r"\s*\(|\b(?:from|join)\s+'",
    re.IGNORECASE,
)
# What Python models do beside reading what dbt gives them.
_OUTSIDE_PYTHON = re.compile(r"\b(requests|urllib|httpx|boto3|socket|subprocess)\b|\bopen\s*\(|\bread_\w+\s*\(")
_CLOCK_PYTHON = re.compile(r"\b(now|today|utcnow|time|random\w*|rand\w*|uuid\d?|sample)\s*\(")

_COMMENTS = re.compile(r"\{#.*?#\}|/\*.*?\*/|--[^\n]*", re.DOTALL)
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_TEXTS = re.compile(r"'(?:[^']|'')*'")
_JINJA_MARK = "jinja_"
# `from` in here is not followed by a table: extract(year from t.day), trim(both from t.name), a is distinct from b.
_OTHER_FROM = re.compile(r"\b(extract|substring|trim|overlay|position)\s*\([^()]*\)|\bdistinct\s+from\b", re.IGNORECASE)
_CTE = re.compile(r"([\w\"`]+)\s*(?:\([^()]*\)\s*)?as\s+(?:(?:not\s+)?materialized\s+)?\(", re.IGNORECASE)
_TABLE = re.compile(
    r"\b(?:from|join)\s+(?:lateral\s+|only\s+)?([\w\"`$]+(?:\s*\.\s*[\w\"`$]+)*)(\s*\()?", re.IGNORECASE
)
_NO_TABLE = frozenset({"lateral", "unnest", "values", "select", "table"})

_DYNAMIC_LOOKUP = re.compile(r"\benv_var\s*\(\s*(?!['\"])[^)\s]")


def unseen_in_sql(text: str) -> str:
    """Return what can make a SQL model or test come out otherwise with the same code and data; empty when nothing."""
    bare = _COMMENTS.sub(" ", text)
    if found := unseen_words(bare):
        return found
    if table := _foreign_table(bare):
        return f"reads {table}, which is neither a ref nor a source"
    return ""


def unseen_words(text: str) -> str:
    """Return the same for a part of a query, such as a macro, whose tables cannot be told from other words."""
    bare = _COMMENTS.sub(" ", text)
    for pattern, says in ((_CLOCK, "reads the clock"), (_CHANCE, "is left to chance"), (_OUTSIDE, "reads files")):
        if match := pattern.search(bare):
            return f"{says} ({_word(match)})"
    if _DYNAMIC_LOOKUP.search(bare):
        return "looks up an environment variable whose name is worked out while it runs"
    return ""


def unseen_in_python(text: str) -> str:
    """Return the same for a Python model."""
    bare = re.sub(r"#[^\n]*", " ", text)
    for pattern, says in ((_CLOCK_PYTHON, "is left to clock or chance"), (_OUTSIDE_PYTHON, "reads from outside")):
        if match := pattern.search(bare):
            return f"{says} ({_word(match)})"
    return ""


def _word(match: re.Match[str]) -> str:
    return " ".join(match[0].rstrip("( '").split())


def _foreign_table(text: str) -> str:
    """Return the first table that stands in the SQL by its own name."""
    flat = _OTHER_FROM.sub(" ", _TEXTS.sub("''", _JINJA.sub(_JINJA_MARK, text)))
    known = {_plain(match[1]) for match in _CTE.finditer(flat)}
    for match in _TABLE.finditer(flat):
        name = re.sub(r"\s", "", match[1])
        is_function = match[2] is not None
        # A whole name made by Jinja is a ref or a source; one that Jinja begins and text ends is a table's own name.
        if is_function or not name.replace(_JINJA_MARK, "") or _plain(name) in known | _NO_TABLE:
            continue
        return name.replace(_JINJA_MARK, "…")
    return ""


def _plain(name: str) -> str:
    return name.strip('"`').lower()
