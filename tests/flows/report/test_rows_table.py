"""Rows on a terminal: a table, a table whose names are cut in the middle, or blocks."""

from __future__ import annotations

import pytest

from flows.report.rows_table import print_rows
from infrastructure.plain_text import count_of, cut_middle

LONG = "not_null_fct_campaign_performance_activity_date"
COLUMNS = ("name", "seconds", "failed")


def printed(capsys: pytest.CaptureFixture[str], width: int | None, rows: list[tuple[object, ...]]) -> list[str]:
    print_rows(COLUMNS, rows, width)
    return capsys.readouterr().out.splitlines()


def test_rows_that_fit_are_a_table_with_figures_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, 80, [("a", 1.5, 12), ("bb", 1234.0, None)]) == [
        "name   seconds  failed",
        "a         1.50      12",
        "bb    1,234.00",
    ]


def test_a_name_is_cut_in_its_middle_and_no_line_is_longer_than_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed(capsys, 50, [(LONG, 1.0, 0)])
    assert lines[1].startswith("not_null_fct_cam") and "…" in lines[1] and "activity_date" in lines[1]
    assert max(map(len, lines)) == 50


def test_a_pipe_has_every_name_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert LONG * 9 in printed(capsys, None, [(LONG * 9, 1.0, 0)])[1]


def test_rows_that_fit_in_no_table_are_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, 20, [(LONG, 1.0, 0), ("b", 2.0, 1)]) == [
        f"name     {LONG}",
        "seconds  1.00",
        "failed   0",
        "",
        "name     b",
        "seconds  2.00",
        "failed   1",
    ]


def test_a_cut_keeps_both_ends() -> None:
    assert [cut_middle("abcdefgh", width) for width in (8, 7, 5, 3, 2)] == ["abcdefgh", "abc…fgh", "ab…gh", "a…h", "ab"]


def test_one_is_not_plural() -> None:
    assert [count_of(1, "node"), count_of(2000, "node"), count_of(0, "unit test")] == [
        "1 node",
        "2,000 nodes",
        "0 unit tests",
    ]
    assert [count_of(2, "query"), count_of(2, "batch"), count_of(2, "day")] == ["2 queries", "2 batches", "2 days"]
