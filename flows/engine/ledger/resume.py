"""What an interrupted run left undone: read from its ledger and from what dbt itself wrote down."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import yaml

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.results import NodeResult, result_of
from flows.engine.context.command import DbtCommand, flags_in, variables_text
from flows.engine.context.events import SUCCEEDED, WARNED, DbtEvent, NodeEvent, parse_line
from flows.engine.context.options import DECIDING, RunOptions, flag_of
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import LEDGER, TEXT_LOG, State, dbt_log
from flows.engine.ledger.batches import batches_told
from flows.engine.ledger.ledger import is_damaged, node_events, read_ledger, taken_back
from flows.engine.ledger.undone import is_accounted_for
from infrastructure.errors import ConfigError

# dbt's outcomes after which a node must not run again.
DONE = SUCCEEDED | WARNED
_WORDS = {
    **{name: flag_of(name) for name in DECIDING},
    "environment": "the flags of dbt in the environment",
    "flags": "what dbt is given besides",
}


@dataclass(frozen=True)
class Interrupted:
    """A run that did not get to a good end.

    Attributes:
        done: the nodes that it did finish. Its hooks are none: dbt runs them whenever it runs.
        stale: those that it built from what a node that failed had left before.
        hooks: unique ids of its hooks that came to a good end.
        window_at: when the first run began that this one belongs to; batches of time are counted back from there.
        batches: of models of which some batches were built and some were not; see `unbuilt_batches`.
        is_whole: it did get to a good end, so that nothing is left.
    """

    run_path: Path
    done: Mapping[str, NodeResult]
    hooks: frozenset[str] = frozenset()
    window_at: datetime | None = None
    batches: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_whole: bool = False
    stale: frozenset[str] = frozenset()

    def without(self, stale: Set[str]) -> Interrupted:
        """Return the same run, with these of its nodes to be built once more."""
        done = {key: node for key, node in self.done.items() if key not in stale}
        return replace(self, done=done, stale=frozenset(self.done.keys() & stale))


def interrupted_run(state: State, command: DbtCommand) -> Interrupted | None:
    """Return the last run of this very command; None, and a note of why, where there is none.

    Raises:
        ConfigError: the record of the run that would be resumed is damaged or was deleted, so that done and undone
            cannot be told; or what did not get to its end is a run of something else.

    A node counts as done when the ledger says so, or dbt's own log does: when the flow process was killed, dbt may
    have finished a node whose event was not read any more.
    """
    wanted = fingerprint(command)
    left: tuple[Path, Mapping[str, Any]] | None = None
    for run_path in reversed(state.runs()):
        entries = _entries(run_path)
        said = entries[0].get("command") if entries else None
        if said is None:
            continue
        is_whole = _is_whole(entries)
        if said != wanted:
            if not left and not is_whole and said.get("verb") == command.verb and not said.get("nodes"):
                left = run_path, said
            continue
        if not is_whole:
            return _interrupted(run_path, entries, Artifacts(state.target_path))
        if left:
            break
        return Interrupted(run_path, {}, is_whole=True)
    if left:
        raise _of_something_else(*left, wanted)
    current_reporter().note(
        f"There is no record of an earlier run of this under {state.folder}, so nothing is known to be done: running "
        "it all. If one was cut off on another machine, or its record was deleted, models that only append get their "
        "rows a second time."
    )
    return None


def _interrupted(run_path: Path, entries: Sequence[Mapping[str, Any]], artifacts: Artifacts) -> Interrupted:
    told = [entry["of"] for entry in entries if entry.get("kind") == "batches"]
    logged = logged_lines(dbt_log(run_path))
    # dbt that was killed has left nothing but its lines.
    batches = told[-1] if told else batches_told(logged, artifacts)
    events = [*node_events(entries), *(line.node for line in logged if line.node)]
    return Interrupted(
        run_path,
        _done_by(run_path, entries, events),
        _good_hooks(events),
        entries[0].get("window_at") or entries[0]["at"],
        batches,
    )


def _of_something_else(run_path: Path, said: Mapping[str, Any], wanted: Mapping[str, Any]) -> ConfigError:
    differing = [
        f"{_WORDS.get(name, name)} was {_shown(said.get(name))} then and is {_shown(wanted.get(name))} now"
        for name in sorted({*said, *wanted})
        if said.get(name) != wanted.get(name)
    ]
    return ConfigError(
        f"What did not get to a good end is a run of something else: {'; '.join(differing)}. To go on with that one: "
        f"--resume {name_of_run(run_path)}, and nothing else of what it was given. To run this from the start, leave "
        "--resume out."
    )


def _is_whole(entries: Sequence[Mapping[str, Any]]) -> bool:
    return any(entry.get("kind") == "end" and entry.get("is_ok") for entry in entries)


def _shown(value: object) -> str:
    return "not given" if value in (None, False, {}, []) else orjson.dumps(value).decode()


def name_of_run(run_path: Path) -> str:
    """Return what people call a run: the moment at which it began."""
    return run_path.name.partition(".")[0]


def told_of(options: RunOptions) -> dict[str, Any]:
    """Return what a ledger says of a run's options, for `options_of`: all that decides what the run does."""
    # As text, in which a date stays one.
    said = {name: getattr(options, name) for name in DECIDING}
    return said | {"vars": variables_text(options.vars)} if options.vars else said


def options_of(options: RunOptions, state: State, verb: str = "build") -> RunOptions:
    """Return the options of a run that is resumed by its name: its own selection and variables.

    Raises:
        ConfigError: there is no such run, or other options were given than it has.
    """
    if options.resume_run is None:
        return options
    fitting = [_entries(path) for path in reversed(state.runs()) if path.name.startswith(options.resume_run)]
    builds = [each for each in fitting if each and each[0].get("options") and each[0]["command"]["verb"] == verb]
    # Of several, the last one that something is left of.
    for entries in sorted(builds, key=_is_whole)[:1]:
        said = dict(entries[0]["options"])
        said["vars"] = yaml.safe_load(said["vars"]) if said.get("vars") else {}
        other = [name for name in DECIDING if getattr(options, name) and getattr(options, name) != said.get(name)]
        if other:
            raise ConfigError(
                f"--resume {options.resume_run} goes on with what that run was given, which is not what was given now: "
                f"{', '.join(_WORDS.get(name, name) for name in other)}. Leave that out, or leave --resume out to run "
                "it from the start."
            )
        return replace(options, **said)
    raise ConfigError(
        f"There is no record of a {verb} {options.resume_run!r} under {state.folder}. A run's name is the moment at "
        "which it began, such as 20261128T031500, as its folder and its log have it."
    )


def _done_by(
    run_path: Path, entries: Sequence[Mapping[str, Any]], events: Iterable[NodeEvent]
) -> dict[str, NodeResult]:
    """Return what a run finished, with what the run that it went on from had finished.

    A run that was killed while it found out what was left has none of that in its own record yet.
    """
    done: dict[str, NodeResult] = {}
    resumed = entries[0].get("resumes")
    if resumed and (before := _entries(run_path.parent / resumed)):
        logged = logged_events(dbt_log(run_path.parent / resumed))
        done = _done_by(run_path.parent / resumed, before, [*node_events(before), *logged])
    elif resumed and not any(entry.get("attempt") for entry in entries):
        raise _gone(run_path.parent / resumed / LEDGER)
    since = taken_back(entries)
    done = {key: node for key, node in done.items() if key not in since}
    for event in events:
        if event.unique_id not in since or event.at > since[event.unique_id]:
            _take(done, event)
    # What dbt's log alone calls done is not.
    for unique_id in (each for entry in entries if entry.get("kind") == "not run" for each in entry["nodes"]):
        done.pop(unique_id, None)
    return done


def _good_hooks(events: Iterable[NodeEvent]) -> frozenset[str]:
    last = {event.unique_id: event.status for event in events if event.is_hook}
    return frozenset(unique_id for unique_id, status in last.items() if status in DONE)


def are_hooks_left(state: State, but_not: Path) -> bool:
    """Say whether the hooks of the last run that had any did not come to a good end.

    Args:
        but_not: the run that asks.
    """
    for run_path in reversed([path for path in state.runs() if path != but_not and (path / LEDGER).exists()]):
        entries = list(read_ledger(run_path / LEDGER))
        verb = entries[0].get("command", {}).get("verb") if entries else None
        if not is_accounted_for(str(verb)) or verb == "source freshness":
            continue
        events = node_events(entries)
        last = {event.unique_id: event.status for event in events if event.is_hook}
        was_cut_off = bool(events) and not any(entry.get("kind") == "end" for entry in entries)
        if last or was_cut_off:
            return was_cut_off or not all(status in DONE for status in last.values())
    return False


def _entries(run_path: Path) -> list[dict[str, Any]]:
    path = run_path / LEDGER
    if not path.exists():
        if (run_path / TEXT_LOG).exists() or dbt_log(run_path).exists():
            raise _gone(path)
        return []
    entries = list(read_ledger(path))
    is_headless = bool(path.stat().st_size) and (not entries or entries[0].get("kind") != "run")
    if is_headless or (is_damaged(path) and not dbt_log(run_path).exists()):
        raise ConfigError(
            f"The record of the last run is damaged, so it is unknown what it had done: {path}. "
            "Look at its run.log beside it; then run without --resume to do everything again."
        )
    return entries


def _gone(path: Path) -> ConfigError:
    return ConfigError(
        f"The record of the last run was deleted, so it is unknown what it had done: {path}. Restore it; or run "
        "without --resume to do everything again, which gives models that only append their rows a second time."
    )


def fingerprint(command: DbtCommand) -> dict[str, Any]:
    """Return what makes two commands the same, in JSON's own types."""
    said = {**asdict(command), "vars": orjson.loads(orjson.dumps(dict(command.vars), option=orjson.OPT_NON_STR_KEYS))}
    said["flags"] = list(command.flags)
    # What is modified compared with another target may be more by now.
    nodes = None if "--defer" in command.flags else command.nodes
    del said["nodes"]
    # Left out where there are none, so that a run from before there were any is found again.
    said |= {} if nodes is None else {"nodes": list(nodes)}
    return said | ({"environment": flags} if (flags := flags_in(os.environ)) else {})


def _take(done: dict[str, NodeResult], event: NodeEvent) -> None:
    if event.is_hook:
        return
    if event.status in DONE:
        done[event.unique_id] = result_of(event)
    elif event.finished_at is not None:
        # A later attempt that failed takes an earlier success back.
        done.pop(event.unique_id, None)


def logged_events(path: Path) -> list[NodeEvent]:
    """Return what dbt's own log says of nodes; empty when there is no such log."""
    return [event.node for event in logged_lines(path) if event.node]


def logged_lines(path: Path) -> list[DbtEvent]:
    """Return what dbt's own log says; empty when there is no such log."""
    if not path.exists():
        return []
    with path.open("rb") as lines:
        return [event for line in lines if (event := parse_line(line))]
