"""A history with something of everything: failures, a regression, late sources, costs; of any size."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path

from flows.history.rows import Row
from flows.history.store import HistoryStore
from tests.support.history_runs import node, run, stored_together

NAMES = ("orders", "customers", "payments", "sessions", "campaigns", "refunds", "stock", "visits")
LAYERS = ("stg", "int", "fct", "dim")
OWNERS = ("Analytics", "Finance", "Growth")
THREADS = 8


def made_history(
    folder: Path, now: datetime, runs: int = 30, nodes: int = 60, nodes_before: int | None = None
) -> HistoryStore:
    """Return a history of hourly builds up to `now`; all but the last have `nodes_before` nodes, where given."""
    chance = random.Random(7)
    rows = [_sources(now)]
    for number in range(runs):
        is_last = number == runs - 1
        count = nodes if is_last or nodes_before is None else nodes_before
        rows.append(_build(now - timedelta(hours=runs - number), count, number, runs, chance))
    return stored_together(folder, *rows)


def _build(at: datetime, count: int, number: int, runs: int, chance: random.Random) -> list[Row]:
    free = [0.0] * THREADS
    ended: dict[str, float] = {}
    rows: list[Row] = []
    models: list[str] = []
    for place in range(count):
        is_test = place % 5 in (2, 4)
        parents = models[-1:] if is_test else chance.sample(models[-12:], min(2, len(models)))
        name = f"{LAYERS[min(3, 4 * place // count)]}_{NAMES[place % len(NAMES)]}_{place}"
        name = f"not_null_{models[-1].split('.')[-1]}_id" if is_test else name
        ready = max((ended[parent] for parent in parents), default=0.0)
        thread = min(range(THREADS), key=lambda each: max(free[each], ready))
        begun = max(free[thread], ready)
        seconds = chance.uniform(0.1, 0.6) if is_test else chance.uniform(0.5, 9.0)
        if place == 10:
            seconds = 25.0 + chance.random() + (35.0 if number >= runs - 4 else 0.0)
        outcome = "succeeded"
        if place == count // 2 and not is_test and number >= runs - 3:
            outcome = "failed"
        elif is_test and place % 20 == 14 and number % 9 == 8:
            outcome = "warned"
        elif number == runs // 3 and place == count - 1:
            outcome = "failed"
        row = node(
            name,
            outcome,
            seconds,
            "test" if is_test else "model",
            start=begun,
            queue_seconds=begun - ready,
            thread=f"Thread-{thread + 1} (worker)",
            depends_on=parents,
            waited_for=max(parents, key=lambda parent: ended[parent], default=None),
            tested=parents if is_test else [],
            attempts=1,
            owner=OWNERS[place % len(OWNERS)],
            tags=["nightly"] if place % 3 else ["finance", "nightly"],
            path=f"models/{LAYERS[min(3, 4 * place // count)]}/{NAMES[place % len(NAMES)]}/{name}.sql",
            failures=12 if is_test and outcome != "succeeded" else None,
            message='Database Error: Binder Error: Referenced column "amout" not found in FROM clause!\n'
            'Candidate bindings: "amount", "account"'
            if outcome == "failed"
            else None,
            rows_affected=None if is_test else 1000 * place,
            bytes_processed=int(seconds * 2e9),
            bytes_billed=int(seconds * 2.1e9),
            slot_milliseconds=int(seconds * 9000),
        )
        row["unique_id"] = f"{row['unique_id']}.{place}"
        rows.append(row)
        ended[row["unique_id"]] = free[thread] = begun + seconds
        if not is_test:
            models.append(row["unique_id"])
    return run(rows, at, max(ended.values(), default=0.0) + 4.0, warehouse="bigquery")


def _sources(now: datetime) -> list[Row]:
    rows: list[Row] = []
    for name, hours, outcome in (
        ("ads.clicks", 1.4, "succeeded"),
        ("ads.costs", 2.6, "warned"),
        ("shop.orders", 30, "failed"),
    ):
        loaded = now - timedelta(hours=hours)
        source = node(name, outcome, 0.2, "source", owner="Marketing", max_loaded_at=loaded, checked_at=now)
        limits = {"age_seconds": hours * 3600, "warn_after_seconds": 7200.0, "error_after_seconds": 86400.0}
        rows.append(source | limits | {"unique_id": f"source.shop.{name}", "name": name.split(".")[1]})
    return run(rows, now - timedelta(minutes=20), command="dbt source freshness")
