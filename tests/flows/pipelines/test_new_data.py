"""What counts as new data. That it is built, and nothing else, is tested beside the other flows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.engine.artifacts.artifacts import Artifacts
from flows.pipelines.new_data import loaded_at, newer_than, read_built_from, write_built_from
from infrastructure.errors import ConfigError

NINE, TEN = (datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in (9, 10))


def test_newer_is_what_is_newer_than_last_time_or_was_never_there() -> None:
    assert newer_than({"a": TEN, "b": NINE, "c": NINE}, {"a": NINE, "b": NINE, "d": NINE}) == ["a", "c"]
    assert newer_than({"a": NINE}, {"a": TEN}) == []


def test_a_table_without_rows_has_no_new_data(tmp_path: Path) -> None:
    entries = [("source.p.ads.spend", "2026-11-21T09:00:00Z"), ("source.p.ads.empty", "0001-01-01T00:00:00+00:00")]
    results = [{"unique_id": unique_id, "max_loaded_at": at} for unique_id, at in entries]
    (tmp_path / "sources.json").write_text(json.dumps({"results": results}))
    assert loaded_at(Artifacts(tmp_path)) == {"source.p.ads.spend": NINE}


def test_what_is_not_dbts_is_an_error_and_a_lost_memory_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no readable result of its freshness check"):
        loaded_at(Artifacts(tmp_path))
    (tmp_path / "built_from.json").write_text("[")
    assert read_built_from(tmp_path / "built_from.json") == {}
    write_built_from(tmp_path / "built_from.json", {"a": NINE})
    write_built_from(tmp_path / "built_from.json", {"b": TEN})
    assert read_built_from(tmp_path / "built_from.json") == {"a": NINE, "b": TEN}
