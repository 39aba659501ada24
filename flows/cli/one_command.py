"""`tributary test`, `seed`, `snapshot`, `run-operation` and `docs`: one dbt command each, of one shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import (
    examples,
    options_of,
    parse_vars,
    project_option,
    run_options,
    target_option,
    vars_option,
)
from flows.cli.target import set_up
from flows.engine.context.options import RunOptions
from flows.engine.context.reporting import reporting_to
from infrastructure.commands import program
from infrastructure.console import EntryGroup, dumps, json_option
from infrastructure.errors import ConfigError
from infrastructure.screen import echo, screen

if TYPE_CHECKING:
    from pathlib import Path

    from flows.engine.artifacts.results import DbtResult

# Each with its help and examples beside the first.
_VERBS = {
    "test": ("Test what has been built.", ("--select tag:marts", "--select tag:marts --store-failures")),
    "seed": ("Load the project's CSV files.", ("--select countries", "--full-refresh")),
    "snapshot": ("Record what changed since the last snapshot.", ("--select orders_snapshot",)),
}


def _of_nodes(verb: str) -> click.Command:
    """Return the command of a dbt command that has nodes."""
    sentence, words = _VERBS[verb]

    @click.command(
        verb,
        help=f"{sentence} Every node is in the Prefect UI, and the target is held meanwhile.",
        epilog=examples(f"tributary {verb}", *(f"tributary {verb} {each}" for each in words)),
    )
    @target_option
    @project_option
    @run_options(verb)
    @json_option
    def command(target: str, project_dir: str | None, as_json: bool, **asked: Any) -> None:  # noqa: ANN401
        _show(_done(verb, target, project_dir, options_of(asked)), as_json)

    return command


test, seed, snapshot = (_of_nodes(verb) for verb in _VERBS)


@click.command(
    "run-operation",
    epilog=examples(
        "tributary run-operation grant_select --args '{role: reporter}'",
        "tributary run-operation drop_old_schemas --target prod --timeout-minutes 5",
    ),
)
@click.argument("macro")
@click.option("--args", "arguments", metavar="YAML", help="The macro's arguments, as in '{role: reporter}'.")
@target_option
@project_option
@vars_option
@click.option("--wait/--no-wait", default=True, help="Wait while another run writes to the target.")
@click.option("--timeout-minutes", type=click.FloatRange(0, min_open=True), metavar="MINUTES", help="Stop after that.")
@json_option
def run_operation(
    macro: str,
    arguments: str | None,
    target: str,
    project_dir: str | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401  (the options that it has in common with `test`)
) -> None:
    """Run a macro of the project, and print what it says; the target is held meanwhile."""
    if macro.startswith("-"):
        raise click.UsageError(f"{macro} is no macro's name.")
    from flows.engine.context.command import variables_text

    given = parse_vars(arguments, "--args")
    flags = [macro, *(["--args", variables_text(given)] if given else [])]
    said: list[str] = []
    done = _done("run-operation", target, project_dir, options_of(asked), flags, said.append)
    if as_json:
        echo(dumps({"command": done.command, "target": target, "macro": macro, "said": said}))
        return
    for line in said:
        echo(line)
    echo(f"{macro} ran on {target}.", err=True)


@click.group(cls=EntryGroup, epilog=examples("tributary docs generate", "tributary docs serve"))
def docs() -> None:
    """The documentation of every table: make it, and look at it."""


@docs.command("generate", epilog=examples("tributary docs generate", "tributary docs generate -t prod"))
@target_option
@project_option
@vars_option
@click.option("--wait/--no-wait", default=True, help="Wait while another run writes to the target.")
@json_option
def docs_generate(target: str, project_dir: str | None, as_json: bool, **asked: Any) -> None:  # noqa: ANN401
    """Generate the documentation as one file, which opens in any browser."""
    from flows.pipelines.tasks import STATIC

    page = _done("docs generate", target, project_dir, options_of(asked), list(STATIC)).target_path / _PAGE
    echo(dumps({"command": "dbt docs generate", "target": target, "page": page}) if as_json else str(page))


@docs.command("serve", epilog=examples("tributary docs serve", "tributary docs serve --port 8081"))
@target_option
@project_option
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 for any that is free.")
def docs_serve(target: str, project_dir: str | None, port: int) -> None:
    """Serve the documentation to a browser on this machine, and to no other, until Ctrl-C."""
    import os

    from flows.engine.context.project import read_project
    from flows.engine.context.state import state_of

    page = state_of(read_project(project_dir), target, os.environ).target_path / _PAGE
    if not page.exists():
        raise ConfigError(f"There is no documentation at {page}. Make it: {program()} docs generate -t {target}")
    with _server(page, port) as server:
        echo(f"http://{server.server_address[0]}:{server.server_address[1]}/  (Ctrl-C ends it)")
        server.serve_forever()


_PAGE = "static_index.html"


def _server(page: Path, port: int) -> Any:  # noqa: ANN401  (imported late)
    """Return a server on loopback that has one page and nothing else of the folder that it is in."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class OnePage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_page = self.path.partition("?")[0] in ("/", "/index.html")
            body = page.read_bytes() if is_page else b"Not found"
            self.send_response(200 if is_page else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8" if is_page else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401
            """Keep quiet."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), OnePage)
    except OSError as exc:
        raise ConfigError(f"Port {port} of 127.0.0.1 can't be used: {exc.strerror}. Give another with --port.") from exc


def _done(
    verb: str,
    target: str,
    project_dir: str | None,
    options: RunOptions,
    flags: list[str] | None = None,
    hear: Callable[[str], None] | None = None,
) -> DbtResult:
    """Run a command as a flow of this process.

    Args:
        hear: is told what macros print or log for people.
    """
    from flows.engine.context.project import project_to_run
    from flows.report.terminal import TerminalReporter

    class Listening(TerminalReporter):
        def event(self, event: Any) -> None:  # noqa: ANN401  (a `DbtEvent`)
            super().event(event)
            if hear and event.name in ("JinjaLogInfo", "PrintEvent"):
                hear(event.text)

    # Before anything slow: a mistyped folder should not cost the wait for a server.
    folder = str(project_to_run(project_dir).folder) if project_dir else None
    asked = {each.name: getattr(options, each.name) for each in fields(options)}
    with set_up(target), Listening(screen(stderr=True)) as reporter, reporting_to(reporter):
        from flows.pipelines.one_command import dbt_command

        return dbt_command(verb, target, folder, flags, asked)


def _show(result: DbtResult, as_json: bool) -> None:
    from flows.report.artifacts import as_document
    from flows.report.terminal import print_log_path, print_result

    if as_json:
        echo(dumps(as_document([result])))
        return
    console = screen()
    print_result(console, result)
    print_log_path(console, result)
