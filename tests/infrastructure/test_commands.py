"""Commands that people are told, as they typed theirs."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from infrastructure.commands import as_typed, command, program
from tests.support.documents import PROJECT, ROOT


@pytest.mark.parametrize(
    ("typed", "is_by_uv", "expected"),
    [
        (str(ROOT / "flows" / "__main__.py"), True, "uv run python -m flows"),
        (str(ROOT / "flows" / "__main__.py"), False, "python -m flows"),
        (str(ROOT / "infrastructure" / "setup_profiles.py"), False, "python -m flows"),
        ("/venv/bin/tributary", True, "uv run tributary"),
        ("/venv/bin/tributary", False, "tributary"),
        # A worker of Prefect: what it says is read elsewhere.
        ("/venv/lib/python3.11/site-packages/prefect/flow_engine.py", False, "uv run tributary"),
    ],
)
def test_a_command_that_is_told_begins_as_the_one_that_was_typed(
    typed: str, is_by_uv: bool, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tributary").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [typed])
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    if is_by_uv:
        monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert program() == expected
    assert command("run --resume") == f"{expected} run --resume"
    assert as_typed("Give: tributary run | tee tributary.log") == f"Give: {expected} run | tee tributary.log"


def test_where_the_program_is_not_installed_the_module_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["/opt/environment/bin/prefect"])
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    assert program() == "python -m flows"


def test_no_other_place_writes_how_the_program_is_started() -> None:
    told = re.compile(r"python -m (flows|infrastructure\.setup_profiles|deployments\.apply) [a-z-]")
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for room in ("infrastructure", "flows", "deployments")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        # The first line of a module says what it is.
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and told.search(node.value)
        and node.lineno > 1
    ]
    assert not found, "write it with infrastructure.commands.command"


def test_what_is_installed_is_named_so_that_data_never_goes_into_the_library_dbt() -> None:
    build = PROJECT["tool"]["uv"]["build-backend"]
    assert "dbt" not in build["module-name"]
    assert all((ROOT / name / "__init__.py").exists() for name in build["module-name"])
