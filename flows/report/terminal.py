"""Show a run on a terminal: its progress, and its result at the end."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flows.engine.artifacts.results import OUTCOMES, DbtResult, NodeResult
from flows.engine.context.events import FAILED, HOOK, STARTED, WARNED, DbtEvent
from flows.engine.ledger.explanation import NAMED, WHOLE, Explanation, explain
from flows.engine.ledger.failures import log_of
from flows.engine.ledger.skips import causes_of
from flows.report.artifacts import SLOWEST, by_reason, counts_sentence, rows_affected, rows_found, slowest
from infrastructure.plain_text import all_of, cut_middle, one_line, plural_of, sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

_STYLES = {"succeeded": "green", "warned": "yellow", "failed": "red", "skipped": "bright_black"}
# Without a live display, a line is printed each time so many nodes of a long command have ended.
_PLAIN_STEP = 50


class TerminalReporter:
    """Show what a run does: a bar on a terminal, a few lines in a file or a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[detail]}", style="bright_black", markup=False),
                console=self._console,
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def stage(self, text: str) -> None:
        self._done = 0
        if not self._progress:
            self._console.print(text, highlight=False)
            return
        if self._bar is not None:
            self._progress.remove_task(self._bar)
        self._bar = self._progress.add_task(text, total=None, detail="")

    def note(self, text: str) -> None:
        self._console.print(Text(text, style="bright_black"), soft_wrap=True)

    def event(self, event: DbtEvent) -> None:
        node = event.node
        if node is None:
            return
        if node.status == STARTED:
            if self._progress and self._bar is not None:
                self._progress.update(
                    self._bar, total=node.total, detail=cut_middle(node.name, _room(self._console, 70))
                )
            return
        self._done += 1
        if node.status in FAILED:
            name = cut_middle(node.name, _room(self._console, 8))
            self._console.print(Text.assemble(("failed  ", "red"), name), soft_wrap=True)
        elif node.status in WARNED:
            found = rows_found(node)
            name = cut_middle(node.name, _room(self._console, 10 + len(found)))
            self._console.print(Text.assemble(("warning ", "yellow"), f"{name}: {found}"), soft_wrap=True)
        if self._progress and self._bar is not None:
            self._progress.update(self._bar, completed=self._done, total=node.total)
        elif node.total and self._done % _PLAIN_STEP == 0:
            self._console.print(f"  {self._done} of {node.total}", highlight=False)


def print_result(console: Console, result: DbtResult, explanation: Explanation | None = None) -> None:
    """Print the result of a command: outcomes by type, what was slow, and at the end what failed, why, and what to do.

    Args:
        explanation: of what failed, as the command's error has it; made from what dbt has left where there is none.
    """
    headline = Text.assemble((f"{result.command} on {result.target}", "bold"), f": {counts_sentence(result)}")
    headline.append(f", {result.seconds:.1f} s")
    console.print(headline)
    if result.nodes:
        console.print(_outcome_table(result))
    for node in result.of("warned")[:10]:
        console.print(Text.assemble(("warning ", "yellow"), node.name, f"  {sentence(node.message, 140)}"))
    _more(console, len(result.of("warned")), 10, "warned")
    for node in [node for node in result.nodes if node.earlier_messages and node.outcome != "failed"][:10]:
        after = sentence(node.earlier_messages[-1], 140)
        console.print(Text.assemble(("again   ", "yellow"), node.name, f"  attempt {node.attempts}, after: {after}"))
    failed = result.of("failed")
    if failed and explanation is None:
        explanation = explain(result, log_of(result.run_path))
    # What waited for a failure is named with it.
    told = set[str]() if explanation is None else causes_of(result.nodes, result.artifacts.manifest_if_any).keys()
    unexplained = by_reason(node for node in result.of("skipped") if node.unique_id not in told)
    for because, nodes in list(unexplained.items())[:10]:
        names = f"{', '.join(node.name for node in nodes[:5])}{_and_more(len(nodes), 5)}"
        console.print(Text.assemble(("not run ", "bright_black"), names, (f"  {because}", "bright_black")))
    _more(console, len(unexplained), 10, "reasons")
    for note in result.notes:
        console.print(Text(note, style="yellow"))
    if explanation:
        print_explanation(console, explanation)
    elif len(result.of("succeeded", "warned")) > SLOWEST:
        console.print()
        _print_slowest(console, result)


def print_explanation(console: Console, explanation: Explanation) -> None:
    """Print why a command failed: the first failures whole, the others by name, then where to look and what to do."""
    for each in explanation.failed[:WHOLE]:
        console.print()
        console.print(Text(each.title, style="bold red"), soft_wrap=True)
        for line in each.lines():
            # Not wrapped: tables keep their columns, and paths can be copied.
            console.print(Text(f"  {line}"), soft_wrap=True)
    if others := explanation.failed[WHOLE:]:
        console.print()
        console.print(Text("Also failed", style="bold red"))
        for each in others[:NAMED]:
            console.print(Text(f"  {one_line(each.in_one_line(200), max(20, console.width - 2))}"))
        _more(console, len(others), NAMED, "failed")
    console.print()
    if explanation.link:
        console.print(Text(f"Run  {explanation.link}"), soft_wrap=True)
    console.print(Text(f"Log  {explanation.log}", style="bright_black"), soft_wrap=True)
    if explanation.commands:
        console.print("\nNext")
    for purpose, command in explanation.commands:
        console.print(Text(f"  {purpose}:"), soft_wrap=True)
        console.print(Text(f"    {command}"), soft_wrap=True)


def print_freshness(console: Console, result: DbtResult) -> None:
    """Print how fresh the sources are: one line when all are fresh."""
    warned = result.of("warned")
    sources = [node for node in result.nodes if node.resource_type == "source"]
    if not warned:
        if sources:
            console.print(Text.assemble(("Sources", "bold"), f": {all_of(len(sources), 'source')} fresh\n"))
        return
    print_result(console, result)
    console.print()


def _outcome_table(result: DbtResult) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("")
    shown = [outcome for outcome in OUTCOMES if result.of(outcome)]
    for outcome in shown:
        table.add_column(outcome, justify="right")
    for resource_type in _types(result.nodes):
        nodes = [node for node in result.nodes if node.resource_type == resource_type]
        cells = [
            Text(str(count), style=_STYLES[outcome])
            if (count := sum(n.outcome == outcome for n in nodes))
            else Text("")
            for outcome in shown
        ]
        table.add_row(plural_of("hook" if resource_type == HOOK else resource_type.replace("_", " ")), *cells)
    return table


def _print_slowest(console: Console, result: DbtResult) -> None:
    nodes = slowest(result)
    # Not every warehouse reports how many rows a statement wrote.
    rows = [rows_affected(node) for node in nodes]
    has_rows = any(count is not None for count in rows)
    room = _room(console, 22 if has_rows else 10)
    names = [cut_middle(node.name, room) for node in nodes]
    wide = max(len(name) for name in ["slowest", *names])
    head = f"{'slowest':<{wide}}  seconds{'rows':>12}" if has_rows else f"{'slowest':<{wide}}  seconds"
    console.print(Text(head, style="bright_black"), soft_wrap=True)
    for name, node, count in zip(names, nodes, rows, strict=True):
        figure = f"{'' if count is None else format(count, ','):>12}" if has_rows else ""
        console.print(Text(f"{name:<{wide}}  {node.seconds:>7.2f}{figure}".rstrip()), soft_wrap=True)


def _room(console: Console, taken: int) -> int:
    """Return how many characters a name may have beside what a line has besides; in a pipe, all of them."""
    return max(24, console.width - taken) if console.is_terminal else 10_000


def _types(nodes: Sequence[NodeResult]) -> list[str]:
    order = ["source", "seed", "snapshot", "model", "test", "unit_test"]
    found = {node.resource_type for node in nodes}
    return [name for name in order if name in found] + sorted(found - set(order))


def _and_more(count: int, shown: int) -> str:
    return f" and {count - shown} more" if count > shown else ""


def _more(console: Console, count: int, shown: int, outcome: str) -> None:
    if count > shown:
        console.print(f"        and {count - shown} more {outcome}; the log has them all", style="bright_black")


def print_log_path(console: Console, result: DbtResult) -> None:
    """Print the path of a run's log, on its own line so that it can be copied."""
    console.print(Text(f"Log: {log_of(result.run_path)}", style="bright_black"), soft_wrap=True)
