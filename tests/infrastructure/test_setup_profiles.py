"""The command, as a person or a CI job uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from infrastructure.commands import program
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.profiles import load_profile
from infrastructure.setup_profiles import ensure_target, main
from infrastructure.workspace import ROOT
from tests.support.prefect_server import begin_with_what_is_kept

Run = Callable[..., Result]

POSTGRES: dict[str, Any] = {
    "warehouse": "postgres",
    "host": "127.0.0.1",
    "port": 9,
    "user": "u",
    "dbname": "d",
    "schema": "s",
    "password_env": "PG_PASSWORD",
    "retries": 0,
}


@pytest.fixture
def profiles_file(tmp_path: Path) -> Path:
    return tmp_path / "dbt" / "profiles.yml"


@pytest.fixture
def duckdb_target(tmp_path: Path) -> dict[str, Any]:
    return {"warehouse": "duckdb", "path": str(tmp_path / "data" / "dev.duckdb"), "schema": "analytics"}


@pytest.fixture
def run(profiles_file: Path, write_targets: Callable[..., Path]) -> Run:
    """Return a function that runs the command with some targets and variables."""

    def run(*arguments: str, environ: dict[str, str] | None = None, **targets: dict[str, Any]) -> Result:
        files = ["--targets-file", str(write_targets(**targets)), "--profiles-file", str(profiles_file)]
        return CliRunner().invoke(main, [*files, *arguments], env=environ or {})

    return run


def test_a_first_run_says_what_it_made_and_a_second_that_nothing_changed(
    prefect_server: str, fresh: str, run: Run, duckdb_target: dict[str, Any], profiles_file: Path
) -> None:
    first = run(**{fresh: duckdb_target, f"{fresh}b": POSTGRES})
    second = run(**{fresh: duckdb_target, f"{fresh}b": POSTGRES})

    assert first.exit_code == second.exit_code == 0
    assert f"Prefect server: {prefect_server}" in first.stdout
    assert f"created    dbt-cli-profile/dbt-cli-profile-{fresh}" in first.stdout
    assert f"created    concurrency limit dbt-{fresh}: 1 run at a time" in first.stdout
    assert f"Passed over:\n  {fresh}b: PG_PASSWORD is not set" in first.stdout
    assert f"run --target {fresh}" in first.stdout
    assert "Nothing to change: everything is as in targets.yml." in second.stdout
    assert "created" not in second.stdout
    assert list(yaml.safe_load(profiles_file.read_text())["tributary"]["outputs"]) == [fresh, f"{fresh}b"]
    assert load_profile(fresh).output["path"] == duckdb_target["path"]
    assert "\x1b" not in first.output


def test_a_plan_shows_the_changes_and_no_secret_and_makes_none(
    prefect_server: str, fresh: str, run: Run, profiles_file: Path
) -> None:
    settings = POSTGRES | {"credentials_block": fresh}
    created = run("--plan", environ={"PG_PASSWORD": "geheim-1"}, **{fresh: settings})
    assert created.exit_code == 0
    assert f"create     sqlalchemy-connector/{fresh}" in created.stdout
    assert "+ connection_info.password: (secret)" in created.stdout
    assert "Nothing has been changed yet." in created.stdout
    assert not profiles_file.exists()

    run(environ={"PG_PASSWORD": "geheim-1"}, **{fresh: settings})
    changed = run("--plan", environ={"PG_PASSWORD": "geheim-2"}, **{fresh: settings | {"threads": 7}})
    assert "~ target_configs.threads: 4 → 7" in changed.stdout
    assert "~ connection_info.password: changed (secret)" in changed.stdout
    assert "geheim" not in created.output + changed.output
    assert load_profile(fresh).connection()["password"] == "geheim-1"


def test_the_exit_code_tells_ci_whether_there_is_something_to_change(
    prefect_server: str, fresh: str, run: Run, duckdb_target: dict[str, Any]
) -> None:
    before = run("--plan", "--exit-code", **{fresh: duckdb_target})
    run(**{fresh: duckdb_target})
    after = run("--plan", "--exit-code", **{fresh: duckdb_target})

    assert (before.exit_code, after.exit_code) == (3, 0)
    assert "Nothing would change." in after.stdout


def test_json_is_one_document_and_holds_no_secret(prefect_server: str, fresh: str, run: Run) -> None:
    result = run("--json", environ={"PG_PASSWORD": "geheim"}, **{fresh: POSTGRES | {"credentials_block": fresh}})

    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["server"] == prefect_server
    assert document["ready"] == [fresh]
    assert document["has_changes"] and document["is_applied"]
    assert {entry["action"] for entry in document["blocks"]} == {"create"}
    assert "geheim" not in result.output


def test_blocks_only_leaves_the_profiles_file_alone(
    prefect_server: str, fresh: str, run: Run, duckdb_target: dict[str, Any], profiles_file: Path
) -> None:
    assert run("--blocks-only", **{fresh: duckdb_target}).exit_code == 0
    assert not profiles_file.exists()
    assert load_profile(fresh).target == fresh


def test_profiles_only_needs_no_server(
    run: Run, duckdb_target: dict[str, Any], profiles_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        result = run("--profiles-only", dev=duckdb_target)
    assert result.exit_code == 0, result.output
    assert "created" in result.stdout
    assert yaml.safe_load(profiles_file.read_text())["tributary"]["target"] == "dev"


def test_a_profiles_file_of_the_user_is_left_alone_and_that_is_said(
    run: Run, duckdb_target: dict[str, Any], profiles_file: Path
) -> None:
    profiles_file.parent.mkdir()
    profiles_file.write_text("shop: {}\n")
    result = run("--profiles-only", dev=duckdb_target)

    assert result.exit_code == 0
    assert "was not written by setup and is left alone" in result.stdout
    assert profiles_file.read_text() == "shop: {}\n"


def test_a_named_target_is_set_up_alone(
    prefect_server: str, fresh: str, run: Run, duckdb_target: dict[str, Any]
) -> None:
    other = f"{fresh}b"
    result = run("--target", other, **{fresh: duckdb_target, other: duckdb_target})

    assert result.exit_code == 0
    assert load_profile(other).target == other
    with pytest.raises(ConfigError, match="is not set up"):
        load_profile(fresh)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--target", "pg"), "Target pg: PG_PASSWORD is not set."),
        (("--target", "pgg"), "There is no target 'pgg'"),
        (("--plan", "--check"), "give one of them"),
        (("--blocks-only", "--profiles-only"), "exclude each other"),
        (("--exit-code",), "--exit-code goes with --plan"),
        (("--targets-file", "/nowhere/targets.yml"), "There is no file /nowhere/targets.yml"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_sentence(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    result = run(*arguments, pg=POSTGRES)

    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_a_server_that_does_not_answer_ends_with_75_and_a_sentence(run: Run, duckdb_target: dict[str, Any]) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        result = run("--plan", dev=duckdb_target)
    assert result.exit_code == 75
    assert "The Prefect server at http://127.0.0.1:9/api does not answer" in result.stderr


def test_check_says_for_each_target_whether_dbt_can_connect(
    prefect_server: str, fresh: str, run: Run, duckdb_target: dict[str, Any]
) -> None:
    environ = {"PG_PASSWORD": "geheim"}
    targets = {fresh: duckdb_target, f"{fresh}b": POSTGRES | {"credentials_block": fresh}}
    result = run("--check", environ=environ, **targets)

    # The one that fails does not answer.
    assert result.exit_code == 75
    assert f"{fresh}: ok" in result.stdout
    assert f"{fresh}b: failed, nothing listens at that host and port. Start the server" in result.stdout
    assert f"{fresh}: the saved blocks differ from targets.yml" in result.stdout
    assert "geheim" not in result.output


def test_check_uses_the_saved_blocks_where_the_secrets_are_not_at_hand(
    prefect_server: str, fresh: str, run: Run
) -> None:
    targets = {
        fresh: POSTGRES | {"credentials_block": fresh},
        f"{fresh}b": POSTGRES | {"credentials_block": f"{fresh}b"},
    }
    run("--target", fresh, environ={"PG_PASSWORD": "geheim"}, **targets)
    result = run("--check", "--json", **targets)

    document = json.loads(result.stdout)
    assert [(entry["target"], entry["ok"]) for entry in document["checks"]] == [(fresh, False)]
    assert document["checks"][0]["cause"] == "nothing listens at that host and port"
    (note,) = document["notes"]
    assert note.startswith(f"{fresh}b is not checked. Target {fresh}b: PG_PASSWORD is not set.")
    named = run("--check", "--target", f"{fresh}b", **targets)
    assert named.exit_code == 2
    assert "PG_PASSWORD is not set" in named.stderr


def test_help_has_examples() -> None:
    result = CliRunner().invoke(main, ["--help"])

    assert "tributary setup --plan" in result.stdout


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch, write_targets: Callable[..., Path]) -> Callable[..., None]:
    """Return a function that puts other targets in the place of the project's."""

    def declare(**targets: dict[str, Any]) -> None:
        path = write_targets(**targets)
        (path.parent / "tributary.yml").write_text(f"targets: {path.name}\n")
        monkeypatch.setenv("TRIBUTARY_WORKSPACE", str(path.parent))

    return declare


def test_ensure_makes_what_is_missing_once(
    prefect_server: str, fresh: str, declared: Callable[..., None], duckdb_target: dict[str, Any]
) -> None:
    declared(**{fresh: duckdb_target})

    (sentence,) = ensure_target(fresh)
    assert sentence.startswith(f"Created the blocks of target {fresh}: ")
    assert ensure_target(fresh) == []
    assert load_profile(fresh).output["path"] == duckdb_target["path"]


def test_ensure_reads_each_block_once_when_everything_is_there(
    prefect_server: str,
    fresh: str,
    declared: Callable[..., None],
    duckdb_target: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.client.orchestration import SyncPrefectClient

    declared(**{fresh: duckdb_target})
    ensure_target(fresh)
    requests: list[str] = []
    original = SyncPrefectClient.request

    def recorded(self: SyncPrefectClient, method: Any, path: Any, **other: Any) -> Any:
        requests.append(method)
        return original(self, method, path, **other)

    monkeypatch.setattr(SyncPrefectClient, "request", recorded)
    assert ensure_target(fresh) == []
    assert requests == ["GET"] * 2, "the profile and the target configs"
    load_profile(fresh)
    assert requests == ["GET"] * 3


def test_a_run_does_not_use_the_target_that_another_workspace_has_set_up_under_its_name(
    prefect_server: str, fresh: str, declared: Callable[..., None], duckdb_target: dict[str, Any], tmp_path: Path
) -> None:
    declared(**{fresh: duckdb_target})
    ensure_target(fresh)
    (tmp_path / "targets.yml").write_text("profile: shop\n" + (tmp_path / "targets.yml").read_text())

    said = f"for the dbt profile tributary on duckdb, and {tmp_path}/targets.yml declares it for shop on duckdb"
    with pytest.raises(ConfigError, match=said):
        ensure_target(fresh)
    declared(**{fresh: {"warehouse": "postgres", "host": "h", "user": "u", "dbname": "d", "schema": "s"}})
    with pytest.raises(ConfigError, match=r"tributary on duckdb, and .* declares it for tributary on postgres"):
        ensure_target(fresh)


@pytest.mark.parametrize("change", [{"threads": 9}, {"path": "data/elsewhere.duckdb"}])
def test_ensure_says_when_targets_yml_has_changed_since(
    prefect_server: str,
    fresh: str,
    declared: Callable[..., None],
    duckdb_target: dict[str, Any],
    change: dict[str, Any],
    tmp_path: Path,
) -> None:
    declared(**{fresh: duckdb_target})
    ensure_target(fresh)
    declared(**{fresh: duckdb_target | change})

    (sentence,) = ensure_target(fresh)
    assert sentence.startswith(f"The saved blocks of target {fresh} differ from {tmp_path}/targets.yml")
    assert load_profile(fresh).output["threads"] == 4


def test_ensure_does_not_save_secrets_by_itself(
    prefect_server: str, fresh: str, declared: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared(**{fresh: POSTGRES})
    monkeypatch.setenv("PG_PASSWORD", "geheim")

    with pytest.raises(ConfigError, match=f"Set PG_PASSWORD, then run: .* --target {fresh}"):
        ensure_target(fresh)
    with pytest.raises(ConfigError, match="There is no target"):
        ensure_target(f"{fresh}c")


def test_ensure_takes_a_target_that_only_the_server_knows(
    prefect_server: str, fresh: str, declared: Callable[..., None], duckdb_target: dict[str, Any]
) -> None:
    declared(**{fresh: duckdb_target})
    ensure_target(fresh)
    declared(other=duckdb_target)

    assert ensure_target(fresh) == []


def test_ensure_says_when_no_server_answers() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(UpstreamUnavailable):
        ensure_target("dev")


def test_the_command_runs_as_a_module_without_importing_prefect_for_help() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom infrastructure.setup_profiles import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\nprint('prefect' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_without_a_server_prefect_starts_one_and_that_is_said(
    tmp_path: Path, user_cache: Path, write_targets: Callable[..., Path], duckdb_target: dict[str, Any]
) -> None:
    begin_with_what_is_kept(tmp_path / "prefect", user_cache)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    files = [
        "--targets-file",
        str(write_targets(dev=duckdb_target)),
        "--profiles-file",
        str(tmp_path / "p.yml"),
    ]
    run = subprocess.run(
        [sys.executable, "-m", "infrastructure.setup_profiles", "--blocks-only", *files],
        cwd=ROOT,
        env=environ | {"PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stderr
    assert "No Prefect server is configured (PREFECT_API_URL is not set), so a temporary one is started" in run.stderr
    assert "created    dbt-cli-profile/dbt-cli-profile-dev" in run.stdout


def test_where_every_target_waits_for_variables_one_sentence_says_for_which(
    prefect_server: str, fresh: str, run: Run
) -> None:
    result = run("--blocks-only", **{fresh: POSTGRES, f"{fresh}b": POSTGRES | {"host": "${PG_HOST}"}})

    assert result.exit_code == 0
    assert f"No target is set up. Set PG_PASSWORD and PG_HOST, then: {program()} setup" in result.stdout
    assert "everything is as in targets.yml" not in result.stdout
