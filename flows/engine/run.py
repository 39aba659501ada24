"""Run one dbt command to its end: child, ledger, Prefect, retries."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.results import DbtResult
from flows.engine.attempts import Attempts, Ended
from flows.engine.changed.change_plan import ChangePlan, plan_changes
from flows.engine.changed.run_memory import RunMemory
from flows.engine.context.command import DbtCommand, Place, only_these
from flows.engine.context.deadline import require_time
from flows.engine.context.options import RunOptions
from flows.engine.context.project import Project
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import RunContext
from flows.engine.context.shared.state import why
from flows.engine.context.shared.target import SharedTarget
from flows.engine.context.state import LEDGER, State, dbt_log_folder, lost_sentence, shared_target
from flows.engine.ledger.addresses import address_of
from flows.engine.ledger.hooks import is_hook, nodes_for_hooks
from flows.engine.ledger.keeper import Keeper
from flows.engine.ledger.ledger import Ledger
from flows.engine.ledger.resume import Interrupted, are_hooks_left, fingerprint, interrupted_run, name_of_run, told_of
from flows.engine.ledger.retries import Retries
from flows.engine.ledger.undone import is_run_by
from flows.engine.process.environment import kept_back
from flows.engine.process.listing import list_nodes
from flows.engine.sinks.following import followers
from flows.engine.sinks.recorder import Recorder
from infrastructure.errors import ConfigError, RunStopped, TributaryError
from infrastructure.plain_text import are, count_of

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

RecorderFactory = Callable[[State], Recorder | None]


def run_dbt(
    command: DbtCommand,
    run_of: RunContext,
    options: RunOptions | None = None,
    recorder_factory: RecorderFactory | None = None,
    ended: Ended | None = None,
    retries: Retries | None = None,
) -> DbtResult:
    """Run a dbt command and return what came of every node.

    Args:
        options: whether to go on with an earlier run or with what changed, and in which manner; the selection is the
            command's.
        recorder_factory: makes what sends the nodes to Prefect; nothing is sent when None.
        ended: told the result before it is returned or an error raised, also when a signal stops the run.
        retries: how patiently to try again, where that is not to be as usual.

    Raises:
        DbtRunFailed: a node failed, after everything about it is written down.
        RunTimedOut: the time limit in force has passed; dbt is stopped.
        ConfigError: dbt could not start with these settings.
    """
    options = options or RunOptions()
    project, profile, state = run_of.project, run_of.profile, run_of.state
    require_time(f"{command.name} did not begin on target {profile.target}")
    started_at = datetime.now(UTC)
    # The target is held by now: what another machine did meanwhile is there to be fetched.
    if shared := shared_target(state, os.environ, is_run=True):
        shared.send_unsent()
    run_path = state.new_run(started_at, f"{command.verb.replace(' ', '-')}-{run_of.run_id}")
    place = Place(
        project=project.folder,
        profiles=state.profiles,
        profile=project.profile,
        target_path=state.target_path,
        log_path=dbt_log_folder(run_path),
    )
    memory = RunMemory(state, command, project, profile, run_path.name, run_of.run_id)
    earlier = interrupted_run(state, command) if options.resume else None
    belongings = state.belongings()
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(run_path / LEDGER))
        stack.enter_context(Keeper(ledger, shared))
        recorder = recorder_factory(state) if recorder_factory else None
        if recorder:
            stack.enter_context(recorder)
        head: dict[str, Any] = {
            "kind": "run",
            "command": fingerprint(command),
            "target": profile.target,
            "at": started_at,
        }
        head |= {"run_id": run_of.run_id, "commit": project.commit}
        head["place"] = {
            "project": state.project,
            "warehouse": profile.warehouse,
            "address": address_of(profile.output),
        }
        head["flow_run"] = run_of.flow_run
        if earlier and not earlier.is_whole:
            head |= {"resumes": earlier.run_path.name, "window_at": earlier.window_at}
        ledger.append(head | {"options": told_of(options)} | memory.entry())
        for follower in followers(state, run_path, run_of.run_id, os.environ):
            stack.enter_context(follower)
        run = Attempts(command, run_of, options, place, ledger, recorder, started_at)
        run.built_before = memory.built_before
        for note in kept_back(project.folder, profile):
            current_reporter().note(note)
        try:
            left = command if command.nodes != () else None
            is_all = not (earlier and (earlier.done or earlier.is_whole))
            if earlier and earlier.is_whole:
                run.note(f"Nothing to resume: the run of {name_of_run(earlier.run_path)} came to a good end.")
                left = None
            elif earlier:
                left, earlier = _what_is_left(command, earlier, project, profile)
                run.take_over(earlier)
            elif options.changed:
                plan = plan_changes(memory, project, profile)
                left = run.only_what_changed(plan) or _for_the_hooks(command, plan, state, run_path)
                is_all = not plan.decisions
            if left is not None:
                run.to_the_end(left, retries or Retries(options.retries))
            run.account()
            if is_all:
                run.require_a_match()
        except BaseException as exc:
            if not isinstance(exc, Exception):
                # A signal: the sender decides about this process, but the run is recorded here.
                stopped = RunStopped(f"{command.name} on target {profile.target} was stopped: {run.stopped()}.")
                current_reporter().note(str(stopped))
                run.account()
                stack.close()
                if ended:
                    ended(run.result(), stopped)
            else:
                with suppress(ConfigError):
                    ledger.append({"kind": "error", "at": datetime.now(UTC), "message": str(exc)})
            raise
        if _has_what_it_had(run, state, belongings, shared):
            memory.keep(run.own_results(earlier), run.started, run.details, run.invocation_ids)
        end = {"kind": "end", "at": datetime.now(UTC), "is_ok": run.is_ok, "nodes": len(run.results)}
        ledger.append(end | ({"message": run.trouble} if run.trouble else {}))
    if recorder and recorder.unsent:
        current_reporter().note(
            f"The Prefect server did not take {count_of(recorder.unsent, 'event')} of this run"
            f"{f': {recorder.denied}' if recorder.denied else ''}; {ledger.path} has them all."
        )
    return run.finish(ended)


def _has_what_it_had(run: Attempts, state: State, before: Sequence[Path], shared: SharedTarget | None) -> bool:
    """Say what was deleted of a state while a run went on, and fetch it again where it is elsewhere.

    Return whether what the run built can be written down together with what earlier ones did: by itself it would take
    the place of that elsewhere.
    """
    lost = lost_sentence(state, before)
    if not lost:
        return True
    if shared is None:
        run.note(lost)
        return True
    try:
        shared.fetch()
    except TributaryError as exc:
        run.note(
            f"Something deleted what {state.folder} held while this run went on, and it can't be fetched again: "
            f"{why(exc)}. The next run with --changed finds what this one built in its record."
        )
        return False
    run.note(
        f"Something deleted what {state.folder} held while this run went on. It was fetched again from {shared.url}."
    )
    return True


def _for_the_hooks(command: DbtCommand, plan: ChangePlan, state: State, run_path: Path) -> DbtCommand | None:
    """Return the command that runs the project's hooks where no node is due and they failed last; None elsewhere."""
    if not plan.decisions or not plan.inputs.has_hooks or not are_hooks_left(state, run_path):
        return None
    current_reporter().note("The hooks of the last run did not come to a good end: they are run again.")
    nodes = Artifacts(state.target_path).manifest.nodes
    there = [nodes[decision.unique_id] for decision in plan.decisions if decision.unique_id in nodes]
    return only_these(command, nodes_for_hooks(there))


def _what_is_left(
    command: DbtCommand, earlier: Interrupted, project: Project, profile: Profile
) -> tuple[DbtCommand | None, Interrupted]:
    """Return the command for the nodes that an interrupted run did not finish, and what of that run still counts.

    The command is None when it finished them all.
    """
    if not earlier.done:
        return command, earlier
    selected, manifest = list_nodes(command, project, profile)
    earlier = earlier.without(manifest.built_without(set(selected) - earlier.done.keys()))
    left = [
        unique_id
        for unique_id in selected
        if unique_id not in earlier.done and is_run_by(command.verb, unique_id, manifest)
    ]
    done = len(earlier.done)
    current_reporter().note(
        f"Resuming the run of {name_of_run(earlier.run_path)}: {count_of(done, 'node')} {are(done)} done, "
        f"{len(left)} {are(len(left))} left."
    )
    if not left and any(is_hook(node) and node not in earlier.hooks for node in manifest.nodes):
        current_reporter().note("Its hooks did not come to a good end: they are run again.")
        left = nodes_for_hooks(earlier.done.values())
    return only_these(command, left), earlier
