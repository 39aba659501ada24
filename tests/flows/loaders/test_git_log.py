"""The stream of `git log` is cut into commits wherever its chunks happen to end."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.loaders.git.log import count_lines, decoded, split_records, utc_time

SEPARATOR = b"5e9a"
PART = st.binary(max_size=12).filter(lambda part: SEPARATOR not in part and b"5" not in part)


@given(st.lists(st.lists(PART, min_size=3, max_size=3), max_size=6), st.integers(min_value=1, max_value=9))
def test_records_do_not_depend_on_where_chunks_end(records: list[list[bytes]], size: int) -> None:
    stream = b"".join(SEPARATOR + part for record in records for part in record)
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert list(split_records(chunks, SEPARATOR, 3)) == records


@pytest.mark.parametrize(
    ("numstat", "expected"),
    [
        (b"\0", (0, 0, 0)),
        (b"", (0, 0, 0)),
        (b"\0\n3\t1\tpoem.txt\0", (1, 3, 1)),
        (b"\0\n-\t-\tpicture.bin\0" + b"2\t0\ta\0", (2, 2, 0)),
        (b"\0\n1\t2\t\0old\0new\0" + b"3\t4\tb\0", (2, 4, 6)),
        (b"\0\n1\t2\t\n\0" + b"3\t4\t\t\0", (2, 4, 6)),
        (b"\0\n1\t0\t\0\nold\0" + b"9\t9\tnew\0", (1, 1, 0)),
    ],
)
def test_changed_lines_are_added_up(numstat: bytes, expected: tuple[int, int, int]) -> None:
    assert count_lines(numstat) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (b"0", datetime(1970, 1, 1)),
        (b"1700000000", datetime(2023, 11, 14, 22, 13, 20)),
        (b"253402300800", None),
        (b"", None),
        (b"-5", None),
        (b"%at", None),
    ],
)
def test_seconds_become_utc(seconds: bytes, expected: datetime | None) -> None:
    assert utc_time(seconds) == expected


def test_text_is_made_fit_for_every_warehouse() -> None:
    assert decoded(b"caf\xc3\xa9 \xff \0") == "café \ufffd \ufffd"
    assert decoded(b"%aN") == ""
