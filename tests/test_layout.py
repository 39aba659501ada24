"""Names that keep Python, pytest and dbt from importing the wrong thing, and imports that do nothing else."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("flows", "infrastructure", "deployments", "benchmarks")

# A path of somebody's home, or of the folder that a checkout happened to stand in.
OF_A_MACHINE = re.compile(r"/(?:home|Users)/[a-z][\w.-]*/|/root/|[A-Z]:\\\\?Users\\", re.MULTILINE)


def tracked() -> list[Path]:
    """Return the files of the repository, those included that are about to be committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def modules() -> list[str]:
    """Return the dotted names of all modules that are imported by something else."""
    paths = [path for folder in CODE for path in (ROOT / folder).rglob("*.py") if path.name != "__main__.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(paths)]
    return [name.removesuffix(".__init__") for name in names]


def test_import_dbt_gives_dbt_core() -> None:
    import dbt.cli.main

    assert not Path(dbt.cli.main.__file__).is_relative_to(ROOT / "dbt")


def test_the_dbt_project_is_not_a_python_package() -> None:
    assert not [path for path in (ROOT / "dbt").glob("**/*.py") if "dbt_packages" not in path.parts]


def test_no_module_is_named_like_a_library_or_a_dbt_plugin() -> None:
    own = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    taken = (packages_distributions().keys() - own) | sys.stdlib_module_names
    found = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")] + [*ROOT.glob("*.py")]
    packages = [path.parent for path in ROOT.glob("*/__init__.py")]
    # Only what stands directly in one of these folders can be on the path by its bare name.
    bare = [path for path in found if path.parent.parent == ROOT or path.parent == ROOT]
    bad = [path for path in bare + packages if path.stem in taken - {"__init__", "__main__"}]
    bad += [path for path in found + packages if path.stem == "dbt" or path.stem.startswith("dbt_")]
    assert not bad, f"rename {bad}: importable in place of a library, or run by dbt as a plugin"


def test_no_decorator_stands_twice_on_a_function() -> None:
    twice: list[str] = []
    for path in (path for folder in (*CODE, "tests") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                said = [ast.unparse(decorator) for decorator in node.decorator_list]
                twice += [f"{path.relative_to(ROOT)}: {node.name}"] if len(set(said)) < len(said) else []
    assert not twice


def test_every_test_folder_is_a_package() -> None:
    missing = {path.parent for path in (ROOT / "tests").glob("**/*.py")} - {
        path.parent for path in (ROOT / "tests").glob("**/__init__.py")
    }
    assert not missing, f"add __init__.py to {missing}: else tests/flows can be imported as flows"


def test_no_test_folder_is_taken_for_a_dbt_plugin_and_projects_hold_no_python() -> None:
    assert not list((ROOT / "tests").glob("**/dbt_*/__init__.py"))
    assert not list((ROOT / "tests" / "projects").glob("**/*.py"))


def test_no_file_knows_the_machine_that_it_was_written_on() -> None:
    bad: list[str] = []
    for path in tracked():
        if path == Path(__file__):
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        bad += [f"{path.relative_to(ROOT)}: {match[0]}" for match in OF_A_MACHINE.finditer(text)]
    assert not bad


def test_no_lock_file_and_nothing_that_a_run_makes_is_in_the_repository() -> None:
    made = {"uv.lock", "profiles.yml", ".env", "manifest.json", "run_results.json", "prefect.db"}
    assert not [path for path in tracked() if path.name in made or path.suffix in (".duckdb", ".pyc", ".wal")]


def test_arrows_between_packages_point_one_way() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("needs import-linter: uv sync --group lint")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# Imports each module and says what it did besides: connections, files written, changes of the environment.
IMPORTER = """
import importlib, json, os, sys
names = sys.argv[1:]
did = []
current = ""
def watch(event, arguments):
    if event == "socket.connect" or event == "subprocess.Popen":
        did.append(f"{current}: {event} {arguments!r}")
    elif event == "open" and isinstance(arguments[0], str):
        path, mode, flags = arguments
        writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and "__pycache__" not in path and not path.startswith("/dev/"):
            did.append(f"{current}: wrote {path}")
ours = tuple(name + "." for name in ("flows", "infrastructure", "deployments", "benchmarks"))
sys.addaudithook(watch)
before = dict(os.environ)
for current in names:
    try:
        importlib.import_module(current)
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith(ours):
            raise
        print(f"passed over {current}: {exc}", file=sys.stderr)
changed = sorted(name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name))
print(json.dumps({"did": did, "environment": changed}))
"""


def in_a_child(code: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=home, env=environment, capture_output=True, text=True
    )


def test_importing_a_module_has_no_side_effect(tmp_path: Path) -> None:
    """In an empty environment, so that a module that needs a variable fails here too."""
    # Prefect makes its own folder when it is imported, which is its business and not ours: it is imported first.
    first = "import os, prefect, prefect.main\n"
    done = in_a_child(first + IMPORTER, *modules(), home=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"did": [], "environment": []}


def test_the_command_line_starts_without_the_heavy_libraries(tmp_path: Path) -> None:
    """Help and mistyped options answer at once: Prefect alone takes two seconds to import."""
    code = """
import click, json, sys
from flows.__main__ import main
context = click.Context(main)
assert all(main.get_command(context, name) for name in main.list_commands(context))
print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))
"""
    done = in_a_child(code, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not set(json.loads(done.stdout)) & {"prefect", "duckdb", "dbt", "psycopg2", "sqlalchemy"}


# What a dependency brings along by its nature, and which one.
BROUGHT_ALONG = {
    "azure": "adlfs",
    "dbt_common": "dbt-core",
    "google": "dbt-bigquery",
    "lark": "python-hcl2",
    "markupsafe": "jinja2",
    "psycopg2": "dbt-postgres",
    "pydantic_core": "pydantic",
    "snowflake": "dbt-snowflake",
}
# What is there where the code runs.
PROVIDED = {"boto3": "AWS Lambda has it"}


def test_what_the_code_imports_is_among_the_dependencies() -> None:
    """An import that only the tools of development bring along works everywhere but at a user's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    there = {re.split(r"[^A-Za-z0-9._-]", text)[0].lower().replace("_", "-") for text in declared}
    by_module = packages_distributions()
    missing: dict[str, str] = {}
    for path in chain(*((ROOT / folder).rglob("*.py") for folder in CODE[:3])):
        for module in _imported(path) - sys.stdlib_module_names - {*CODE, *PROVIDED}:
            names = {BROUGHT_ALONG.get(module, module), *by_module.get(module, ())}
            if not {name.lower().replace("_", "-") for name in names} & there:
                missing[module] = str(path.relative_to(ROOT))
    assert not missing, "add it to pyproject.toml with its reason, or say here what brings it along"


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
