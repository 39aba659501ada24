"""Which nodes a run with `--changed` builds, and why: decided from what is known, with nothing executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from flows.engine.artifacts.fingerprints import TEST_TYPES, Input, Inputs, Parts
from flows.engine.changed.last_success import INTERRUPTED, PARTIAL, Built
from flows.engine.changed.parse_inputs import DBT
from flows.engine.changed.run_memory import settings_digest, version_of
from flows.engine.context.events import name_in
from infrastructure.plain_text import all_of


@dataclass(frozen=True, slots=True)
class Decision:
    """What a run does with one node.

    Attributes:
        is_built: otherwise what is in the warehouse is used again.
        reason: why, in words.
    """

    unique_id: str
    is_built: bool
    reason: str


@dataclass(frozen=True)
class Found:
    """What was found out before deciding.

    Attributes:
        chosen: the nodes that were asked for.
        built: how each was built last.
        sources: max_loaded_at by source; one that is not in here says nothing of its data.
        modified: what dbt's state:modified names.
        missing: nodes whose relation is not in the warehouse.
        full_refresh: incremental models and seeds are asked for from nothing.
        old_settings: what concerned every node at the last parse.
        reworded: nodes whose code is written in other words and says the same.
    """

    inputs: Inputs
    chosen: frozenset[str]
    built: Mapping[str, Built]
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    modified: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    full_refresh: bool = False
    old_settings: Mapping[str, str] = field(default_factory=dict[str, str])
    reworded: frozenset[str] = frozenset()


def decide(found: Found) -> list[Decision]:
    """Return a decision for every chosen node, parents first."""
    decisions: dict[str, Decision] = {}
    due: set[str] = set()
    settings = settings_digest(found.inputs)
    for unique_id, node in found.inputs.nodes.items():
        if unique_id not in found.chosen:
            continue
        built = found.built.get(unique_id)
        reason = _own_reason(node, built, found, settings) or _reason_upstream(node, built, found, due)
        if reason:
            due.add(unique_id)
        words = "in its code only the wording, and nothing else, " if unique_id in found.reworded else "nothing "
        decisions[unique_id] = Decision(unique_id, bool(reason), reason or f"{words}changed since {_time(built)}")
    return list(decisions.values())


def reusable(found: Found) -> frozenset[str]:
    """Return the chosen nodes that need their relation to be there, because nothing else has them built."""
    kept = {decision.unique_id for decision in decide(found) if not decision.is_built}
    return frozenset(unique_id for unique_id in kept if found.inputs.nodes[unique_id].place)


def summary_of(decisions: Sequence[Decision], inputs: Inputs) -> str:
    """Return in a sentence how many nodes are built and how many are used again."""
    built = [decision for decision in decisions if decision.is_built]
    if not built:
        return f"Nothing to build: {all_of(len(decisions), 'node')} as code and data would make them."
    models = [d for d in built if inputs.nodes[d.unique_id].resource_type not in TEST_TYPES]
    tests = len(built) - len(models)
    return f"Building {len(models):,} and testing {tests:,} of {len(decisions):,} nodes; the rest is as it should be."


def _own_reason(node: Input, built: Built | None, found: Found, settings: str) -> str:
    is_test = node.resource_type in TEST_TYPES
    if built is None or (built.parts is None and built.status not in (INTERRUPTED, PARTIAL)):
        if built is not None and built.status not in ("skipped", INTERRUPTED):
            return f"failed when it {'ran' if is_test else 'was built'} last"
        return "never ran here" if is_test else "never built here"
    if not built.is_good:
        return _why_not_good(built.status, is_test)
    if node.unique_id in found.missing:
        return "is not in the warehouse any more"
    assert built.parts is not None
    is_reworded = node.unique_id in found.reworded
    if built.parts != (replace(node.parts, code=built.parts.code) if is_reworded else node.parts):
        return _difference(node, built, found)
    if built.settings != settings:
        now, then = found.inputs.settings, found.old_settings
        changed = [_in_words(name, now, then) for name in now if then.get(name) != now[name]]
        return f"changed for every node: {', '.join(changed) or 'the settings of the project'}"
    if node.unique_id in found.modified and not is_reworded:
        return "dbt calls it modified (state:modified)"
    if node.unseen:
        return f"{node.unseen}, so that it can come out otherwise at any time"
    if found.full_refresh and (node.materialized in ("incremental", "seed")):
        return "a full refresh was asked for"
    return ""


def _in_words(name: str, now: Mapping[str, str], then: Mapping[str, str]) -> str:
    """Return what a person calls a setting; of the one that is no fingerprint, with what it was and is."""
    return f"{name} ({then[name]} then, {now[name]} now)" if name == DBT and name in then else name


def _why_not_good(status: str, is_test: bool) -> str:
    match status:
        case "skipped":
            return "was skipped in the last run"
        case "interrupted":
            return "was interrupted, or built by a run whose code is unknown"
        case "partial":
            did = "ran" if is_test else "was built"
            return f"{did} last with a part of the rows (--empty, --sample, --event-time-start), or as a clone"
        case "fail":
            return "failed when it ran last"
        case _:
            return f"failed when it {'ran' if is_test else 'was built'} last"


def _difference(node: Input, built: Built, found: Found) -> str:
    assert built.parts is not None
    return difference(built.parts, node.parts, node.resource_type == "seed")


def difference(then: Parts, now: Parts, is_seed: bool = False) -> str:
    """Say what a node is made from now and was not then; empty where it is the same."""
    said: list[str] = []
    if then.code != now.code:
        said.append("its rows changed" if is_seed else "its code changed")
    if then.macros != now.macros:
        said.append("a macro that it uses changed")
    if then.config != now.config:
        said.append("its configuration changed")
    for what, before, after in (("variable", then.vars, now.vars), ("environment variable", then.env, now.env)):
        names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        # A lookup that is new or gone is a change of the code, which is said already.
        changed = [name for name in names if name in before and name in after] or ([] if said else names)
        said += [f"{what} {name} changed" for name in changed]
    if then.relation != now.relation:
        said.append(f"it was {then.relation or 'nowhere'} before")
    if then.reads != now.reads and not said:
        said.append("what it reads is in another place now")
    return " and ".join(said)


def _reason_upstream(node: Input, built: Built | None, found: Found, due: set[str]) -> str:
    assert built is not None
    for parent in node.parents:
        if parent in found.inputs.sources:
            if reason := _source_reason(parent, built, found):
                return reason
        elif parent in due:
            return f"depends on {name_in(parent, found.inputs.nodes)}, which is built"
        elif built.parents.get(parent) != version_of(found.built.get(parent)):
            return f"{name_in(parent, found.inputs.nodes)} was built since"
    return ""


def _source_reason(source: str, built: Built, found: Found) -> str:
    name = found.inputs.sources[source]
    now, then = found.sources.get(source), built.parents.get(source)
    if now is None:
        return f"source {name} has no freshness, so that new data can't be recognised"
    if then is None:
        return f"it is not known with which data of source {name} it was built"
    return f"source {name} has new data (loaded at {_short(now)})" if now != then else ""


def _time(built: Built | None) -> str:
    return _short(built.at) if built else "ever"


def _short(moment: str) -> str:
    try:
        return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return moment
