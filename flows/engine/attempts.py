"""One dbt command over its attempts: what each was to run, what came of it, and what is tried again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from flows.engine.artifacts.artifacts import Artifacts, Details
from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import MANIFEST
from flows.engine.artifacts.results import (
    DbtResult,
    NodeResult,
    Stopped,
    enriched,
    result_of,
    unbuilt_batches,
    with_messages,
)
from flows.engine.changed.change_plan import ChangePlan
from flows.engine.changed.parse_inputs import is_narrowed
from flows.engine.context.command import DbtCommand, Place, only_these
from flows.engine.context.deadline import calling_at, current_deadline
from flows.engine.context.events import (
    FAILED,
    NOT_RUN,
    SELECTED,
    SKIPPED,
    STARTED,
    UNTOLD,
    DbtEvent,
    NodeEvent,
    is_of_an_interrupt,
)
from flows.engine.context.options import RunOptions
from flows.engine.context.reporting import current_reporter
from flows.engine.context.run_context import RunContext
from flows.engine.context.state import BATCHES, CHANGES, TEXT_LOG, State, write_in_words
from flows.engine.ledger.attempt import Attempt
from flows.engine.ledger.batches import window_flags
from flows.engine.ledger.failures import crash_of, failure_of, left_undone, log_of, nothing_matched
from flows.engine.ledger.hooks import are_all_kept_back, is_hook, nodes_for_hooks
from flows.engine.ledger.ledger import TAKEN_OVER, Ledger, TextLog
from flows.engine.ledger.resume import Interrupted
from flows.engine.ledger.retries import Retries, with_what_they_kept_back
from flows.engine.ledger.skips import told_in_silence, with_causes
from flows.engine.ledger.undone import (
    Reasons,
    has_an_outcome,
    is_accounted_for,
    names_of,
    run_by,
    stopped_of,
    unproved,
    untold,
    was_to_stop,
    without_their_model,
)
from flows.engine.process.door import Dbt, Record
from flows.engine.process.kept_parse import PARSED_ANEW, KeptParse, parsed_anew
from flows.engine.process.listing import list_nodes
from flows.engine.process.process import DbtProcess
from flows.engine.sinks.assets import BUILDING
from flows.engine.sinks.recorder import Recorder
from flows.engine.target.file_lock import calling_when_lost, held_files
from infrastructure.errors import ConfigError, DbtRunFailed, RunTimedOut, TributaryError, UpstreamUnavailable

# Called with the result of a command, however it ended: succeeded, failed, timed out or stopped.
Ended = Callable[[DbtResult, TributaryError | None], None]


class Attempts:
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
        self._stopped_because = ""
        self._lost_because: str | None = None
        # What the attempt runs, and when it began.
        self._running = command, 0.0
        # Unique ids of all that was to run, over all attempts; and of what dbt did without a proof.
        self._to_run: dict[str, None] = {}
        self._unproved: set[str] = set()
        # From when batches of time are counted back; and of which models some are built and some are not.
        self._window_at: datetime | None = None
        self._batches: dict[str, Any] = {}
        self.results: dict[str, NodeResult] = {}
        # What this run's own children did, over all attempts; the details are those of dbt's artifacts.
        self.started: set[str] = set()
        self.details: Details = {}
        self.invocation_ids: list[str] = []
        # What had been built before this run, for batches of time.
        self.built_before: Callable[[], Collection[str]] = tuple
        self._notes: list[str] = []
        self._error: TributaryError | None = None

    @property
    def is_ok(self) -> bool:
        """Return whether nothing failed or was left undone so far."""
        return self._error is None and not any(node.outcome in ("failed", "skipped") for node in self.results.values())

    @property
    def trouble(self) -> str:
        """Return what was wrong with the command as a whole so far; empty where the nodes say it all."""
        return str(self._error or "")

    def take_over(self, earlier: Interrupted) -> None:
        """Make what an interrupted run finished part of this one, also for the next crash."""
        self._window_at, self._batches = earlier.window_at or self._started_at, dict(earlier.batches)
        self._ledger.take_back(earlier.stale)
        for result in earlier.done.values():
            self._ledger.node(result.as_event(), TAKEN_OVER)
            self.results[result.unique_id] = result
        if self._recorder:
            self._recorder.results(earlier.done.values())

    def own_results(self, earlier: Interrupted | None) -> dict[str, NodeResult]:
        """Return the outcomes that dbt gave, without those that were taken over."""
        return {
            key: node
            for key, node in self.results.items()
            if node.status not in UNTOLD and (not earlier or key not in earlier.done)
        }

    def only_what_changed(self, plan: ChangePlan) -> DbtCommand | None:
        """Write down every decision of a plan, and return its command."""
        for note in plan.notes:
            self.note(note)
        write_in_words(self._run_path / CHANGES, orjson.dumps(plan.decisions))
        self._ledger.reused({each.unique_id: each.reason for each in plan.decisions if not each.is_built})
        return plan.command

    def note(self, text: str) -> None:
        """Say something a person should know now, and in the result."""
        current_reporter().note(text)
        self._notes.append(text)

    def to_the_end(self, command: DbtCommand, retries: Retries) -> None:
        """Run a command, and again what failed for a transient reason; leaves the outcome in `results`."""
        first_ended_at: float | None = None
        for number in range(1, retries.run_limit + 2):
            self._try(command, number)
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

    def _try(self, command: DbtCommand, number: int) -> None:
        """Run a command once, and what it has left out by its nature."""
        self._attempt = Attempt()
        self._running = command, time.time()
        try:
            if self._run_child(command, number):
                self._attempt = Attempt()
                self._run_child(parsed_anew(command), number)
                if self._attempt.selected is not None or self._nodes_tell(self._attempt):
                    self.note(PARSED_ANEW)
        finally:
            attempt = self._attempt
            self._learn(attempt, number)
            to_run = self._known_to_run()
            self._to_run |= dict.fromkeys(to_run or ())
        self._error = self._error or self._error_of(attempt)
        if self._error is not None or attempt.is_interrupted:
            return
        manifest = self._manifest_if_any()
        self._unproved = (self._unproved - attempt.begun.keys()) | unproved(
            attempt, self.results, command.verb, manifest
        )
        if to_run is None:
            to_run = self._asked_to_run()
            self._to_run |= dict.fromkeys(to_run)
        left_out = only_these(command, without_their_model(command, to_run, attempt, manifest))
        if left_out and not was_to_stop(self._options.fail_fast, self.results.values()):
            self._try(left_out, number)

    def _known_to_run(self) -> list[str] | None:
        """Return the unique ids of what the attempt was to run; None where only another question to dbt can tell."""
        (command, began_at), attempt = self._running, self._attempt
        if not is_accounted_for(command.verb):
            return []
        # dbt 2 writes its manifest at its end: what is there before is another run's.
        manifest = self._manifest_if_any(began_at)
        if command.nodes is not None or attempt.selected is not None:
            handed = [key for key in command.nodes or () if has_an_outcome(command.verb, key, manifest)]
            return list(dict.fromkeys([*handed, *(attempt.selected or ())]))
        if manifest.nodes and not is_narrowed(command, self._dbt.project):
            return list(dict.fromkeys([*attempt.begun, *run_by(command.verb, manifest)]))
        return list(attempt.begun) if attempt.has_counted_all else None

    def _asked_to_run(self) -> list[str]:
        command, _ = self._running
        try:
            found, manifest = list_nodes(command, self._dbt.project, self._profile)
        except TributaryError as exc:
            self._error = exc
            return []
        return [key for key in found if has_an_outcome(command.verb, key, manifest)]

    def account(self) -> None:
        """Give an outcome in words to each node that was to run and has none, and hold it against the command."""
        manifest = self._manifest_if_any()
        results = {key: node for key, node in self.results.items() if key not in self._unproved}
        reasons = Reasons(
            is_stopped=self._stopped is not None,
            because=self._stopped_because,
            is_crashed=self._error is not None,
            unproved=self._unproved,
            is_fail_fast=was_to_stop(self._options.fail_fast, results.values()),
            hooks=[node.name for node in results.values() if is_hook(node.unique_id) and node.outcome == "failed"],
        )
        if left := untold(self._to_run, results, self._attempt.running, manifest, reasons):
            self.results = results | left
            self._ledger.append({"kind": "not run", "nodes": {key: node.message for key, node in left.items()}})
            if self._recorder:
                self._recorder.results([node for node in left.values() if node.status == NOT_RUN])
        self._error = self._error or left_undone(self.result())
        if self._recorder and self._command.verb in BUILDING:
            self._recorder.built(node for key, node in self.results.items() if key in self.started)

    def require_a_match(self) -> None:
        """Fail a command whose selection matched nothing, as a mistyped one would go unnoticed."""
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
        known = self._known_to_run()
        to_run = None if known is None else names_of({**self._to_run, **dict.fromkeys(known)}, self._manifest_if_any())
        self._stopped = stopped_of(self.results, self._attempt, to_run)
        self._ledger.append({"kind": "stopped", "at": datetime.now(UTC), "undone": str(self._stopped)})
        return self._stopped

    def finish(self, ended: Ended | None) -> DbtResult:
        """Return the result, or raise the error; in both cases after it is reported."""
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
            commit=self._dbt.project.commit,
        )

    def _run_child(self, command: DbtCommand, number: int) -> bool:
        """Run a child to its end, and return whether it may have failed because of the parse that dbt had kept."""
        # Each time: the state folder may have been deleted since the last attempt.
        State(self._place.profiles.parent).write_profiles(self._profile.profiles_yml(self._place.profile))
        batches: Path | None = None
        manner = self._options.manner(command.verb)
        if number > 1 or self._window_at:
            batches = self._run_path / BATCHES
            at = self._window_at or self._started_at
            write_in_words(batches, orjson.dumps({"started_at": at, "batches": self._batches}))
            # A dbt that imports nothing of ours is told the window, in which it builds all batches.
            if self._dbt.program.path is not None and not any(
                flag.startswith("--event-time") for flag in command.flags
            ):
                known = self._manifest_if_any().nodes
                nodes = [known[key] for key in (known if command.nodes is None else command.nodes) if key in known]
                manner += window_flags(nodes, self._batches, at, self.built_before(), command.full_refresh)
        record = Record(self._run_id, self._run_path, batches)
        kept = KeptParse(command, self._place, self._dbt.program)
        in_this_manner = replace(command, flags=(*command.flags, *manner))
        with (
            TextLog(self._run_path / TEXT_LOG) as text_log,
            self._dbt.run(in_this_manner, self._place, held_files(), record) as child,
        ):
            with (
                calling_at(current_deadline(), child.interrupt),
                calling_when_lost(self._profile.target, lambda because: self._lose(child, because)),
            ):
                try:
                    self._read_lines(child, text_log, number, kept)
                except BaseException as exc:
                    if isinstance(exc, Exception):
                        raise
                    # What dbt says while it ends is part of the record: a node may end well in this very moment.
                    child.interrupt()
                    self._read_lines(child, text_log, number, kept)
                    raise
            self._attempt.exit_code = child.wait()
            self._attempt.is_interrupted = child.is_interrupted
            if child.is_interrupted and (self._attempt.left_undone or not self._nodes_tell(self._attempt)):
                self._error = self._cut_short()
        if kept.may_be_to_blame(self._attempt.exit_code) and not self._attempt.is_interrupted:
            return True
        self._show(kept.held)
        return False

    def _read_lines(self, child: DbtProcess, text_log: TextLog, number: int, kept: KeptParse) -> None:
        for event in self._dbt.events(child):
            if event.name == SELECTED or is_of_an_interrupt(event):
                self._show(kept.shown(event)[:-1])
            if event.name == SELECTED:
                self._attempt.selected = tuple((event.data or {})["nodes"])
                self._ledger.append({"kind": "selected", "nodes": self._attempt.selected})
                continue
            if is_of_an_interrupt(event):
                # A run that was stopped on purpose needs no traceback, and any other needs a sentence.
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
            # As it is now: a node that was cut off has not failed, and is not shown so.
            self._show(kept.shown(event))
        if self._recorder and child.is_interrupted:
            self._recorder.is_stopped = True

    def _show(self, events: Iterable[DbtEvent]) -> None:
        for event in events:
            if self._recorder:
                self._recorder.event(event)
            current_reporter().event(event)

    def _lose(self, child: DbtProcess, because: str) -> None:
        self._lost_because = because
        child.interrupt()

    def _cut_short(self) -> TributaryError:
        what = f"{self._command.name} on target {self._profile.target} was stopped"
        rest = f"{self.stopped()}. Run it again with --resume to do what is left. Log: {log_of(self._run_path)}"
        if self._lost_because is not None:
            self._stopped_because = f" because {self._lost_because}"
            return UpstreamUnavailable(f"{what}{self._stopped_because}: {rest}")
        deadline = current_deadline()
        assert deadline is not None
        self._stopped_because = f" after {deadline.spoken}, the time that the run was given"
        return RunTimedOut(f"{what}{self._stopped_because}: {rest}")

    def _learn(self, attempt: Attempt, number: int) -> None:
        """Add what only dbt's artifacts say to the results of an attempt, and send it on."""
        self._notes += attempt.notes
        found = self._artifacts.run_results(attempt.invocation_id)
        details = self._dbt.engine.results(found)
        attempt.proved = frozenset(found)
        self.details = {**self.details, **details}
        unbuilt = unbuilt_batches(details)
        if unbuilt or self._batches.keys() & details.keys():
            self._batches = {key: of for key, of in self._batches.items() if key not in details} | unbuilt
            self._ledger.append({"kind": "batches", "of": self._batches})
        self.invocation_ids += [attempt.invocation_id] if attempt.invocation_id else []
        ended = (attempt.begun.keys() - attempt.running) | attempt.ended_hooks
        # The artifact of a documentation site names nodes that were compiled, which is no outcome.
        if is_accounted_for(self._running[0].verb) and details.keys() - ended:
            with contextlib.suppress(ConfigError):
                for node in told_in_silence(details, ended, self._artifacts.manifest, datetime.now(UTC)):
                    self._take_node(node, number)
                    if self._recorder:
                        self._recorder.results([self.results[node.unique_id]])
        updated = with_messages(enriched(self.results.values(), details), attempt.node_errors, attempt.exceptions)
        if any(node.outcome == "skipped" for node in updated):
            with contextlib.suppress(ConfigError):
                updated = with_causes(updated, self._artifacts.manifest)
        self._ledger.learned(node for node in updated if node.unique_id in details.keys() | ended)
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
        # Should they not get to run: what they made without their parents counts no more.
        stale = {key for key in nodes if self.results[key].outcome in ("succeeded", "warned")}
        self._ledger.take_back(stale)
        self.results = {key: node for key, node in self.results.items() if key not in stale}
        if nodes or len(nodes) == len(left):
            return only_these(self._command, nodes)
        if are_all_kept_back(self.results):
            return command
        try:
            good = [node for node in self.results.values() if node.outcome in ("succeeded", "warned")]
            return only_these(self._command, nodes_for_hooks(good))
        except ConfigError as exc:
            self.note(f"What failed for a passing reason is not tried again: {exc}")
            return None

    def _manifest_if_any(self, since: float = 0.0) -> Manifest:
        """Return the last manifest; an empty one where there is none that was written since a moment."""
        with contextlib.suppress(OSError):
            if (self._place.target_path / MANIFEST).stat().st_mtime >= since:
                return self._artifacts.manifest_if_any
        return Manifest({})


def _time_for(seconds: float) -> bool:
    deadline = current_deadline()
    return deadline is None or deadline.left_seconds() > seconds
