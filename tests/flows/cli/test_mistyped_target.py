"""A target that is not in targets.yml is said by every command that takes one, before it starts a server."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_API_PORT, temporary_settings

from flows.__main__ import COMMANDS
from infrastructure.errors import ConfigError
from tests.support.processes import free_port

# What a command wants besides its target.
_ALSO = {
    "compare": ["--save", "before.json"],
    "compile": ["--select", "dim_musician"],
    "fast-transform": ["--source", "github"],
    "run-operation": ["some_macro"],
    "show": ["--select", "dim_musician"],
    "transform": ["--everything"],
}
# Those that take no target, or start no server.
_OTHERS = {
    *("alerts", "deploy", "docs", "events", "history", "init", "payroll", "reconcile", "report", "serve", "setup")
}


@pytest.mark.parametrize("name", sorted({*COMMANDS} - _OTHERS))
def test_a_mistyped_target_is_said_before_a_server_is_started(name: str, tmp_path: Path) -> None:
    module, _, function = COMMANDS[name].partition(":")
    command = getattr(import_module(module), function)
    settings = {PREFECT_HOME: tmp_path / "home", PREFECT_SERVER_API_PORT: free_port()}
    with temporary_settings(settings, restore_defaults={PREFECT_API_URL}):
        done = CliRunner().invoke(command, ["--target", "postgre", *_ALSO.get(name, [])])

    assert isinstance(done.exception, ConfigError), (done.output, done.exception)
    assert "There is no target 'postgre' in" in str(done.exception)
    assert "Did you mean `postgres`?" in str(done.exception)
    assert not (tmp_path / "home").exists()
