"""What the charts of the report draw."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from flows.report.html import charts
from flows.report.html.contents import Contents, read_contents
from tests.support.history_runs import AT, node, run, stored_together

pytest.importorskip("vl_convert", reason="needs the report extra: uv sync --extra report")


def contents(folder: Path, seconds: float, apart: timedelta, *hooks: str) -> Contents:
    nodes = [node("a"), node("t", "failed", kind="test"), *(node(name, kind="operation") for name in hooks)]
    runs = [run(nodes, AT + apart * number, seconds) for number in range(3)]
    with stored_together(folder, *runs).reading("shop", "dev") as history:
        return read_contents(history, "shop", "dev", AT, 30)


def labels(svg: str) -> list[str]:
    return re.findall(r'<path aria-label="([^"]*)"', svg)


def test_runs_of_one_minute_have_a_bar_each_named_to_the_second(tmp_path: Path) -> None:
    said = contents(tmp_path, 1.5, timedelta(seconds=20))
    svg = charts.runs_chart(said.runs)
    places = re.findall(r'aria-label="Jan 31, [^"]*"[^>]* d="M([0-9.]+),', svg)
    assert len(set(places)) == 3, "beside each other, not on top of each other"
    assert [label.partition(": ")[0] for label in labels(svg)] == [
        f"Jan 31, 12:00:{second}" for second in ("00", "20", "40")
    ]
    assert ">seconds<" in svg
    assert "Jan 31, 12:00:20<" in svg
    assert "|" not in svg, "the number that tells runs apart is not shown"
    assert sum(": 1 of 1 tests failed" in label for label in labels(charts.tests_chart(said.test_runs))) == 3


@pytest.mark.parametrize(("seconds", "unit"), [(119.0, "seconds"), (150.0, "minutes"), (9000.0, "hours")])
def test_long_runs_are_drawn_in_a_unit_that_fits(tmp_path: Path, seconds: float, unit: str) -> None:
    svg = charts.runs_chart(contents(tmp_path, seconds, timedelta(hours=1)).runs)
    assert f">{unit}<" in svg
    assert [label.partition(":")[0] for label in labels(svg)] == ["Jan 31, 12", "Jan 31, 13", "Jan 31, 14"]


def test_hooks_have_a_lane_and_a_colour_of_their_own(tmp_path: Path) -> None:
    svg = charts.gantt_chart(contents(tmp_path, 60.0, timedelta(hours=1), "shop-on-run-end-0"))
    assert ">hooks<" in svg
    (bar,) = (part for part in re.findall(r"<path [^>]*>", svg) if "shop-on-run-end-0" in part)
    assert 'aria-label="hook shop-on-run-end-0: ' in bar
    assert "var(--hook)" in bar
    assert "hooks" not in charts.gantt_chart(contents(tmp_path / "none", 60.0, timedelta(hours=1)))
