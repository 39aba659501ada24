"""The one door to dbt: what a command leaves has to prove that it was done, and nothing else starts it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from infrastructure.workspace import ROOT

# Every module of the product that starts a process, and which.
STARTERS = {
    "deployments/dbt_cloud/plan/cleanup.py": "git",
    "flows/engine/context/packages.py": "dbt deps, before there is a project that the door could open",
    "flows/engine/process/process.py": "dbt: the door's",
    "flows/engine/process/relay.py": "dbt: the door's, behind it",
    "flows/engine/process/warm.py": "dbt: the door's, ahead of time",
    "flows/loaders/git/log.py": "git",
    "infrastructure/git/process.py": "git",
    "infrastructure/connection_check/check.py": "dbt, which tries a connection before there is anything to run",
    "infrastructure/program.py": "dbt --version",
}
_STARTS = {
    *("Popen", "dbtRunner", "posix_spawn", "posix_spawnp", "create_subprocess_exec", "create_subprocess_shell"),
    *("execv", "execve", "execvp", "execvpe", "spawnv", "spawnve", "spawnvp"),
    *("subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output"),
}
_ONLY_THE_DOOR = {"flows/engine/process/door.py", "flows/engine/process/process.py"}


def _names_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="subprocess"), attr=name) if name != "Popen":
                yield f"subprocess.{name}"
            case ast.Attribute(attr=name) if name in _STARTS:
                yield name
            case ast.ImportFrom(module=module, names=names):
                yield from (alias.name for alias in names if alias.name in _STARTS)
                yield from ("dbt.cli" for _ in names if (module or "").startswith("dbt.cli"))
            case ast.Call(func=ast.Name(id="DbtProcess")):
                yield "DbtProcess("
            case _:
                pass


@cache
def _trees() -> list[tuple[str, ast.Module]]:
    paths = (
        path for room in ("infrastructure", "flows", "deployments") for path in sorted((ROOT / room).rglob("*.py"))
    )
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def test_a_process_is_started_in_few_places_and_dbt_behind_its_door_alone() -> None:
    found = {name: _STARTS.intersection(_names_of(tree)) for name, tree in _trees()}
    starters = {name for name, what in found.items() if what}
    assert starters == STARTERS.keys(), "start dbt with flows.engine.process.door.Dbt; say here what else is started"


def test_nothing_but_the_door_opens_a_dbt_process_or_imports_dbt_to_run_it() -> None:
    users = {name for name, tree in _trees() if "DbtProcess(" in set(_names_of(tree))}
    importers = {name for name, tree in _trees() if "dbt.cli" in set(_names_of(tree))}
    assert users <= _ONLY_THE_DOOR
    assert importers == {"flows/engine/process/child.py"}
