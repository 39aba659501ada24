"""Set up what targets.yml declares: Prefect blocks, concurrency limits and a local profiles.yml."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infrastructure.blocks.documents import (
    PROFILE_TYPE,
    BlockChange,
    SavedDocument,
    change_of,
    target_documents,
)
from infrastructure.commands import command
from infrastructure.connection_check.check import Check, check
from infrastructure.console import EntryCommand, json_option, say_aside, silent
from infrastructure.errors import ConfigError, ExitCode
from infrastructure.plan import Change, Plan
from infrastructure.profiles import (
    LOCAL_PROFILES,
    Profile,
    load_profile,
    local_profiles_action,
    local_profiles_text,
    profile_of,
    read_profile,
)
from infrastructure.program import Program, find_program
from infrastructure.registration import DeclaredSetup, GivenBlock, LimitChange, apply, declare, mend, plan
from infrastructure.screen import echo, styled
from infrastructure.server.automations import AutomationChange
from infrastructure.server.local_server import server_in_reach
from infrastructure.targets.outputs import read_secrets
from infrastructure.targets.target_file import Targets, load_targets
from infrastructure.targets.warehouses import profile_block
from infrastructure.workspace import shown, targets_file, workspace
from infrastructure.yaml_file import all_of

if TYPE_CHECKING:
    from infrastructure.server.client import Server

_NOT_OURS = "was not written by setup and is left alone: move it away, or name another file with --profiles-file"

_EPILOG = """\b
Examples:
  tributary setup --plan
      show what would change on the server, and change nothing
  tributary setup
      set up every target whose secrets are set
  uv run --env-file .env -- tributary setup --target prod
      set up one target, with the secrets of a file that git ignores
  tributary setup --check
      check whether dbt can connect
  tributary setup --plan --exit-code
      for CI: exit code 3 when there is something to change

A server is named by PREFECT_API_URL, or by the Prefect profile in use. Without one, Prefect keeps blocks on
this machine. Setup never deletes a block: `uv run prefect block delete TYPE/NAME` does.
"""


def _mend_and_end(context: click.Context, _: click.Parameter, name: str | None) -> None:
    from infrastructure.server.client import connect

    if name is None:
        return

    with server_in_reach(say_aside), connect() as server:
        echo(mend(server, name))
    context.exit()


@click.command(
    cls=EntryCommand, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--plan",
    "plan_only",
    is_flag=True,
    help="Show what would change, and change nothing. Secrets are never shown.",
)
@click.option(
    "--check", "check_only", is_flag=True, help="Check that dbt can connect to each target, and change nothing."
)
@click.option("--blocks-only", is_flag=True, help="Set up blocks and limits, but do not write profiles.yml.")
@click.option("--profiles-only", is_flag=True, help="Write only profiles.yml, which needs no server.")
@click.option(
    "-t", "--target", "only", multiple=True, metavar="T", help="Only this target; may be given more than once."
)
@click.option(
    "--mend-block",
    metavar="NAME",
    expose_value=False,
    callback=_mend_and_end,
    help="Move what this dbt CLI Profile block of yours shows in clear into Secret blocks, and do nothing else.",
)
@click.option("--exit-code", is_flag=True, help="With --plan: exit with 3 when there is something to change.")
@json_option
@click.option(
    "--targets-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read this file in place of the workspace's targets.yml.",
)
@click.option(
    "--profiles-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write this file; default: dbt/profiles.yml for the example, none for a workspace of your own.",
)
def main(
    plan_only: bool,
    check_only: bool,
    blocks_only: bool,
    profiles_only: bool,
    only: tuple[str, ...],
    exit_code: bool,
    as_json: bool,
    **files: Path | None,
) -> None:
    """Set up the environments of the workspace's targets.yml.

    Registers, for every target whose secrets are set, its credentials, target configs and dbt profile as
    Prefect blocks, and a concurrency limit; writes a profiles.yml that holds no secret. A second run
    changes nothing.
    """
    if plan_only and check_only:
        raise click.UsageError("--plan and --check exclude each other: give one of them.")
    if blocks_only and profiles_only:
        raise click.UsageError("--blocks-only and --profiles-only exclude each other: give one of them, or neither.")
    if exit_code and not plan_only:
        raise click.UsageError("--exit-code goes with --plan.")
    profiles_file = files["profiles_file"] or (LOCAL_PROFILES if workspace().is_example else None)
    if profiles_only and profiles_file is None:
        raise click.UsageError("--profiles-only needs --profiles-file in a workspace of your own.")
    targets = load_targets(files["targets_file"])
    if check_only:
        with server_in_reach(silent if as_json else say_aside):
            sys.exit(_check(targets, only, as_json))
    outcome = _Outcome(declare(targets, os.environ, only), only, files["targets_file"])
    if not profiles_only:
        report = silent if as_json else say_aside
        with server_in_reach(report):
            outcome.reconcile_server(plan_only, report)
    # dbt reads the profiles.yml of its working folder before that of the user: theirs is left to them.
    if profiles_file and not blocks_only:
        outcome.reconcile_profiles_file(plan_only, profiles_file, local_profiles_text(targets))
    echo(outcome.as_json() if as_json else outcome.as_text(plan_only, targets))
    if exit_code:
        sys.exit(outcome.plan.exit_code)


@dataclass(frozen=True)
class FileChange(Change):
    """The change to the local profiles.yml; a file that setup did not write is left alone."""

    @property
    def title(self) -> str:
        """Return the file's name, and that it holds no secret."""
        return f"{shown(Path(self.name))}{'' if self.reason else ' (holds no secret)'}"


class _Outcome:
    """What one run of setup found and did."""

    def __init__(self, declared: DeclaredSetup, only: Sequence[str], file: Path | None) -> None:
        self.declared = declared
        given = ["--targets-file", shlex.quote(str(file))] if file else []
        self.command = command(" ".join(["setup", *given, *(f"--target {name}" for name in only)]))
        self.address: str | None = None
        self.is_of_server = self.is_applied = False
        self.plan = Plan(notes=declared.warnings)

    def reconcile_server(self, plan_only: bool, report: Callable[[str], None] | None) -> None:
        from infrastructure.server.client import api_address, connect

        self.is_of_server, self.address = True, api_address()
        with connect(report) as server:
            self.plan = plan(server, self.declared)
            if not plan_only:
                apply(server, self.plan)
                self.is_applied = True

    def reconcile_profiles_file(self, plan_only: bool, path: Path, text: str) -> None:
        action = local_profiles_action(path, text)
        change = FileChange(str(path), action, reason=_NOT_OURS if action == "not ours" else "")
        if not plan_only and change.is_change:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            self.is_applied = True
        self.plan = replace(self.plan, changes=(*self.plan.changes, change))

    def as_json(self) -> str:
        files = [{"path": it.name, "action": it.action} for it in self.plan.only(FileChange)]
        document: dict[str, Any] = {
            "server": self.address,
            "ready": list(self.declared.targets),
            "passed_over": [{"name": e.name, "variables": list(e.variables)} for e in self.declared.passed_over],
            "warnings": list(self.plan.notes),
            "blocks": [change.as_document("block") for change in self.plan.only(BlockChange)],
            "given_blocks": [change.name for change in self.plan.only(GivenBlock)],
            "limits": [change.as_document() for change in self.plan.only(LimitChange)],
            "automations": [change.as_document("automation") for change in self.plan.only(AutomationChange)],
            "profiles_yml": next(iter(files), None),
            "has_changes": not self.plan.is_empty,
            "is_applied": self.is_applied,
        }
        return json.dumps(document, indent=2)

    def as_text(self, plan_only: bool, targets: Targets) -> str:
        parts = [self._changes(plan_only), "\n".join(styled(note, fg="yellow") for note in self.plan.notes)]
        if self.declared.passed_over:
            parts.append("\n".join(["Passed over:", *(f"  {entry}" for entry in self.declared.passed_over)]))
        parts.append(self._plan_summary() if plan_only else self._next_steps(targets))
        return "\n\n".join(part for part in parts if part)

    def _changes(self, plan_only: bool) -> str:
        where = [f"Prefect server: {self.address or 'this machine'}"] if self.is_of_server else []
        lines = self.plan.lines(is_done=not plan_only, details=plan_only)
        return "\n".join([*where, *lines, *(self.plan.unchanged_line() if lines else ())])

    def _plan_summary(self) -> str:
        if self.plan.is_empty:
            return "Nothing would change."
        return f"Nothing has been changed yet. To make these changes: {self.command}"

    def _next_steps(self, targets: Targets) -> str:
        ready = [name for name in self.declared.targets if name in targets.targets]
        head = "Nothing to change: everything is as in targets.yml." if self.plan.is_empty else ""
        if not ready:
            waiting = [variable for entry in self.declared.passed_over for variable in entry.variables]
            return f"No target is set up. Set {all_of(list(dict.fromkeys(waiting)))}, then: {self.command}"
        default = targets.default if targets.default in ready else ready[0]
        data = ["--data"] if workspace().is_example else []
        commands = {
            f"{self.command} --check": "check whether dbt can connect",
            command(" ".join(["run --target", default, *data])): "load sample data, build and test"
            if data
            else "build and test",
        }
        width = max(map(len, commands))
        steps = [f"  {command:{width}}   {purpose}" for command, purpose in commands.items()]
        return "\n".join(
            line for line in (head, f"Ready: {', '.join(self.declared.targets)}.", "Next:", *steps) if line
        )


def _check(targets: Targets, only: Sequence[str], as_json: bool) -> ExitCode:
    """Check every target that is set up or could be, and print one sentence for each; return the exit code.

    Raises:
        ConfigError: a named target is not set up, and its variables are not set.
    """
    checks: list[Check] = []
    programs: dict[str, Program] = {}
    notes: list[str] = []
    for name in only or targets.names:
        try:
            profile, note = _profile_to_check(targets, name, None if as_json else say_aside)
        except ConfigError as exc:
            if only:
                raise
            notes.append(f"{name} is not checked. {exc}")
            continue
        notes += [note] if note else []
        if not as_json:
            say_aside(f"Connecting to {name} …")
        try:
            programs[name] = find_program(profile.dbt)
            checks.append(check(profile))
        except ConfigError as exc:
            checks.append(Check(name, str(exc)))
        if not as_json:
            echo(_check_line(checks[-1], programs.get(name)))
    if as_json:
        listed = [
            {
                **{"target": entry.target, "ok": entry.is_ok, "cause": entry.cause, "mend": entry.mend},
                **{"note": entry.note, "dbt": programs[entry.target].sentence if entry.target in programs else ""},
            }
            for entry in checks
        ]
        echo(json.dumps({"checks": listed, "notes": notes}, indent=2))
    else:
        for note in notes:
            echo(note)
    if all(entry.is_ok for entry in checks):
        return ExitCode.DONE
    return ExitCode.TRY_AGAIN if all(entry.is_ok or entry.is_away for entry in checks) else ExitCode.FAILED


def _profile_to_check(targets: Targets, name: str, report: Callable[[str], None] | None) -> tuple[Profile, str | None]:
    """Return the profile that targets.yml declares, or the saved one where its secrets are not set."""
    from infrastructure.server.client import connect

    known = targets.targets.get(name)
    if name in targets.unset or (known and read_secrets(known, os.environ)[1]):
        # Else there is nothing to check, and declare() says what is missing.
        with suppress(ConfigError):
            return load_profile(name), None
    declared = declare(targets, os.environ, [name])
    target = targets.find(name)
    with connect(report) as server:
        is_saved = plan(server, declared).is_empty
        profile = declared.documents[-1]
        given = read_profile(server, name, SavedDocument(profile.data, ("", ""))) if target.given_block else None
    note = f"{name}: the saved blocks differ from targets.yml; run setup to update them."
    if given:
        return given, None if is_saved else note
    secrets, _ = read_secrets(target, os.environ)
    return profile_of(name, target, secrets, targets.profile), None if is_saved else note


def ensure_target(target: str, report: Callable[[str], None] | None = None) -> list[str]:
    """Create the blocks and the limit of a target that needs no secret, when they are missing.

    When they exist, it only reads each block.

    Args:
        report: called with a sentence when something takes long.

    Returns:
        Sentences for the user: what was created, or that the saved profile differs from targets.yml.

    Raises:
        ConfigError: the target is not set up and needs secrets, does not exist, or is another workspace's.
        UpstreamUnavailable: the Prefect server does not answer.
    """
    from infrastructure.server.client import connect

    with connect(report) as server:
        saved = server.read_block(PROFILE_TYPE, profile_block(target))
        if saved is not None:
            return _notice(target, server, saved)
        targets = load_targets()
        variables = list(targets.find(target).secret_variables().values())
        if variables:
            raise ConfigError(
                f"Target {target} is not set up yet, and needs secrets. Set "
                f"{all_of(variables)}, then run: {_again(target)}"
            )
        planned = plan(server, declare(targets, os.environ, [target]))
        apply(server, planned)
    made = [change.name for change in planned.only(BlockChange) if change.is_change]
    return [f"Created the blocks of target {target}: {', '.join(made)}."]


def _notice(target: str, server: Server, profile: SavedDocument) -> list[str]:
    """Return a note if the saved blocks of a target without secrets differ from targets.yml."""
    # The saved blocks count, so that a mistake in targets.yml does not keep a run from starting.
    try:
        targets = load_targets()
    except ConfigError:
        return []
    configs = profile.data.get("target_configs")
    saved = str(profile.data["name"]), str(configs.get("type")) if isinstance(configs, dict) else ""
    declared = targets.targets.get(target)
    wanted = targets.profile, (declared.warehouse if declared and saved[1] else "") or saved[1]
    if target in targets.names and saved != wanted:
        raise ConfigError(
            f"Target {target} is set up on this Prefect server for the dbt profile {' on '.join(filter(None, saved))}, "
            f"and {targets_file()} declares it for {' on '.join(filter(None, wanted))}: another workspace has one of "
            f"its name, or yours was changed. Give yours another name there, or set it up again: {_again(target)}"
        )
    with suppress(ConfigError):
        settings = targets.targets.get(target)
        if settings and not settings.secret_variables():
            *others, last = target_documents(targets.profile, target, settings, {})
            changes = [change_of(each, server.read_block(each.type_slug, each.name)) for each in others]
            changes.append(change_of(last, profile))
            if any(change.is_change for change in changes):
                return [
                    f"The saved blocks of target {target} differ from {targets_file()}; "
                    f"`{_again(target)}` updates them."
                ]
    return []


def _again(target: str) -> str:
    return command(f"setup --target {target}")


def _check_line(entry: Check, program: Program | None) -> str:
    if entry.is_ok:
        with_dbt = f", with {program.sentence}" if program else ""
        return f"{entry.target}: {styled('ok', fg='green')}{with_dbt}" + (f"; {entry.note}" if entry.note else "")
    return f"{entry.target}: {styled('failed', fg='red')}, {entry.cause}. {entry.mend}".rstrip()


if __name__ == "__main__":
    main()
