"""Text of others, made safe."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.plain_text import (
    all_of,
    are,
    count_of,
    cut,
    json_text,
    lines_of,
    log_line,
    markdown_block,
    markdown_cell,
    markdown_code,
    markdown_text,
    plain,
    sentence,
    slack_text,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;a window's title\x07error", "error"),
        ("\x1b]8;;http://evil.org\x1b\\click\x1b]8;;\x1b\\", "click"),
        ("\x1bPq#0;2;0;0;0\x1b\\picture", "picture"),
        ("\x1b[31mred\x1b[0m \x1b[2J\x1b[1;1Hmoved \x9b5mblink", "red moved blink"),
        ("\x1b]0;never ended\nthe rest", "0;never ended\nthe rest"),
        ("\x1b(B\x1bcreset", "reset"),
        ("overwritten\rby this\r\nnext\x08\x07\x00", "overwritten\nby this\nnext"),
        ("safe\u202etxt.exe\u2066 \u200binvisible\ufeff", "safetxt.exe invisible"),
        ("two\u2028lines\x85three", "two\nlines\nthree"),
        ("a\ttab, Ünïcödé, 日本, e\u0301, 👩\u200d🚀", "a\ttab, Ünïcödé, 日本, e\u0301, 👩\u200d🚀"),
        ("broken \udcff", "broken \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_what_a_terminal_obeys_or_nobody_sees_is_taken_out(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x90", "\x9d0;", "\x1b[1;", "\x1bP", "`", "|", "&", "\r"])
def test_megabytes_of_it_take_no_longer_than_of_anything(piece: str) -> None:
    text = piece * 1_000_000
    assert not {"\x1b", "\x90", "\x9d"} & {*plain(text)}
    assert len(markdown_text(text)) < 5000


def test_a_line_of_megabytes_is_cut_and_says_how_long_it_is_and_where_the_whole_is() -> None:
    text = "x" * 6_076_039
    assert cut(text, 10, "run.log") == "xxxxxxxxxx… (6,076,039 characters, in run.log)"
    assert cut("short", 10, "run.log") == "short"
    assert lines_of(text, 5, 10, "run.log") == ["xxxxxxxxxx… (6,076,039 characters, in run.log)"]
    assert len(log_line(text)) < 4100


def test_only_the_first_lines_are_shown() -> None:
    assert lines_of("\n".join("abcd"), 2, 10, "run.log") == ["a", "b", "… (2 more lines, in run.log)"]
    assert lines_of("a\n  b\n", 2) == ["a", "  b"]


def test_no_line_of_others_looks_like_one_of_the_log() -> None:
    assert log_line("it failed\n12:00:00 all is well") == "it failed\n    12:00:00 all is well"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Database Error in model wrong (models/wrong.sql)\n"
            '  column "nr" does not exist\n  LINE 3: select nr\n                 ^\n'
            "  compiled code at target/run/shop/models/wrong.sql",
            'column "nr" does not exist LINE 3: select nr ^',
        ),
        (
            "Unhandled error while executing \nException on worker thread. Runtime Error\n  Binder Error: no x",
            "Binder Error: no x",
        ),
        ("Got 3 results, configured to fail if != 0", "Got 3 results, configured to fail if != 0"),
        (
            "Runtime Error in model of mine (models/a b/mine.sql)",
            "Runtime Error in model of mine (models/a b/mine.sql)",
        ),
        ("", ""),
    ],
)
def test_a_failure_is_told_in_the_words_of_the_database(message: str, expected: str) -> None:
    assert sentence(message) == expected


def test_code_in_markdown_is_closed_by_no_text() -> None:
    assert markdown_code("a`b") == "`` a`b ``"
    assert markdown_code("one\ntwo") == "`one two`"
    assert markdown_cell("a|b") == "`a\\|b`"
    assert markdown_block("a\n```\nb").splitlines() == ["````text", "a", "```", "b", "````"]


def test_prose_in_markdown_reads_as_it_was_written() -> None:
    assert markdown_text("2 of 3 nodes were done (fct-payments).") == "2 of 3 nodes were done (fct-payments)."
    assert markdown_text("[click](javascript:x) <img>") == "\\[click\\](javascript:x) \\<img\\>"


def test_slack_reads_no_link_and_no_mention() -> None:
    assert slack_text("<!channel> <http://evil.org|here> & \x1b[31mred") == (
        "&lt;!channel&gt; &lt;http://evil.org|here&gt; &amp; red"
    )


def test_json_holds_the_same_and_has_nothing_that_a_terminal_obeys() -> None:
    text = json_text(json.dumps("\x9b31m\u202e and ü", ensure_ascii=False))
    assert json.loads(text) == "\x9b31m\u202e and ü"
    assert plain(text) == text


def test_every_error_of_ours_is_plain_whatever_it_repeats() -> None:
    assert str(ConfigError("git said: \x1b]0;title\x07no")) == "git said: no"
    assert str(DbtRunFailed("dbt said: \x1b[31mno")) == "dbt said: no"


def test_a_number_and_its_noun_are_written_in_one_place() -> None:
    """What is written by hand says "1 nodes" one day."""
    by_hand = re.compile(r"(?<!of )\{len\([^{}'\"]*\)(?::,)?\} [a-z]+s\b|== 1 else [\"']s[\"']|[\"']s[\"'] if ")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for room in ("deployments", "flows", "infrastructure")
        for path in (ROOT / room).rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if by_hand.search(line)
    ]
    assert not found, "write it with count_of of infrastructure.plain_text:\n" + "\n".join(found)


def test_one_is_one() -> None:
    assert [count_of(1, "node"), count_of(2000, "node"), count_of(3, "query")] == ["1 node", "2,000 nodes", "3 queries"]
    assert [all_of(1, "source"), all_of(3, "source")] == ["the one source is", "all 3 sources are"]
    assert [are(1), are(0)] == ["is", "are"]
