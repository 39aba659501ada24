"""A temporary Prefect server, where it can't be had."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_API_PORT, temporary_settings

from infrastructure.errors import ConfigError
from infrastructure.server.local_server import prefect_server
from tests.support.processes import free_port


def test_a_home_that_cannot_be_written_to_is_said_before_a_server_is_started(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / ".prefect"
    said: list[str] = []
    settings = {PREFECT_HOME: home, PREFECT_SERVER_API_PORT: free_port()}
    with (
        temporary_settings(settings, restore_defaults={PREFECT_API_URL}),
        pytest.raises(ConfigError, match=r"keeps its database in .*file/\.prefect: Not a directory\. Name a folder"),
        prefect_server(said.append),
    ):
        pass
    assert said == []


def test_a_mistyped_target_is_said_before_a_server_is_started(tmp_path: Path) -> None:
    said: list[str] = []
    settings = {PREFECT_HOME: tmp_path / "home", PREFECT_SERVER_API_PORT: free_port()}
    with (
        temporary_settings(settings, restore_defaults={PREFECT_API_URL}),
        pytest.raises(ConfigError, match=r"There is no target 'postgre' in .* Did you mean `postgres`\?"),
        prefect_server(said.append, targets=["dev", "postgre"]),
    ):
        pass
    assert said == []
    assert not (tmp_path / "home").exists()
