"""The rules of the rooms that an import checker can't see: names in strings, drawers, what tests share."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("infrastructure", "flows", "deployments", "benchmarks")
MOST_MODULES = 15
# Folders with more modules than one takes in at a glance, each with its reason.
LARGE = {
    "flows/cli": "a file per command of the command line",
    "benchmarks": "a file per measurement, and the systems that they start",
    "tests/infrastructure": "a file per module of infrastructure/",
    "tests/flows/runbook": "a file or two per procedure",
    "tests/support": "what tests share, a file per subject",
    "tests/deployments/webhook": "a file per module of the receiver",
}
# `tributary serve` and `deploy` are commands of the program, and what they are about is deployments.
BY_NAME = {("flows/__main__.py", f"deployments.{name}") for name in ("schedules.serve", "apply")}
# A client of one warehouse is imported only by the function that opens that warehouse.
ONE_ROOM = "flows.warehouses"
MODULE_NAME = re.compile(r"(?:infrastructure|flows|deployments|benchmarks)(?:\.[a-z_0-9]+)+")


def sources(*folders: str) -> Iterator[Path]:
    """Yield the Python files below folders of the repository."""
    for folder in folders:
        yield from sorted(path for path in (ROOT / folder).rglob("*.py") if "projects" not in path.parts)


def is_module(name: str) -> bool:
    """Say whether a dotted name is a module or package of ours."""
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def named_modules(tree: ast.AST) -> Iterator[str]:
    """Yield the modules of ours that string constants name, other than in docstrings."""
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            for name in MODULE_NAME.findall(node.value):
                while name and not is_module(name):
                    name = name.rpartition(".")[0]
                if "." in name:
                    yield name


def test_a_module_is_named_in_a_string_only_where_it_could_be_imported() -> None:
    wrong: set[tuple[str, str]] = set()
    for path in sources(*ORDER):
        here = str(path.relative_to(ROOT))
        top = ORDER.index(here.partition("/")[0])
        # What a text tells people to run is no import.
        for name in named_modules(ast.parse(path.read_text(encoding="utf-8"))):
            if ORDER.index(name.partition(".")[0]) > top and not is_told(path, name):
                wrong.add((here, name))
    assert wrong == BY_NAME


def is_told(path: Path, name: str) -> bool:
    """Say whether a file names a module only as a command for people: `python -m NAME`."""
    return not re.search(rf"(?<!python -m )(?<![\w.]){re.escape(name)}(?![\w])", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", ["infrastructure", "flows", "deployments", "benchmarks", "tests"])
def test_no_folder_is_a_drawer(folder: str) -> None:
    counts: dict[str, int] = {}
    for path in sources(folder):
        if path.name != "__init__.py":
            place = str(path.parent.relative_to(ROOT))
            counts[place] = counts.get(place, 0) + 1
    assert not {place: count for place, count in counts.items() if count > MOST_MODULES and place not in LARGE}


def test_no_test_takes_from_another_test() -> None:
    taken: list[str] = []
    for path in sources("tests", "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
                taken += [
                    f"{path.relative_to(ROOT)} takes from {name}"
                    for name in names
                    if name.rpartition(".")[2].startswith("test_") or name.endswith("conftest")
                ]
    assert not taken, "move what tests share to tests/support"


@pytest.mark.parametrize("folder", ["infrastructure", "flows", "deployments"])
def test_every_package_says_what_it_is_for(folder: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(folder)
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in sources("infrastructure", "flows", "deployments"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_no_modules_import_each_other_in_a_circle_not_even_in_a_function_or_for_types() -> None:
    arrows: dict[str, set[str]] = {}
    for path in sources("infrastructure", "flows", "deployments"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                named = {f"{node.module}.{alias.name}" for alias in node.names}
                modules = {one if is_module(one) else node.module for one in named}
                arrows.setdefault(name, set()).update(one for one in modules if is_module(one) and one != name)
    for name in [name for name in arrows if name.startswith(ONE_ROOM)]:
        arrows[name] = {one for one in arrows[name] if not one.startswith(ONE_ROOM)}
    TopologicalSorter(arrows).prepare()
