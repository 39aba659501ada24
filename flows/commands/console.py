"""What a command says: errors in words, exit codes, JSON documents."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from infrastructure.errors import DbtRunFailed, PayrollStopped, RunStopped, TributaryError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def quiet_prefect() -> None:
    """Keep Prefect's own lines off the terminal; call it before Prefect is imported."""
    # Its console lines repeat what is shown anyway; what is sent to the server stays as it is.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_CLI_PROMPT", "false")


def say(text: str) -> None:
    """Print a line for a person, beside what a program reads."""
    click.echo(text, err=True)


@contextmanager
def in_words(as_json: bool) -> Iterator[None]:
    """Turn the project's errors into a sentence and an exit code; anything else is a bug and keeps its traceback."""
    code: int | None = None
    try:
        yield
    except TributaryError as exc:
        _print_error(exc, as_json)
        code = _exit_code(exc)
        # The frames that it came through hold connections, which DuckDB complains of when Python ends with them.
        traceback.clear_frames(exc.__traceback__)
    except KeyboardInterrupt:
        click.echo("Stopped. Nothing is running any more.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if code is not None:
        sys.exit(code)


def _exit_code(error: TributaryError) -> int:
    if isinstance(error, RunStopped):
        return EXIT_INTERRUPTED
    return EXIT_FAILED if isinstance(error, (DbtRunFailed, PayrollStopped)) else EXIT_USAGE


def _print_error(error: TributaryError, as_json: bool) -> None:
    from flows.engine.results import DbtResult

    result = error.result if isinstance(error, DbtRunFailed) else None
    if as_json:
        from flows.report import as_document

        steps = [result] if isinstance(result, DbtResult) else []
        click.echo(dumps({**as_document(steps), "error": str(error), "kind": type(error).__name__}))
        return
    if isinstance(result, DbtResult) and result.nodes:
        from rich.console import Console

        from flows.terminal import print_log_path, print_result

        print_result(Console(), result)
        print_log_path(Console(), result)
    click.echo(click.style("Error: ", fg="red", bold=True) + str(error), err=True)


def dumps(document: object) -> str:
    """Return a document as indented JSON."""
    import orjson

    return orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2).decode()
