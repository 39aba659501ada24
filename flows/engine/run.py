"""Run one dbt command to its end: child, ledger, Prefect, retries."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from flows.engine.artifacts.artifacts import Artifacts, Details
from flows.engine.artifacts.results import (
    DbtResult,
    NodeResult,
    Stopped,
    enriched,
    result_of,
    unbuilt_batches,
    with_messages,
)
from flows.engine.changed.change_plan import ChangePlan, plan_changes
from flows.engine.changed.run_memory import RunMemory
from flows.engine.context.command import DbtCommand, Place, only_these
from flows.engine.context.deadline import calling_at, current_deadline, require_time
from flows.engine.context.events import FAILED, SKIPPED, STARTED, NodeEvent, is_of_an_interrupt
from flows.engine.context.options import RunOptions
from flows.engine.context.project import Project
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import (
    BATCHES,
    CHANGES,
    LEDGER,
    TEXT_LOG,
    State,
    dbt_log_folder,
    lost_sentence,
    write_in_words,
)
from flows.engine.ledger.attempt import Attempt
from flows.engine.ledger.failures import crash_of, failure_of, log_of, nothing_matched
from flows.engine.ledger.hooks import are_all_kept_back, is_hook, nodes_for_hooks
from flows.engine.ledger.ledger import TAKEN_OVER, Ledger, TextLog
from flows.engine.ledger.resume import Interrupted, fingerprint, interrupted_run
from flows.engine.ledger.retries import Retries, with_what_they_kept_back
from flows.engine.ledger.skips import skipped_in_silence, with_causes
from flows.engine.ledger.undone import is_run_by, stopped_of
from flows.engine.process.door import Dbt, Record
from flows.engine.process.environment import kept_back
from flows.engine.process.listing import list_nodes
from flows.engine.process.process import DbtProcess
from flows.engine.sinks.recorder import Recorder
from flows.engine.target.file_lock import calling_when_lost, held_files
from infrastructure.errors import (
    ConfigError,
    DbtRunFailed,
    RunStopped,
    RunTimedOut,
    TributaryError,
    UpstreamUnavailable,
)

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

RecorderFactory = Callable[[State], Recorder | None]


# Told what came of a command, however it ended: well, with failures, out of time or stopped by somebody.
Ended = Callable[[DbtResult, TributaryError | None], None]


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
        recorder = recorder_factory(state) if recorder_factory else None
        if recorder:
            stack.enter_context(recorder)
        head = {"kind": "run", "command": fingerprint(command), "target": profile.target, "at": started_at}
        ledger.append(head | memory.entry() | ({"resumes": earlier.run_path.name} if earlier else {}))
        run = _Run(command, run_of, options, place, ledger, recorder, started_at)
        for note in kept_back(project.folder, profile):
            current_reporter().note(note)
        try:
            left = command
            is_all = not (earlier and earlier.done)
            if earlier:
                left = _what_is_left(command, earlier, project, profile)
                run.take_over(earlier)
            elif options.changed:
                plan = plan_changes(memory, project, profile)
                left = run.only_what_changed(plan)
                is_all = not plan.decisions
            if left is not None:
                run.to_the_end(left, retries or Retries(options.retries))
            if is_all:
                run.require_a_match()
        except BaseException as exc:
            if not isinstance(exc, Exception):
                # A signal: what becomes of this process is not ours to say, what became of the run is.
                stopped = RunStopped(f"{command.name} on target {profile.target} was stopped: {run.stopped()}.")
                current_reporter().note(str(stopped))
                stack.close()
                if ended:
                    ended(run.result(), stopped)
            raise
        if lost := lost_sentence(state, belongings):
            run.note(lost)
        memory.keep(run.own_results(earlier), run.started, run.details, run.invocation_ids)
        ledger.append({"kind": "end", "at": datetime.now(UTC), "is_ok": run.is_ok, "nodes": len(run.results)})
    if recorder and recorder.unsent:
        current_reporter().note(
            f"The Prefect server did not take {recorder.unsent} events of this run"
            f"{f': {recorder.denied}' if recorder.denied else ''}; {ledger.path} has them all."
        )
    return run.finish(ended)


def _what_is_left(command: DbtCommand, earlier: Interrupted, project: Project, profile: Profile) -> DbtCommand | None:
    """Return the command for the nodes that an interrupted run did not finish; None when it finished them all."""
    if not earlier.done:
        return command
    selected, manifest = list_nodes(command, project, profile)
    left = [
        unique_id
        for unique_id in selected
        if unique_id not in earlier.done and is_run_by(command.verb, unique_id, manifest)
    ]
    current_reporter().note(
        f"Resuming the run of {earlier.run_path.name.partition('.')[0]}: {len(earlier.done)} nodes are done, "
        f"{len(left)} are left."
    )
    if not left and any(is_hook(node) and node not in earlier.hooks for node in manifest.nodes):
        current_reporter().note("Its hooks did not come to a good end: they are run again.")
        left = nodes_for_hooks(earlier.done.values())
    return only_these(command, left)


class _Run:
    """One command over its attempts, merged so that it reads as one run."""

    def __init__(
        self,
        command: DbtCommand,
        run_of: RunContext,
        options: RunOptions,
        place: Place,
        ledger: Ledger,
        recorder: Recorder | None,
        started_at: datetime,
    ) -> None:
        self._run_id = run_of.run_id
        self._command = command
        self._dbt = Dbt(run_of.project, run_of.profile)
        self._profile = run_of.profile
        self._options = options
        self._place = place
        self._artifacts = Artifacts(place.target_path)
        self._run_path = ledger.path.parent
        self._ledger = ledger
        self._recorder = recorder
        self._started_at = started_at
        self._attempt = Attempt()
        self._stopped: Stopped | None = None
        self._lost_because: str | None = None
        self.results: dict[str, NodeResult] = {}
        # What this run's own children did, over all attempts; the details are those of dbt's artifacts.
        self.started: set[str] = set()
        self.details: Details = {}
        self.invocation_ids: list[str] = []
        self._notes: list[str] = []
        self._error: TributaryError | None = None

    @property
    def is_ok(self) -> bool:
        """Return whether nothing failed so far."""
        return self._error is None and not any(node.outcome == "failed" for node in self.results.values())

    def take_over(self, earlier: Interrupted) -> None:
        """Make what an interrupted run finished part of this one, also for the next crash."""
        for result in earlier.done.values():
            self._ledger.node(result.as_event(), TAKEN_OVER)
            self.results[result.unique_id] = result
        if self._recorder:
            self._recorder.results(earlier.done.values())

    def own_results(self, earlier: Interrupted | None) -> dict[str, NodeResult]:
        """Return the results without those that were taken over."""
        return {key: node for key, node in self.results.items() if not earlier or key not in earlier.done}

    def only_what_changed(self, plan: ChangePlan) -> DbtCommand | None:
        """Write down every decision of a plan, and return its command."""
        for note in plan.notes:
            self.note(note)
        write_in_words(self._run_path / CHANGES, orjson.dumps(plan.decisions))
        return plan.command

    def note(self, text: str) -> None:
        """Say something a person should know now, and in the result."""
        current_reporter().note(text)
        self._notes.append(text)

    def to_the_end(self, command: DbtCommand, retries: Retries) -> None:
        """Run a command, and again what failed for a transient reason; leaves the outcome in `results`."""
        first_ended_at: float | None = None
        for number in range(1, retries.run_limit + 2):
            self._attempt = attempt = Attempt()
            try:
                self._run_child(command, number)
            finally:
                self._learn(attempt, number)
            self._error = self._error or self._error_of(attempt)
            first_ended_at = first_ended_at or time.monotonic()
            again = self._again(command, retries, number) if number <= retries.run_limit else None
            if again is None:
                return
            delay = retries.delay_seconds(number + 1)
            if time.monotonic() + delay > first_ended_at + retries.budget_seconds or not _time_for(delay):
                current_reporter().note("What failed for a passing reason is not tried again: there is no time left.")
                return
            current_reporter().note(
                f"Trying again in {delay:.0f} s what failed for a passing reason (attempt {number + 1})."
            )
            retries.sleep(delay)
            self._error, command = None, again

    def require_a_match(self) -> None:
        """Hold it against a command that its selection matched nothing: nobody would hear of a mistyped one."""
        command, options = self._command, self._options
        is_selected = command.select or command.exclude or command.selector
        # Nothing is modified compared with another target: that is an answer.
        if self.results or not is_selected or options.allow_nothing or options.defer_to:
            return
        names: list[str] = []
        with contextlib.suppress(ConfigError):
            names += [node.name for node in self._artifacts.manifest.nodes.values()]
        self._error = self._error or nothing_matched(command, self._profile.target, names)

    def stopped(self) -> Stopped:
        """Work out what a command that was ended before its end left undone, and write that down."""
        self._stopped = stopped_of(self._command.verb, self.results, self._attempt, self._artifacts)
        self._ledger.append({"kind": "stopped", "at": datetime.now(UTC), "undone": str(self._stopped)})
        return self._stopped

    def finish(self, ended: Ended | None) -> DbtResult:
        """Return the result, or raise what went wrong; in both cases after it is told."""
        result = self.result()
        error = self._error or (failure_of(result, self._profile.warehouse) if result.of("failed") else None)
        if ended and not isinstance(error, ConfigError):
            ended(result, error)
        if error is None:
            return result
        if isinstance(error, DbtRunFailed):
            error.result = result
        raise error

    def result(self) -> DbtResult:
        """Return what came of the command so far."""
        return DbtResult(
            command=self._command.name,
            target=self._profile.target,
            nodes=tuple(self.results.values()),
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            target_path=self._place.target_path,
            run_path=self._run_path,
            notes=tuple(dict.fromkeys(self._notes)),
            stopped=self._stopped,
        )

    def _run_child(self, command: DbtCommand, number: int) -> None:
        # Each time: the state folder may have been deleted since the last attempt.
        State(self._place.profiles.parent).write_profiles(self._profile.profiles_yml(self._place.profile))
        batches: Path | None = None
        if number > 1:
            batches = self._run_path / BATCHES
            told = {"started_at": self._started_at, "batches": unbuilt_batches(self.details)}
            write_in_words(batches, orjson.dumps(told))
        record = Record(self._run_id, self._run_path, batches)
        in_this_manner = replace(command, flags=(*command.flags, *self._options.manner(command.verb)))
        with (
            TextLog(self._run_path / TEXT_LOG) as text_log,
            self._dbt.run(in_this_manner, self._place, held_files(), record) as child,
        ):
            with (
                calling_at(current_deadline(), child.interrupt),
                calling_when_lost(self._profile.target, lambda because: self._lose(child, because)),
            ):
                try:
                    self._read_lines(child, text_log, number)
                except BaseException as exc:
                    if isinstance(exc, Exception):
                        raise
                    # What dbt says while it ends is part of the record: a node may end well in this very moment.
                    child.interrupt()
                    self._read_lines(child, text_log, number)
                    raise
            self._attempt.exit_code = child.wait()
            self._attempt.is_interrupted = child.is_interrupted
            if child.is_interrupted and (self._attempt.left_undone or not self._nodes_tell(self._attempt)):
                self._error = self._cut_short()

    def _read_lines(self, child: DbtProcess, text_log: TextLog, number: int) -> None:
        reporter = current_reporter()
        for event in self._dbt.events(child):
            if is_of_an_interrupt(event):
                # Whoever asked for it needs no traceback of it, and who did not has to be told in words.
                if not child.is_interrupted:
                    self._attempt.errors.append("It was interrupted by a signal that this run did not send.")
                continue
            if event.node is not None:
                if child.is_interrupted and event.node.status in FAILED:
                    # Its query was cancelled: it is cut off, which is no failure of its own.
                    event = replace(event, node=None)
                else:
                    self._take_node(event.node, number)
            text_log.line(f"{event.at:%H:%M:%S} {event.text}")
            self._attempt.take_line(event)
            if self._recorder:
                self._recorder.event(event)
            reporter.event(event)
        if self._recorder and child.is_interrupted:
            self._recorder.is_stopped = True

    def _lose(self, child: DbtProcess, because: str) -> None:
        self._lost_because = because
        child.interrupt()

    def _cut_short(self) -> TributaryError:
        what = f"{self._command.name} on target {self._profile.target} was stopped"
        rest = f"{self.stopped()}. Run it again with --resume to do what is left. Log: {log_of(self._run_path)}"
        if self._lost_because is not None:
            return UpstreamUnavailable(f"{what} because {self._lost_because}: {rest}")
        deadline = current_deadline()
        assert deadline is not None
        return RunTimedOut(f"{what} after {deadline.spoken}, the time that the run was given: {rest}")

    def _learn(self, attempt: Attempt, number: int) -> None:
        """Add what only dbt's artifacts say to the results of an attempt, and send it on."""
        self._notes += attempt.notes
        found = self._artifacts.run_results(attempt.invocation_id)
        details = self._dbt.engine.results(found)
        self.details = {**self.details, **details}
        self.invocation_ids += [attempt.invocation_id] if attempt.invocation_id else []
        if details.keys() - attempt.begun.keys():
            with contextlib.suppress(ConfigError):
                for node in skipped_in_silence(details, attempt.begun, self._artifacts.manifest, datetime.now(UTC)):
                    self._take_node(node, number)
                    if self._recorder:
                        self._recorder.results([self.results[node.unique_id]])
        updated = with_messages(enriched(self.results.values(), details), attempt.node_errors, attempt.exceptions)
        if any(node.outcome == "skipped" for node in updated):
            with contextlib.suppress(ConfigError):
                updated = with_causes(updated, self._artifacts.manifest)
        for node in updated:
            if node.adapter_response and node.unique_id in details:
                figures = {"kind": "figures", "unique_id": node.unique_id, "response": dict(node.adapter_response)}
                self._ledger.append(figures)
        if self._recorder:
            told = [node for node in updated if node.message and not self.results[node.unique_id].message]
            self._recorder.results(told)
        self.results = {node.unique_id: node for node in updated}

    def _take_node(self, node: NodeEvent, number: int) -> None:
        self._ledger.node(node, number)
        self._attempt.take_node(node)
        self.started.add(node.unique_id)
        if node.status != STARTED:
            self.results[node.unique_id] = result_of(node, self.results.get(node.unique_id))

    def _error_of(self, attempt: Attempt) -> TributaryError | None:
        """Return an error that is about no single node; None when the nodes themselves tell it all."""
        said = "\n".join(attempt.errors or attempt.said)
        if self._nodes_tell(attempt):
            # Where dbt had nothing to do it says so, and some versions leave nothing.
            said = "" if attempt.notes else self._dbt.unproved(self._command, self._place, attempt.invocation_id)
            if attempt.is_interrupted or not said:
                return None
        return crash_of(
            self._command.name,
            self._profile.target,
            attempt.exit_code,
            said,
            self._run_path,
            self._profile.warehouse,
        )

    def _nodes_tell(self, attempt: Attempt) -> bool:
        """Say whether the nodes account for how a command ended."""
        if attempt.exit_code != 1:
            return attempt.exit_code == 0
        return not attempt.errors and any(node.status in FAILED | SKIPPED for node in self.results.values())

    def _again(self, command: DbtCommand, retries: Retries, number: int) -> DbtCommand | None:
        """Return the command that runs what failed and what it kept from running; None when that can't help."""
        if self._error is not None:
            is_transient = isinstance(self._error, DbtRunFailed) and self._error.is_transient
            return command if is_transient and not self.results and number <= retries.limit else None
        failed = retries.to_try_again(self.results.values(), self._profile.warehouse)
        if not failed:
            return None
        try:
            manifest = self._artifacts.manifest
        except ConfigError as exc:
            self.note(f"What failed for a passing reason is not tried again: {exc}")
            return None
        left = with_what_they_kept_back(failed, self.results.values(), manifest)
        nodes = manifest.require(key for key in left if not is_hook(key))
        if nodes or len(nodes) == len(left):
            return only_these(self._command, nodes)
        if are_all_kept_back(self.results):
            return command
        try:
            return only_these(self._command, nodes_for_hooks(self.results.values()))
        except ConfigError as exc:
            self.note(f"What failed for a passing reason is not tried again: {exc}")
            return None


def _time_for(seconds: float) -> bool:
    deadline = current_deadline()
    return deadline is None or deadline.left_seconds() > seconds
