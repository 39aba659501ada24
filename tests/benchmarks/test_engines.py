"""Each dbt in an environment of its own, or the reason why it can't be had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import engines
from benchmarks.engines import EngineMissing, default_place, have, main
from tests.support.engines import engine_or_skip, run_engine

VERSIONS = {"1.8": "1.8.10", "1.10": "1.10.23", "1.11": "1.11.16", "1.12": "1.12.6", "2": "2.0.0-alpha.4"}


def test_the_environments_are_kept_in_the_users_cache_or_where_it_is_said() -> None:
    assert default_place({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/tributary/engines")
    assert default_place({"TRIBUTARY_ENGINES": "/there", "XDG_CACHE_HOME": "/cache"}) == Path("/there")
    assert default_place({}) == Path.home() / ".cache" / "tributary" / "engines"


def test_a_machine_without_uv_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match=r"dbt 1\.12 is not here: .* uv, which is not on the PATH"):
        have("1.12", tmp_path)


def test_a_machine_without_a_network_is_told_what_could_not_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\nif [ $1 = pip ]; then echo 'error: no route to the index' >&2; exit 2; fi\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(
        EngineMissing, match=r"dbt 2 can't be had here, is there a network\? uv pip install said: error"
    ):
        have("2", tmp_path / "engines")
    # Nothing half made is taken for an engine.
    with pytest.raises(EngineMissing, match="no route to the index"):
        have("2", tmp_path / "engines")


def test_dbt_2_without_npm_has_no_duckdb_where_python_has_no_shared_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(engines, "_shared_python", lambda: None)
    monkeypatch.setattr(engines.shutil, "which", lambda name: str(uv) if name == "uv" else None)
    assert have("2", tmp_path / "engines").without["duckdb"] == (
        "dbt 2 has no DuckDB here: this Python has no shared library and npm is not on the PATH."
    )


def test_the_command_says_what_is_missing_and_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise EngineMissing(f"dbt {name} is not here.")

    monkeypatch.setattr(engines, "have", missing)
    done = CliRunner().invoke(main, ["1.8", "2"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == ["Missing: dbt 1.8 is not here.", "Missing: dbt 2 is not here."]


@pytest.mark.slow
@pytest.mark.parametrize("name", engines.NAMES)
def test_each_is_the_version_that_it_is_called_and_reaches_its_warehouses(name: str, tmp_path: Path) -> None:
    engine = engine_or_skip(name)
    assert VERSIONS[name] in run_engine(engine, "--version").stdout
    assert engine.without == {}
    (tmp_path / "dbt_project.yml").write_text("name: empty\nversion: '1.0'\nprofile: empty\n")
    outputs = {"dev": {"type": "duckdb", "path": str(tmp_path / "w.duckdb"), "schema": "main", "threads": 1}}
    (tmp_path / "profiles.yml").write_text(json.dumps({"empty": {"target": "dev", "outputs": outputs}}))
    said = run_engine(engine, "debug", "--project-dir", tmp_path, "--profiles-dir", tmp_path)
    assert said.returncode == 0, said.stdout[-2000:]
