"""A run as a person at a terminal sees it."""

from __future__ import annotations

import io

from rich.console import Console

from flows.engine.context.events import DbtEvent, NodeEvent
from flows.report.terminal import TerminalReporter, print_freshness, print_result
from tests.support.results import AT, MIXED, node, result


def console(is_terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=is_terminal, color_system=None)


def text_of(used: Console) -> str:
    assert isinstance(used.file, io.StringIO)
    return used.file.getvalue()


def event(name: str, status: str, total: int | None = None) -> DbtEvent:
    ended = None if status == "started" else AT
    found = NodeEvent(f"model.shop.{name}", name, "model", "table", status, AT, ended, total=total, failures=2)
    return DbtEvent("Line", "info", f"[bold]{name}[/nothing]", AT, found.unique_id, found)


def test_a_result_says_what_failed_why_what_did_not_run_and_what_was_slow() -> None:
    used = console()
    print_result(used, MIXED)
    text = text_of(used)
    assert text.startswith("dbt build on dev: 2 succeeded, 1 warned, 1 failed, 1 skipped, 9.0 s")
    assert "wrong failed\n  Binder Error:\n    no column | here\n" in text
    assert text.count("Binder Error") == 1
    assert "warning odd  Got 3 results" in text
    assert "not run kept_back" in text


def test_the_slowest_nodes_are_shown_where_there_are_many() -> None:
    used = console()
    print_result(used, result(*(node(f"n{number}", seconds=number) for number in range(9))))
    text = text_of(used)
    assert text.index("n8") < text.index("n7") < text.index("n4")
    assert "n3 " not in text


def test_square_brackets_in_a_message_are_text_and_not_markup() -> None:
    used = console()
    print_result(used, result(node("wrong", "error", message="array[1] [/bold] is [red]wrong"), node("a[0]", "warn")))
    assert "array[1] [/bold] is [red]wrong" in text_of(used)
    assert "a[0]" in text_of(used)


def test_very_many_failures_do_not_fill_the_screen() -> None:
    used = console()
    print_result(used, result(*(node(f"n{n}", "error", message="line\n" * 50) for n in range(300))))
    assert "and 277 more failed" in text_of(used)
    assert len(text_of(used).splitlines()) < 130


def test_fresh_sources_are_one_line_and_a_stale_one_is_named() -> None:
    used = console()
    print_freshness(used, result(node("shop.orders", "pass", kind="source")))
    assert text_of(used) == "Sources: the one source is fresh\n\n"
    used = console()
    print_freshness(used, result(node("shop.orders", "warn", kind="source")))
    assert "warning shop.orders" in text_of(used)


def test_hooks_are_not_counted_as_sources() -> None:
    used = console()
    print_freshness(used, result(node("hook", kind="operation"), node("shop.orders", "pass", kind="source")))
    assert "the one source is fresh" in text_of(used)


def test_without_a_terminal_there_are_a_few_plain_lines() -> None:
    used = console()
    with TerminalReporter(used) as reporter:
        reporter.stage("dbt build on dev")
        for number in range(100):
            reporter.event(event(f"n{number}", "started", 100))
            reporter.event(event(f"n{number}", "success", 100))
        reporter.event(event("wrong", "error", 100))
        reporter.note("Waiting for [target] dev")
        reporter.event(DbtEvent("", "info", "anything", AT))
    assert text_of(used).splitlines() == [
        "dbt build on dev",
        "  50 of 100",
        "  100 of 100",
        "failed  wrong",
        "Waiting for [target] dev",
    ]


def test_on_a_terminal_there_is_a_bar_and_names_with_brackets_do_no_harm() -> None:
    used = console(is_terminal=True)
    with TerminalReporter(used) as reporter:
        reporter.stage("dbt build on [dev]")
        reporter.event(event("a[/b]", "started", 2))
        reporter.event(event("a[/b]", "warn", 2))
        reporter.stage("dbt docs generate on dev")
    assert "warning a[/b]: 2 rows" in text_of(used)
