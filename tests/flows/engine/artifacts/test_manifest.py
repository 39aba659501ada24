"""The slim graph of a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.engine.artifacts.manifest import Manifest
from flows.engine.artifacts.manifest_file import is_critical, load_manifest, manifest_of
from infrastructure.errors import ConfigError


def graph(materialized: str = "ephemeral") -> Manifest:
    def node(name: str, *parents: str, kind: str = "model", how: str = "table") -> dict[str, object]:
        return {
            "name": name,
            "resource_type": kind,
            "fqn": ["shop", name],
            "depends_on": {"nodes": list(parents)},
            "config": {"materialized": how},
        }

    return manifest_of(
        {
            "nodes": {
                "model.a": node("a", "source.s"),
                "model.b": node("b", "model.a", how=materialized),
                "model.c": node("c", "model.b", "model.a"),
                "model.d": node("d", "model.b"),
                "test.t": node("t", "model.d", kind="test", how="test"),
            },
            "sources": {"source.s": {"name": "s", "resource_type": "source", "fqn": ["shop", "s"]}},
            "exposures": {"exposure.e": {"name": "e", "resource_type": "exposure", "depends_on": None}},
        }
    )


def test_parents_are_looked_up_through_ephemeral_models() -> None:
    among = {"model.a", "model.c", "model.d", "test.t"}
    assert graph().parents("model.c", among) == ["model.a"]
    assert graph().parents("model.d", among) == ["model.a"]
    assert graph().parents("test.t", among) == ["model.d"]
    assert graph().parents("model.a", among) == []


def test_what_is_not_in_the_run_is_looked_through_whatever_it_is() -> None:
    """dbt runs what reads an unselected table after what that table reads."""
    assert graph("table").parents("model.d", ["model.a", "model.d"]) == ["model.a"]
    assert graph("table").parents("test.t", ["source.s"]) == ["source.s"]
    assert graph("table").parents("model.nobody", ["model.a"]) == []


def test_a_node_that_is_not_there_is_not_left_out_in_silence() -> None:
    assert graph().require(["model.a"]) == ["model.a"]
    with pytest.raises(
        ConfigError, match=r"1 of 2 nodes that are to run are not in the project as it is now: model\.x"
    ):
        graph().require(["model.a", "model.x"])


def test_upstream_and_downstream_leave_the_roots_out() -> None:
    assert graph().downstream(["model.b"]) == {"model.c", "model.d", "test.t"}
    assert graph().upstream(["model.d"]) == {"model.b", "model.a", "source.s"}
    assert graph().upstream([]) == set()


def test_a_missing_or_damaged_manifest_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(ConfigError, match=r"There is no manifest at .* Run the project once"):
        load_manifest(path)
    for content in (b"", b"[]", b'{"nodes": {"a": {}}}', b'{"nodes": [1]}', b"\xff"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"is not a dbt manifest\. Delete it and run again"):
            load_manifest(path)


@pytest.mark.parametrize(
    ("entry", "critical"),
    [
        ({"config": {"meta": {"critical": True}}}, True),
        ({"config": {"meta": {"critical": "true"}}}, True),
        ({"config": {"meta": {"critical": " Yes "}}}, True),
        ({"config": {"meta": {"critical": 1}}}, True),
        ({"config": {"meta": {"critical": "treu"}}}, True),
        ({"meta": {"critical": "on"}}, True),
        ({"meta": {"critical": True}, "config": {"meta": {"owner": "ann"}}}, True),
        ({"tags": ["critical"]}, True),
        ({"config": {"tags": "critical"}}, True),
        ({"config": {"meta": {"critical": False}}}, False),
        ({"config": {"meta": {"critical": "false"}}}, False),
        ({"config": {"meta": {"critical": "Off"}}}, False),
        ({"config": {"meta": {"critical": None}}, "meta": None, "tags": None}, False),
        ({"config": {"tags": ["criticality"]}}, False),
        ({}, False),
    ],
)
def test_one_rule_says_what_is_critical(entry: dict[str, object], critical: bool) -> None:
    document = {"nodes": {"test.shop.t": {"name": "t", "resource_type": "test", **entry}}}
    assert is_critical(entry) is critical
    assert manifest_of(document).nodes["test.shop.t"].is_critical is critical
    assert manifest_of(document).is_critical("test.shop.t") is critical


def test_every_walk_over_nodes_that_stand_on_each_other_ends() -> None:
    around = {"a": ["c"], "b": ["a"], "c": ["b"], "d": ["a", "b"], "alone": [], "itself": ["itself"]}
    looped = manifest_of(
        {
            "nodes": {
                name: {"name": name, "resource_type": "model", "fqn": [name], "depends_on": {"nodes": parents}}
                for name, parents in around.items()
            }
        }
    )
    assert looped.upstream(["d"]) == {"a", "b", "c"}
    assert looped.downstream(["a"]) == {"b", "c", "d"}
    assert looped.parents("a", {"alone"}) == []
    steps = looped.steps(around)
    assert sorted(steps) == sorted(around)
    assert steps["d"] > steps["a"] == steps["b"] == steps["c"] == steps["alone"] == steps["itself"] == 1
