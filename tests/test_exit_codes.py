"""One table of exit codes: every entry point keeps to it, and says it."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml
from click.testing import CliRunner

from infrastructure import errors
from infrastructure.console import EntryCommand
from infrastructure.errors import ConfigError, DbtRunFailed, ExitCode, RunStopped, TributaryError, UpstreamUnavailable

ROOT = Path(__file__).parents[1]
# They are no commands: children that speak their parent's protocol, and what writes a file of the repository anew.
NO_COMMANDS = {
    "flows.engine.process.child",
    "flows.engine.process.relay",
    "infrastructure.blocks.block_types",
    "deployments.schemas",
    "benchmarks.webhook.served_flows",
    "benchmarks.webhook.attacks",
}


def programs() -> Iterator[str]:
    """Return all that `python -m` starts."""
    for folder in ("infrastructure", "flows", "deployments", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if re.search(r"^if __name__ ==", path.read_text(encoding="utf-8"), re.M):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")


UNITS = {"milliseconds", "seconds", "minutes", "hours", "days", "weeks", "bytes", "rows"}
ENTRY_POINTS = [name for name in programs() if name not in NO_COMMANDS]


def entry(module: str) -> click.Command:
    package = ROOT / module.replace(".", "/")
    imported = vars(import_module(f"{module}.__main__" if package.is_dir() else module))
    return imported.get("main") or next(found for found in imported.values() if isinstance(found, click.Command))


def ending_with(module: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> tuple[click.Command, list[str]]:
    """Have a command of an entry point raise; return the entry point and what it has to be given for that."""

    def fail() -> None:
        raise error

    main = command = entry(module)
    words: list[str] = []
    while isinstance(command, click.Group):
        words.append(command.list_commands(click.Context(command))[0])
        command = command.get_command(click.Context(command), words[-1])
    assert command is not None
    as_json = click.Option(
        ["--json"], is_flag=True, expose_value=False, callback=lambda ctx, _, value: note(ctx, value)
    )
    monkeypatch.setattr(command, "callback", fail)
    monkeypatch.setattr(command, "params", [as_json])
    return main, words


def note(ctx: click.Context, value: bool) -> None:
    from infrastructure.console import answer_in_json

    answer_in_json(ctx, click.Option(["--json"]), value)


ENDINGS: list[tuple[BaseException, ExitCode, str]] = [
    (DbtRunFailed("3 of 41 nodes failed"), ExitCode.FAILED, "Error: 3 of 41 nodes failed"),
    (ConfigError("no such target"), ExitCode.USAGE, "Error: no such target"),
    (click.UsageError("give one of them"), ExitCode.USAGE, "Error: give one of them"),
    (OSError(errno.ENOSPC, "No space left on device", "/var/state"), ExitCode.USAGE, "(/var/state). Free or allow"),
    (errors.DriftError("plan again"), ExitCode.CHANGES, "Error: plan again"),
    (UpstreamUnavailable("no answer"), ExitCode.TRY_AGAIN, "Error: no answer"),
    (DbtRunFailed("the connection was lost", is_transient=True), ExitCode.TRY_AGAIN, "Error: the connection was lost"),
    (httpx.ConnectError("refused"), ExitCode.TRY_AGAIN, "did not answer (ConnectError: refused)"),
    (RunStopped("stopped by SIGTERM"), ExitCode.STOPPED, "Error: stopped by SIGTERM"),
    (KeyboardInterrupt(), ExitCode.STOPPED, "Stopped."),
    (click.Abort(), ExitCode.STOPPED, "Aborted!"),
    (KeyError("sources"), ExitCode.UNFORESEEN, "Unexpected error: KeyError: 'sources' (test_exit_codes.py, line"),
]


@pytest.fixture(autouse=True)
def written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what nobody foresaw in the test's own folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("error", "code", "said"), ENDINGS, ids=lambda it: type(it).__name__)
@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_an_ending_has_the_same_code_and_a_sentence_everywhere(
    module: str, error: BaseException, code: ExitCode, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, words = ending_with(module, error, monkeypatch)
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_an_error_is_a_document_where_a_program_reads(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main, words = ending_with(module, UpstreamUnavailable("no answer"), monkeypatch)
    done = CliRunner().invoke(main, [*words, "--json"])
    assert (done.exit_code, done.stderr) == (ExitCode.TRY_AGAIN, "")
    found = json.loads(done.stdout)
    assert (found["kind"], found["error"]) == ("UpstreamUnavailable", "no answer")


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_wrong_usage_ends_with_2_and_the_help_has_the_table(module: str) -> None:
    wrong = CliRunner().invoke(entry(module), ["--no-such-option"])
    assert (wrong.exit_code, wrong.stdout) == (ExitCode.USAGE, "")
    said = " ".join(CliRunner().invoke(entry(module), ["--help"]).stdout.split())
    assert all(f"{int(code)} {code.meaning}" in said for code in ExitCode)


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_the_help_of_an_option_has_the_unit_that_stands_in_its_name(module: str) -> None:
    wrong: list[str] = []
    commands = [entry(module)]
    while commands:
        command = commands.pop()
        if isinstance(command, click.Group):
            commands += command.commands.values()
        for option in command.params:
            named = set(str(option.name).split("_")) & UNITS
            said = set(re.findall(r"[a-z]+", str(getattr(option, "help", "") or "").lower())) & UNITS
            if named and said and not named & said:
                wrong.append(f"{command.name} {option.opts[0]}: {said}")
    assert not wrong


def test_every_program_is_an_entry_point_of_the_console() -> None:
    assert {"flows", "infrastructure.setup_profiles", "deployments.apply", "deployments.webhook"} <= set(ENTRY_POINTS)
    bare = [name for name in ENTRY_POINTS if not isinstance(entry(name), EntryCommand)]
    assert not bare, f"give `cls=EntryCommand` or `cls=EntryGroup` of infrastructure.console to {bare}"


def test_where_an_unforeseen_error_came_from_is_in_a_file_for_its_owner_alone(
    written_down: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, words = ending_with("deployments.apply", ValueError("a\x1b]0;title\x07b"), monkeypatch)
    done = CliRunner().invoke(main, words)
    (file,) = written_down.glob("tributary-error-*.txt")
    assert "ValueError: ab (test_exit_codes.py, line" in done.stderr
    assert done.stderr.strip().endswith(f"Report it with {file}.")
    assert "in fail\n    raise error\nValueError: a" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["runn"], ["history"]], ids=" ".join)
def test_an_output_that_nobody_reads_ends_as_a_broken_pipe_does(words: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "flows", *words],
        cwd=ROOT,
        stdout=writer,
        stderr=writer if words == ["runn"] else subprocess.PIPE,
        env={**os.environ, "TRIBUTARY_STATE": str(tmp_path)},
    )
    os.close(writer)
    assert (done.returncode, done.stderr or b"") == (ExitCode.UNREAD, b"")


def test_what_came_of_it_is_the_code_also_where_nobody_reads_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "deployments.apply", "next", "--json", "--file", str(tmp_path / "none.yml")]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (ExitCode.USAGE, b"")


def test_the_tree_of_errors_says_each_ones_code() -> None:
    def below(kind: type[TributaryError]) -> Iterator[type[TributaryError]]:
        for found in kind.__subclasses__():
            yield found
            yield from below(found)

    drawn = dict(re.findall(r"─ (\w+) +(\d+) ", str(errors.__doc__)))
    ours = {kind.__name__: kind for kind in below(TributaryError) if kind.__module__ == errors.__name__}
    assert drawn == {name: str(int(kind.exit_code)) for name, kind in ours.items()}


def test_the_readme_has_the_table() -> None:
    table = (ROOT / "docs" / "reference.md").read_text().partition("## Exit codes")[2].partition("\n#")[0]
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|", table, re.M))
    assert rows == {str(int(code)): code.meaning for code in ExitCode}


def test_kubernetes_tries_again_what_a_new_pod_can_mend_and_nothing_else() -> None:
    document: dict[str, Any] = yaml.safe_load((ROOT / "deployments/kubernetes/job/base/cronjob.yaml").read_text())
    job = document["spec"]["jobTemplate"]["spec"]
    (fails,) = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    for_nothing = [ExitCode.FAILED, ExitCode.USAGE, ExitCode.CHANGES, ExitCode.UNFORESEEN]
    assert (fails["operator"], fails["values"]) == ("In", [int(code) for code in for_nothing])
    assert job["backoffLimit"] > 1


@pytest.mark.parametrize("path", ["deployments/ci/gitlab.yml", "deployments/dbt_cloud/.gitlab-ci.yml"])
def test_gitlab_tries_again_what_did_not_answer(path: str) -> None:
    text = re.sub(r"!reference", "", (ROOT / path).read_text())
    document: dict[str, Any] = yaml.safe_load(text)
    settings = document.get("default") or document[".python"]
    assert settings["retry"]["exit_codes"] == int(ExitCode.TRY_AGAIN)
    plan = document.get("plan-branch-jobs")
    assert plan is None or plan["allow_failure"] == {"exit_codes": int(ExitCode.CHANGES)}
