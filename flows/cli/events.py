"""`tributary events`."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from flows.cli.options import examples, project_option, target_option
from infrastructure.console import dumps, json_option, say
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.plain_text import count_of
from infrastructure.screen import echo

if TYPE_CHECKING:
    from pathlib import Path

    from flows.engine.context.state import State


@click.group(epilog=examples("tributary events replay 20261128T031500 --to openlineage"))
def events() -> None:
    """Tell other tools what happened in a run."""


@events.command(
    epilog=examples(
        "tributary events replay --to openlineage",
        "tributary events replay 20261128T031500 --to openlineage --target prod",
        "tributary events replay 20261128T031500 --to openlineage --again",
    )
)
@click.argument("run", required=False)
@click.option("--to", "name", metavar="SINK", required=True, help="Whom to tell: openlineage, or one of your own.")
@click.option("--again", is_flag=True, help="Tell all of it, also what was taken before.")
@target_option
@project_option
@json_option
def replay(run: str | None, name: str, again: bool, target: str, project_dir: str | None, as_json: bool) -> None:
    """Send what a tool did not take of a run that is over: the run by its beginning, or the last one.

    A run whose process was killed is aborted in what is sent.
    """
    from flows.engine.artifacts.artifacts import Artifacts
    from flows.engine.context.project import read_project
    from flows.engine.context.state import state_of
    from flows.engine.ledger.resume import name_of_run
    from flows.engine.sinks.following import in_words, send_the_rest
    from flows.engine.sinks.sink import kinds
    from infrastructure.yaml_file import meant

    known = kinds()
    kind = known.get(name)
    if kind is None:
        raise ConfigError(f"There is no sink {name!r}; there is {', '.join(known)}{meant(name, list(known)) or '.'}")
    state = state_of(read_project(project_dir), target, os.environ)
    if not kind.is_asked(os.environ):
        raise ConfigError(f"{kind.title} is not set up: {kind.hint}")
    run_path = _run_path(state, run)
    if run_path == state.runs()[-1]:
        _require_over(run_path, target)
    try:
        count = send_the_rest(run_path, kind, Artifacts(state.target_path), again)
    except ConfigError:
        raise
    except Exception as exc:
        raise UpstreamUnavailable(
            f"{kind.title} did not take all events of {name_of_run(run_path)}: {in_words(exc)}. What it took is not "
            "sent again: repeat this command when it answers."
        ) from exc
    if count is None:
        raise _goes_on(run_path)
    if as_json:
        echo(dumps({"run": run_path.name, "to": name, "events": count}))
    elif count:
        say(f"{kind.title} has {name_of_run(run_path)} now: {count_of(count, 'event')} sent.")
    else:
        say(f"{kind.title} had all events of {name_of_run(run_path)}: nothing was sent. For all of it: --again")


def _run_path(state: State, run: str | None) -> Path:
    from flows.engine.context.state import LEDGER

    runs = [path for path in state.runs() if path.name.startswith(run or "") and (path / LEDGER).exists()]
    if not runs:
        raise ConfigError(
            f"There is no record of a run {run or ''} under {state.folder}. A run's name is the moment at which it "
            "began, such as 20261128T031500, as its folder and its log have it."
        )
    return runs[-1]


def _require_over(run_path: Path, target: str) -> None:
    """Refuse a run that may still go on: its record has no end, and its target is being written to."""
    from flows.engine.context.state import LEDGER, state_root
    from flows.engine.ledger.ledger import read_ledger
    from flows.engine.target.file_lock import locked_file

    if any(entry.get("kind") in ("end", "error", "recorded") for entry in read_ledger(run_path / LEDGER)):
        return
    with suppress(OSError):
        lock = locked_file(state_root(os.environ) / "locks" / f"{target}.lock")
        if lock is None:
            raise _goes_on(run_path)
        os.close(lock)


def _goes_on(run_path: Path) -> UpstreamUnavailable:
    from flows.engine.ledger.resume import name_of_run

    return UpstreamUnavailable(
        f"The run {name_of_run(run_path)} still goes on, and sends its events itself. Repeat this when it is over."
    )
