"""How every command prints and ends: sentences, JSON documents, and one table of exit codes.

Every entry point is an `EntryCommand` or an `EntryGroup`. Its body raises; here the error becomes a sentence on stderr,
or one JSON document on stdout, and the code of `infrastructure.errors.ExitCode`. Colours are for terminals: click and
rich leave them out elsewhere, and where NO_COLOR is set.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import click

from infrastructure.commands import WORKSPACE_KEY, as_typed
from infrastructure.errors import ConfigError, ExitCode, RunStopped, TributaryError
from infrastructure.plain_text import json_text, one_line
from infrastructure.screen import echo, styled
from infrastructure.workspace import WORKSPACE_VARIABLE, workspace_at

_AS_JSON = "infrastructure.console.as_json"
# Errors of the machine that a person has to fix.
_REFUSED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


class EntryCommand(click.Command):
    """A command for people or programs: every error in it ends in a sentence and an exit code of the table."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401  (click's own)
        stopped: str = "Stopped. Nothing is running any more.",
        **settings: Any,  # noqa: ANN401
    ) -> None:
        """Take what click takes.

        Args:
            stopped: what to say after Ctrl-C.
        """
        super().__init__(*arguments, **settings)
        self._stopped = stopped
        in_a_workspace(self)

    def main(self, *arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        """Run as a program; replace click's exit codes for a closed output and for Ctrl-C with those of the table."""
        try:
            return super().main(*arguments, **settings)
        except (SystemExit, BrokenPipeError) as exc:
            # Click and rich end the process with 1 when the output is closed.
            found = exc.__context__ if isinstance(exc, SystemExit) else exc
            if not isinstance(found, (BrokenPipeError, click.Abort)):
                raise
            code = ExitCode.STOPPED if isinstance(found, click.Abort) else ExitCode.UNREAD
            _is_unread()
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Run the command; end the process with an exit code of the table if it fails."""
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            answer = super().invoke(ctx)
            # Output left for the end of the process would break the pipe there, where it can't be caught.
            sys.stdout.flush()
            return answer
        except (click.ClickException, click.exceptions.Exit, click.Abort, SystemExit):
            # Click says these itself; wrong usage ends with 2.
            raise
        except BaseException as exc:
            if isinstance(exc, BrokenPipeError) and _is_unread():
                raise
            code = self._end(exc, bool(ctx.meta.get(_AS_JSON)))
            let_go(exc)
        sys.exit(code)

    def _end(self, exc: BaseException, as_json: bool) -> ExitCode:
        """Print the error, and return the exit code, which is the same when the output is closed."""
        if type(exc).__name__ == "CancelledRun":
            # Prefect's error for a flow that was stopped; few commands have imported it.
            exc = RunStopped(f"{exc} Nothing is running any more; the finished part is recorded.")
        if isinstance(exc, KeyboardInterrupt):
            code, sentence = ExitCode.STOPPED, self._stopped
        elif isinstance(exc, TributaryError):
            code, sentence = exc.exit_code, ""
        else:
            code, sentence = _unforeseen(exc)
        try:
            if isinstance(exc, TributaryError):
                self.tell(exc, as_json)
            elif isinstance(exc, KeyboardInterrupt):
                say(sentence)
            else:
                _say_error(sentence, type(exc).__name__, as_json)
        except BrokenPipeError:
            _is_unread()
        return code

    def tell(self, error: TributaryError, as_json: bool) -> None:
        """Print an error of this project; entry points override it to add to some."""
        _say_error(str(error), type(error).__name__, as_json)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Add the table of exit codes to the help; the examples begin with what the person typed."""
        self.epilog = as_typed(self.epilog) if self.epilog else None
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.meaning) for code in ExitCode])


class EntryGroup(EntryCommand, click.Group):
    """A group of such commands."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of the group, which takes a workspace as the group does."""
        command = super().get_command(ctx, cmd_name)
        return in_a_workspace(command) if command else None


def _use_workspace(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if not value:
        return
    try:
        folder = str(workspace_at(value).folder)
    except ConfigError as exc:
        raise click.BadParameter(str(exc)) from exc
    # For what reads a file of the workspace, here and in child processes; given back when the command has ended.
    before = os.environ.get(WORKSPACE_VARIABLE)
    os.environ[WORKSPACE_VARIABLE] = folder
    ctx.meta[WORKSPACE_KEY] = folder

    def give_back() -> None:
        if before is None:
            os.environ.pop(WORKSPACE_VARIABLE, None)
        else:
            os.environ[WORKSPACE_VARIABLE] = before

    ctx.call_on_close(give_back)


def in_a_workspace(command: click.Command) -> click.Command:
    """Give a command, and the commands in it, the option --workspace, once."""
    if not any(option.name == "workspace" for option in command.params):
        command.params.append(
            click.Option(
                ["--workspace"],
                metavar="DIR",
                is_eager=True,
                expose_value=False,
                callback=_use_workspace,
                help=f"The folder with your targets, schedules and routes; default: {WORKSPACE_VARIABLE}, else the "
                "first folder upwards with a tributary.yml, else this repository's example.",
            )
        )
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        in_a_workspace(inner)
    return command


def answer_in_json(ctx: click.Context, _: click.Parameter, value: Any) -> Any:  # noqa: ANN401  (the option's)
    """Note that errors are printed as JSON, too; the callback of an option."""
    if value in (True, "json"):
        ctx.meta[_AS_JSON] = True
    return value


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=answer_in_json, help="Print one JSON document for a program to read."
)


def let_go(error: BaseException) -> None:
    """Clear the frames of an error and its causes, once it has been handled.

    They hold connections, and Prefect's threads hold the error: DuckDB prints a page about that when Python ends.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
            traceback.clear_frames(each.__traceback__)


def say(text: str) -> None:
    """Print a line for a person to stderr, beside what a program reads."""
    echo(text, err=True)


def say_aside(text: str) -> None:
    """Print a dimmed note to stderr about something slow or unusual."""
    echo(styled(text, dim=True), err=True)


def silent(_: str) -> None:
    """Ignore a message."""


def dumps(document: object) -> str:
    """Return a document as indented JSON."""
    import orjson

    return json_text(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2).decode())


def quiet_prefect() -> None:
    """Keep Prefect's own lines off the terminal; call it before Prefect is imported."""
    # Its console lines repeat what is shown anyway; what it sends to the server is not affected.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_CLI_PROMPT", "false")


def _say_error(sentence: str, kind: str, as_json: bool) -> None:
    if as_json:
        echo(dumps({"error": sentence, "kind": kind}))
    else:
        echo(styled("Error: ", fg="red", bold=True) + sentence, err=True)


def _unforeseen(exc: BaseException) -> tuple[ExitCode, str]:
    """Return the exit code and the sentence for an error that is not one of this project's."""
    said = one_line(str(exc), 500) or "no message"
    if isinstance(exc, OSError) and exc.errno in _REFUSED:
        where = f" ({exc.filename})" if exc.filename else ""
        return ExitCode.USAGE, f"{exc.strerror}{where}. Free or allow it on this machine, and run again."
    if type(exc).__module__.partition(".")[0] in ("httpx", "httpcore") and _is_away(exc):
        hint = f"A server did not answer ({type(exc).__name__}: {said}). Try again.{_proxy_of(exc)}"
        return ExitCode.TRY_AGAIN, hint
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return ExitCode.UNFORESEEN, (
        f"Unexpected error: {type(exc).__name__}: {said} ({Path(frame.filename).name}, line {frame.lineno}). "
        f"{_written_down(exc)}"
    )


def _proxy_of(exc: BaseException) -> str:
    from infrastructure.proxy import through_proxy

    try:
        return through_proxy(cast(Any, exc).request.url)
    except (AttributeError, RuntimeError):
        return ""  # It does not say what it asked for.


def _is_away(exc: BaseException) -> bool:
    import httpx

    return isinstance(exc, httpx.TransportError)


def _written_down(exc: BaseException) -> str:
    """Write an error's traceback to a file that its owner alone can read, and return a sentence that names it."""
    try:
        handle, name = tempfile.mkstemp(prefix="tributary-error-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(exc))
    except OSError:
        return "Its traceback could not be written to a file."
    return f"Report it with {name}."


def _is_unread() -> bool:
    """Return whether stdout or stderr is closed; a closed one is replaced with the null device."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            descriptor = stream.fileno()
            pipe = select.poll()
            pipe.register(descriptor, 0)
            if any(event & select.POLLERR for _, event in pipe.poll(0)):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
                found = True
    return found
