"""The tables of what ran against what, as docs/warehouses.md has them: commands, faults on the line, wrong settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TABLE_FILE = Path(__file__).parents[2] / "docs" / "warehouses.md"
BEGIN, END = "<!-- evidence: written by tests/warehouses -->", "<!-- /evidence -->"
COMMANDS = ["debug", "load", "seed", "freshness", "snapshot", "run", "test", "build", "docs", "retry", "changed"]
WAREHOUSES = {"duckdb": "DuckDB", "postgres": "PostgreSQL", "snowflake": "Snowflake", "bigquery": "BigQuery"}


def tables_of(seen: dict[str, Any], day: str) -> str:
    """Return all tables in Markdown.

    Args:
        day: on which it was seen.
    """
    packages = ", ".join(f"{name} {version}" for name, version in seen["versions"].items())
    found = {name: seen["warehouses"][name] for name in WAREHOUSES}
    servers = [f"{title} ({found[name]['server']})" for name, title in WAREHOUSES.items()]
    return "\n\n".join(
        (
            f"{day}, {packages}.",
            _commands(found, servers),
            _faults(found),
            _checks(found),
        )
    )


def _commands(found: dict[str, Any], servers: list[str]) -> str:
    lines = [_row("command", servers), _row("---", ["---:"] * len(servers))]
    lines += [_row(command, [_cell(way.get(command)) for way in found.values()]) for command in COMMANDS]
    models = found["duckdb"]["rows"]
    equal = [sum(way["rows"].get(model) == rows for model, rows in models.items()) for way in found.values()]
    lines.append(_row("models with the rows of DuckDB", [f"{count} of {len(models)}" for count in equal]))
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


def _faults(found: dict[str, Any]) -> str:
    lines = [_row("what befell a statement in the middle of a run", ["what tried again", "came to"])]
    lines.append(_row("---", ["---", "---"]))
    for name, by_settings in _fault_runs(found):
        lines += [_row(f"{name}: {fault}", [who_tried_again(seen), seen["outcome"]]) for fault, seen in by_settings]
    return "\n".join(lines)


def _fault_runs(found: dict[str, Any]) -> list[tuple[str, list[tuple[str, Any]]]]:
    bigquery = found["bigquery"]
    return [
        ("Snowflake", list(found["snowflake"]["faults"].items())),
        ("BigQuery, `job_retries: 0`", list(bigquery["faults"].items())),
        ("BigQuery, `job_retries: 1`", list(bigquery["faults, client retries"].items())),
    ]


def who_tried_again(seen: dict[str, Any]) -> str:
    """Say who got over a fault: the node's second attempt is ours, a second request in its first is the client's."""
    return "the client" if seen["attempts"] == 1 else "Tributary"


def _checks(found: dict[str, Any]) -> str:
    lines = [_row("settings", ["what `--check` says"]), _row("---", ["---"])]
    lines += [
        _row(f"{WAREHOUSES[name]}: {kind}", [said or "ok"])
        for name in ("snowflake", "bigquery")
        for kind, said in found[name]["checks"].items()
    ]
    return "\n".join(lines)


def _row(head: str, cells: list[str]) -> str:
    return f"| {head} | {' | '.join(cells)} |"


def with_tables(text: str, tables: str) -> str:
    """Return a document with these tables in the place of those that it has."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{TABLE_FILE.name} has no {BEGIN} … {END}"
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"
