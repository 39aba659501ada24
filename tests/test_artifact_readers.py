"""dbt's JSON is read in one room: whoever else names its files or its keys is found in the syntax tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READER = ROOT / "flows" / "engine" / "artifacts"
FILES = frozenset({"manifest.json", "run_results.json", "sources.json", "catalog.json", "semantic_manifest.json"})
_KEYS = (
    "nodes parent_map child_map unique_id resource_type depends_on sources exposures unit_tests macros disabled "
    "relation_name raw_code compiled_code attached_node test_metadata original_file_path max_loaded_at invocation_id "
    "adapter_type"
)
KEYS = frozenset(_KEYS.split())
# Who uses some of these words for something else, or can't ask the room: which words, and the reason.
ELSEWHERE = {
    "flows/engine/attempts.py": ("nodes", "an event of our own child"),
    "flows/engine/changed/run_memory.py": ("sources", "the ledger of a run"),
    "flows/engine/changed/source_data.py": ("sources", "a file of ours: what a run's freshness check found"),
    "flows/engine/context/events.py": ("invocation_id relation_name resource_type unique_id", "dbt's log lines"),
    "flows/engine/context/exact_selection.py": ("run_results.json", "written for dbt, which reads it"),
    "flows/engine/context/home.py": (
        "run_results.json",
        "of which project it is, found without reading it, below the room",
    ),
    "flows/engine/ledger/ledger.py": ("nodes", "a ledger's own entries"),
    "flows/engine/ledger/resume.py": ("nodes", "the command in a ledger"),
    "flows/engine/ledger/stream.py": ("nodes", "a ledger's own entries"),
    "flows/engine/process/child.py": ("unique_id", "the events inside of dbt's own process"),
    "flows/engine/process/listing.py": ("unique_id", "what `dbt ls` prints"),
    "flows/engine/process/relay.py": (
        "run_results.json sources.json",
        "scrubs the files of another dbt in a bare Python, which imports nothing of ours",
    ),
    "flows/history/cut_off.py": ("nodes", "the ledger of a run"),
    "flows/report/html/charts.py": ("nodes unique_id", "rows of the history"),
    "flows/report/html/contents.py": ("resource_type unique_id", "rows of the history"),
    "flows/report/html/lineage.py": ("depends_on resource_type unique_id", "rows of the history"),
    "flows/report/html/node_pages.py": ("resource_type", "rows of the history"),
    "flows/report/html/nodes.py": ("unique_id", "rows of the history"),
    "flows/report/html/page.py": ("unique_id", "rows of the history"),
    "flows/runbook/payroll/export.py": ("manifest.json", "the list of files in an export"),
    "flows/services/airbyte/sync_events.py": ("sources", "the YAML of a project, read where no dbt ever ran"),
}


def words_of_dbt(source: str) -> Iterator[str]:
    """Yield the files of dbt that a module names, and the keys of theirs that it looks up."""
    for node in ast.walk(ast.parse(source)):
        keys: list[ast.expr] = []
        match node:
            case ast.Constant(value=str() as text) if text.rpartition("/")[2] in FILES:
                yield text.rpartition("/")[2]
            case ast.Subscript(slice=key):
                keys = [key]
            case ast.Call(func=ast.Attribute(attr="get" | "pop" | "setdefault"), args=[key, *_]):
                keys = [key]
            case ast.Call(func=ast.Name(id="itemgetter") | ast.Attribute(attr="itemgetter")):
                keys = node.args
            case ast.MatchMapping():
                keys = node.keys
            case _:
                pass
        yield from (key.value for key in keys if isinstance(key, ast.Constant) and key.value in KEYS)


def test_dbts_json_is_read_in_one_room() -> None:
    found = {
        str(path.relative_to(ROOT)): words
        for top in ("flows", "deployments", "infrastructure")
        for path in (ROOT / top).rglob("*.py")
        if not path.is_relative_to(READER) and (words := set(words_of_dbt(path.read_text(encoding="utf-8"))))
    }
    expected = {place: set(words.split()) for place, (words, _) in ELSEWHERE.items()}
    assert found == expected, "ask flows.engine.artifacts, or say here why not; what is not needed any more goes"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ('json.loads((folder / "manifest.json").read_bytes())', "manifest.json"),
        ('open(f"{folder}/run_results.json")', "run_results.json"),
        ('names = ("a", "sources.json")', "sources.json"),
        ('document["nodes"].values()', "nodes"),
        ('document.get("parent_map", {})', "parent_map"),
        ('(entry.get("depends_on") or {}).get("macros")', "depends_on"),
        ('sorted(found, key=itemgetter("unique_id"))', "unique_id"),
        ('match entry:\n    case {"resource_type": "test"}:\n        pass', "resource_type"),
        ('del entries["raw_code"]', "raw_code"),
    ],
)
def test_another_reader_is_found(source: str, word: str) -> None:
    assert word in set(words_of_dbt(source))


@pytest.mark.parametrize(
    "source",
    [
        '"""Reads manifest.json, and its nodes."""',
        'raise ConfigError(f"{path} holds no manifest.json that can be read")',
        "manifest.nodes[unique_id].depends_on",
        'row = {"unique_id": node.unique_id}',
        'output.get("schema")',
    ],
)
def test_who_asks_the_room_or_only_speaks_of_it_is_not(source: str) -> None:
    assert not set(words_of_dbt(source))


# What every run does, in a process of its own: there is an ephemeral model to look through, and a test of two models.
_RUN = """
import sys
from datetime import UTC, datetime
from flows.engine.artifacts.fingerprints import Values
from flows.engine.artifacts.manifest_file import manifest_of
from flows.engine.artifacts.manifest_fingerprints import inputs_of
from flows.engine.artifacts.results import NodeResult
from flows.history.rows import waits

def node(name, *before, kind="model", how="table"):
    return {"name": name, "resource_type": kind, "depends_on": {"nodes": before}, "config": {"materialized": how}}

document = {"nodes": {
    "a": node("a"), "b": node("b", "a", how="ephemeral"), "c": node("c", "b"), "t": node("t", "a", "c", kind="test"),
    "d": node("d", "c"),
}}
manifest = manifest_of(document)
at = datetime.now(UTC)
ran = [NodeResult(key, key, manifest.nodes[key].resource_type, "", "success", at, at) for key in "actd"]
assert [wait.waited_for for wait in waits(ran, manifest, is_build=True).values()] == [None, "a", "a", "c"]
assert list(inputs_of(document, Values("p", {}, {}, {}, {})).nodes) == ["a", "c", "t", "d"]
print("networkx" in sys.modules, manifest.downstream(["c"]) == {"t", "d"}, "networkx" in sys.modules)
"""


def test_a_run_that_goes_well_does_not_pay_for_networkx() -> None:
    """Its import takes 14 MB and a quarter of the time of Prefect's; what failed or is planned asks for it."""
    done = subprocess.run([sys.executable, "-c", _RUN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True", "True"], done.stderr
