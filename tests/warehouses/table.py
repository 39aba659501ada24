"""The table of what ran against what: command by warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TABLE_FILE = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- evidence -->", "<!-- /evidence -->"
COMMANDS = ("debug", "seed", "freshness", "snapshot", "run", "test", "build", "docs", "retry", "load")
WAREHOUSES = {
    "duckdb": "DuckDB 2.0",
    "postgres": "PostgreSQL 15",
    "snowflake": "Snowflake (fakesnow 0.12.1)",
    "bigquery": "BigQuery (bqemulator 1.4.0)",
}


def table_of(seen: dict[str, Any]) -> str:
    """Return the table in Markdown; a cell is how many nodes ended well, of how many."""
    found = seen["warehouses"]
    columns = [name for name in WAREHOUSES if name in found]
    lines = [f"| command | {' | '.join(WAREHOUSES[name] for name in columns)} |", "| --- |" + " ---: |" * len(columns)]
    lines += [
        f"| {command} | {' | '.join(_cell(found[name].get(command)) for name in columns)} |" for command in COMMANDS
    ]
    models = found["duckdb"]["rows"]
    equal = {name: sum(found[name]["rows"].get(model) == rows for model, rows in models.items()) for name in columns}
    lines.append(
        "| models with the rows of DuckDB | " + " | ".join(f"{equal[name]} of {len(models)}" for name in columns) + " |"
    )
    return "\n".join(lines)


def _cell(seen: dict[str, Any] | None) -> str:
    if seen is None:
        return "not run"
    if "error" in seen:
        return "fails"
    if "counts" not in seen:
        return "ok" if seen["ok"] else "fails"
    counts = seen["counts"]
    total = sum(counts.values())
    if not total:
        return "ok"
    return f"{counts['succeeded'] + counts.get('warned', 0)} of {total}"


def table_in(text: str) -> str:
    """Return the table that stands in a document."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()
