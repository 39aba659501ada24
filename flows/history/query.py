"""Run SQL on the history and return the answer as documents or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.history.store import HistoryStore
from infrastructure.errors import ConfigError

EXAMPLES = {
    "the last ten runs": "select run_started_at, target, command, run_outcome, nodes, failed, seconds "
    "from runs order by 1 desc limit 10",
    "the slowest models of the last 30 days": "select name, median(seconds) as usual_seconds, max(seconds) as longest "
    "from nodes where resource_type = 'model' and started_at > now() - interval 30 day group by 1 order by 2 desc",
    "what failed, how often, and when last": "select name, count(*) as times, max(finished_at) as last "
    "from nodes where outcome = 'failed' group by 1 order by 3 desc",
    "bytes by model and month": "select date_trunc('month', started_at) as month, name, sum(bytes_processed) as bytes "
    "from nodes group by all order by 1, 3 desc",
}


@dataclass(frozen=True)
class QueryResult:
    """The columns and rows of a query's answer."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def documents(self) -> list[dict[str, Any]]:
        """Return a document per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def csv_text(self) -> str:
        """Return the rows as CSV with a header; empty for null."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


def ask(store: HistoryStore, sql: str) -> QueryResult:
    """Run a query on the views `runs` and `nodes`.

    Raises:
        ConfigError: the SQL is wrong, or reads something other than the history.
        UpstreamUnavailable: the history could not be read.
    """
    import duckdb

    with store.reading() as connection, store.errors():
        try:
            found = connection.execute(sql)
            columns = tuple(entry[0] for entry in found.description or ())
            return QueryResult(columns, tuple(found.fetchall()))
        except duckdb.Error as exc:
            if isinstance(exc, (duckdb.IOException, duckdb.HTTPException)) or "Traceback" in str(exc):
                raise
            raise ConfigError(f"The query failed. {_readable(str(exc))}") from exc


def column_names(store: HistoryStore) -> dict[str, Sequence[str]]:
    """Return the columns of the views."""
    with store.reading() as connection:
        return {
            view: [str(row[0]) for row in connection.execute(f"describe {view}").fetchall()]
            for view in ("runs", "nodes")
        }


def _readable(text: str) -> str:
    # DuckDB marks the place in further lines; the message keeps the first.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    hints = [line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))]
    return " ".join([*lines[:1], *hints[:1]])
