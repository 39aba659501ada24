"""The way of one warehouse from empty raw tables to a full refresh, each step taken once, its rows kept."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from tests.support.warehouses.builds import Finished, Rows, Warehouse, in_order


@dataclass(frozen=True)
class Step:
    """What a dbt command left behind, before the next one changes it."""

    finished: Finished
    models: dict[str, tuple[list[str], Rows]]
    """Column names and rows of each model, without the columns that hold the time of a run."""

    def table(self, model: str, *columns: str) -> Rows:
        """Return the named columns of a model's rows, sorted."""
        names, rows = self.models[model]
        places = [names.index(column) for column in columns]
        return in_order([tuple(row[place] for place in places) for row in rows])

    def warned(self) -> set[str]:
        """Return the names of the tests that warned."""
        return {unique_id.split(".")[2] for unique_id in self.finished.ids("warn")}


class Journey:
    """Steps taken one after the other in the background, so that two warehouses travel at the same time.

    Asking for a step waits for it, and raises what stopped it or a step before it. Nothing else may use the
    warehouse until the last step, `full_refresh`, was asked for.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._empty_build = self._pool.submit(self._build_empty)
        self._first_build = self._pool.submit(self._build_first)
        self._freshness = self._pool.submit(self._measure_freshness)
        self._second_build = self._pool.submit(self._build_second)
        self._full_refresh = self._pool.submit(self._refresh)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def empty_build(self) -> Step:
        """The project built for the first time, on raw tables without a row, with all its tests."""
        return self._empty_build.result()

    @property
    def first_build(self) -> Step:
        """The project built after the first sync, with all tests of data."""
        return self._first_build.result()

    @property
    def freshness(self) -> dict[str, str]:
        """The newest row of every source table after the first sync, by unique id."""
        return self._freshness.result()

    @property
    def second_build(self) -> Step:
        """The project built after the next sync, in which no repository changed, with all tests of data."""
        return self._second_build.result()

    @property
    def full_refresh(self) -> Step:
        """The same raw tables, with the incremental models, and all that stands on them, built anew."""
        return self._full_refresh.result()

    def _build_empty(self) -> Step:
        self.warehouse.load("raw_tables.sql")
        return self._step(self.warehouse.build())

    def _build_first(self) -> Step:
        self._empty_build.result()
        self.warehouse.load("raw_rows.sql")
        return self._step(self.warehouse.build("--exclude-resource-type", "unit_test"))

    def _measure_freshness(self) -> dict[str, str]:
        self._first_build.result()
        # It fails: the rows of a fixture are old.
        self.warehouse.dbt("source", "freshness")
        written = self.warehouse.folder / "target" / "sources.json"
        results: list[dict[str, Any]] = json.loads(written.read_text(encoding="utf-8"))["results"]
        return {result["unique_id"]: result["max_loaded_at"] for result in results}

    def _build_second(self) -> Step:
        self._first_build.result()
        self.warehouse.load("raw_changes.sql")
        return self._step(self.warehouse.build("--exclude-resource-type", "unit_test", "--exclude", "tag:github"))

    def _refresh(self) -> Step:
        self._second_build.result()
        incremental = ("--select", "config.materialized:incremental+")
        return self._step(self.warehouse.build("--full-refresh", *incremental, command="run"))

    def _step(self, finished: Finished) -> Step:
        nodes = self.warehouse.manifest()["nodes"].values()
        models = sorted(node["name"] for node in nodes if node["resource_type"] == "model")
        return Step(finished, self.warehouse.comparable(models))
