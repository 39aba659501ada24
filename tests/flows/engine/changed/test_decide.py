"""Which nodes `--changed` builds, decided from made-up pasts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flows.engine.artifacts.fingerprints import Input, Inputs, Parts
from flows.engine.changed.decide import Decision, Found, decide, summary_of
from flows.engine.changed.last_success import Built, LastSuccess
from flows.engine.changed.parse_inputs import DBT
from flows.engine.changed.run_memory import Done, after, settings_digest

AT = "2026-11-21T12:00:00+00:00"
PARTS = Parts("code", "macros", "config", '"db"."main"."x"', "reads", {"day": "1"}, {"REGION": "1"})


def node(name: str, *parents: str, kind: str = "model", **more: Any) -> Input:
    return Input(
        unique_id=name,
        name=name,
        resource_type=kind,
        materialized=more.pop("materialized", "table" if kind == "model" else kind),
        fqn=f"shop.{name}",
        parents=parents,
        place=("db", "main", name) if kind != "test" else (),
        parts=PARTS,
        **more,
    )


NODES = [
    node("colours", kind="seed"),
    node("stg", "source.raw.events"),
    node("plain", "source.raw.visits"),
    node("orders", "stg", "colours"),
    node("history", "stg", kind="snapshot"),
    node("totals", "orders", materialized="incremental"),
    node("unique_orders", "orders", kind="test"),
]
INPUTS = Inputs(
    {one.unique_id: one for one in NODES},
    {"source.raw.events": "raw.events", "source.raw.visits": "raw.visits"},
    {"the on-run hooks": "1", "the target's connection": "1"},
)
LOADED = {"source.raw.events": AT, "source.raw.visits": AT}
EVERYTHING = Done(
    "run-1", {one.unique_id: ("pass" if "unique" in one.name else "success", AT) for one in NODES}, LOADED
)
BUILT = after(LastSuccess(), INPUTS, EVERYTHING)
FOUND = Found(INPUTS, frozenset(INPUTS.nodes), BUILT, LOADED)


def due(found: Found) -> dict[str, str]:
    return {decision.unique_id: decision.reason for decision in decide(found) if decision.is_built}


def with_parts(name: str, **parts: Any) -> Found:
    changed = replace(INPUTS.nodes[name], parts=replace(PARTS, **parts))
    return replace(FOUND, inputs=replace(INPUTS, nodes={**INPUTS.nodes, name: changed}))


def with_status(name: str, status: str) -> Found:
    return replace(FOUND, built={**BUILT, name: replace(BUILT[name], status=status)})


def test_nothing_is_built_when_nothing_changed_and_every_node_says_since_when() -> None:
    decisions = decide(FOUND)
    assert {decision.reason for decision in decisions} == {"nothing changed since 2026-11-21 12:00:00 UTC"}
    assert summary_of(decisions, INPUTS) == "Nothing to build: all 7 nodes are as code and data would make them."


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"code": "other"}, "its code changed"),
        ({"macros": "other"}, "a macro that it uses changed"),
        ({"config": "other"}, "its configuration changed"),
        ({"vars": {"day": "2"}}, "variable day changed"),
        ({"env": {"REGION": "2"}}, "environment variable REGION changed"),
        ({"relation": '"db"."other"."x"'}, 'it was "db"."main"."x" before'),
        ({"reads": "other"}, "what it reads is in another place now"),
        ({"code": "other", "vars": {"day": "1", "new": "1"}}, "its code changed"),
        ({"code": "other", "env": {"REGION": "2"}}, "its code changed and environment variable REGION changed"),
    ],
)
def test_what_changed_of_a_node_is_its_reason_and_what_stands_on_it_follows(parts: dict[str, Any], reason: str) -> None:
    assert due(with_parts("orders", **parts)) == {
        "orders": reason,
        "totals": "depends on orders, which is built",
        "unique_orders": "depends on orders, which is built",
    }


def test_a_seed_speaks_of_its_rows() -> None:
    assert due(with_parts("colours", code="other"))["colours"] == "its rows changed"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("error", "failed when it was built last"),
        ("skipped", "was skipped in the last run"),
        ("interrupted", "was interrupted, or built by a run whose code is unknown"),
    ],
)
def test_what_did_not_come_to_a_good_end_is_built_again(status: str, reason: str) -> None:
    assert due(with_status("totals", status)) == {"totals": reason}


def test_a_test_that_failed_runs_again_and_the_model_that_it_is_about_is_used_again() -> None:
    assert due(with_status("unique_orders", "fail")) == {"unique_orders": "failed when it ran last"}


def test_a_test_that_warned_is_not_run_again() -> None:
    assert due(with_status("unique_orders", "warn")) == {}


def test_a_node_that_is_new_is_built_and_a_test_that_is_new_is_run() -> None:
    without = {name: built for name, built in BUILT.items() if name not in ("totals", "unique_orders")}
    assert due(replace(FOUND, built=without)) == {"totals": "never built here", "unique_orders": "never ran here"}


def test_a_target_that_was_never_built_builds_everything() -> None:
    assert set(due(replace(FOUND, built={}))) == set(INPUTS.nodes)


def test_a_table_that_is_gone_is_built_with_what_stands_on_it() -> None:
    found = due(replace(FOUND, missing=frozenset({"orders"})))
    assert found["orders"] == "is not in the warehouse any more"
    assert set(found) == {"orders", "totals", "unique_orders"}


def test_new_data_of_a_source_reaches_everything_downstream() -> None:
    later = {**LOADED, "source.raw.events": "2026-11-21T13:00:00+00:00"}
    found = due(replace(FOUND, sources=later))
    assert found["stg"] == "source raw.events has new data (loaded at 2026-11-21 13:00:00 UTC)"
    assert set(found) == {"stg", "orders", "history", "totals", "unique_orders"}


def test_a_source_without_freshness_has_what_reads_it_built_and_says_why() -> None:
    found = due(replace(FOUND, sources={"source.raw.events": AT}))
    reason = "source raw.visits has no freshness, so that new data can't be recognised"
    assert found == {"plain": reason}


def test_data_that_was_not_looked_at_before_the_last_build_counts_as_new() -> None:
    built = after(LastSuccess(), INPUTS, replace(EVERYTHING, sources={}))
    assert (
        due(replace(FOUND, built=built))["stg"] == "it is not known with which data of source raw.events it was built"
    )


def test_a_node_that_was_built_alone_has_its_children_built_the_next_time() -> None:
    alone = after(LastSuccess(built=BUILT), INPUTS, Done("run-2", {"orders": ("success", AT)}))
    assert due(replace(FOUND, built=alone)) == {
        "totals": "orders was built since",
        "unique_orders": "orders was built since",
    }


def test_only_what_was_asked_for_is_built() -> None:
    found = with_parts("stg", code="other")
    assert due(replace(found, chosen=frozenset({"totals", "orders"}))) == {}
    assert set(due(replace(found, chosen=frozenset({"stg", "history"})))) == {"stg", "history"}


def test_what_concerns_every_node_is_named() -> None:
    inputs = replace(INPUTS, settings={**INPUTS.settings, "the on-run hooks": "2"})
    found = due(replace(FOUND, inputs=inputs, old_settings=INPUTS.settings))
    assert set(found) == set(INPUTS.nodes)
    assert found["colours"] == "changed for every node: the on-run hooks"


def test_a_change_of_dbt_is_named_with_both_versions() -> None:
    inputs = replace(INPUTS, settings={**INPUTS.settings, DBT: "2.0"})
    then = {**INPUTS.settings, DBT: "1.12"}
    assert due(replace(FOUND, inputs=inputs, old_settings=then))["colours"] == (
        "changed for every node: the version of dbt (1.12 then, 2.0 now)"
    )
    # As an earlier version of Tributary left it.
    before = due(replace(FOUND, inputs=inputs, old_settings=INPUTS.settings))
    assert before["colours"] == "changed for every node: the version of dbt"


def test_what_can_come_out_otherwise_at_any_time_is_always_built() -> None:
    clock = replace(INPUTS.nodes["totals"], unseen="reads the clock (now)")
    found = replace(FOUND, inputs=replace(INPUTS, nodes={**INPUTS.nodes, "totals": clock}))
    assert due(found) == {"totals": "reads the clock (now), so that it can come out otherwise at any time"}


def test_what_dbt_calls_modified_is_built_even_if_no_fingerprint_differs() -> None:
    assert due(replace(FOUND, modified=frozenset({"totals"}))) == {"totals": "dbt calls it modified (state:modified)"}


def test_a_full_refresh_builds_what_can_be_built_from_nothing() -> None:
    found = due(replace(FOUND, full_refresh=True))
    assert found["totals"] == found["colours"] == "a full refresh was asked for"
    assert set(found) == {"colours", "orders", "totals", "unique_orders"}


def test_a_failed_node_keeps_what_it_was_built_from_last() -> None:
    changed = with_parts("orders", code="other").inputs
    failed = after(
        LastSuccess(built=BUILT), changed, Done("run-2", {"orders": ("error", AT), "totals": ("skipped", AT)})
    )
    assert failed["orders"].parts == PARTS
    assert not failed["orders"].is_good
    # Put back as it was, it is built all the same: nobody knows what the failure left behind.
    assert set(due(replace(FOUND, built=failed))) == {"orders", "totals", "unique_orders"}


def test_a_run_whose_code_nobody_knows_leaves_its_nodes_to_be_built() -> None:
    cut_off = after(LastSuccess(built=BUILT), None, Done("run-2", {"history": ("success", AT)}))
    assert set(due(replace(FOUND, built=cut_off))) == {"history"}


def test_a_summary_counts_models_and_tests() -> None:
    decisions = [Decision("orders", True, ""), Decision("unique_orders", True, ""), Decision("stg", False, "")]
    assert summary_of(decisions, INPUTS) == "Building 1 and testing 1 of 3 nodes; the rest is as it should be."


def test_settings_have_one_fingerprint_whatever_their_order() -> None:
    turned = replace(INPUTS, settings=dict(reversed(INPUTS.settings.items())))
    assert settings_digest(turned) == settings_digest(INPUTS)
    assert isinstance(BUILT["orders"], Built)
