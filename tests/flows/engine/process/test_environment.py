"""The environment of a dbt child, found in a project's files and in targets.yml."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from flows.engine.process.environment import child_environment, kept_back
from flows.engine.process.process import DbtProcess
from infrastructure.profiles import Profile
from infrastructure.targets.target_file import secrets_of_others

# How a child starts is what these tests are about.
pytestmark = pytest.mark.usefixtures("cold_children")

TARGETS = """
default: dev
targets:
  dev: {warehouse: duckdb, path: dev.duckdb, schema: analytics}
  prod: {warehouse: snowflake, account: "${NOT_SET}", user: u, private_key_env: OUR_KEY, database: d, schema: s}
  twin: {warehouse: postgres, host: h, user: u, password_env: SHARED, dbname: d, schema: s}
  other: {warehouse: postgres, host: h, user: u, password_env: SHARED, dbname: d, schema: s}
slack_webhook: {url_env: CHAT, channels: {pay: CHAT_PAY}}
"""
FILES = {
    "dbt_project.yml": "name: shop\nvars: {day: \"{{ env_var('DAY') }}\"}\n",
    "profiles.yml": "shop: {outputs: {prod: {password: \"{{ env_var('OUR_KEY') }}\"}}}",
    "models/a.sql": "select '{{ env_var('REGION') }}', '{{ env_var('CHAT', '') }}'",
    "dbt_packages/more/macros/c.sql": "{{ env_var('FROM_A_PACKAGE') }}",
    "notes.md": "{{ env_var('NOT_DBT') }}",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "targets.yml").write_text(TARGETS)
    (tmp_path / "tributary.yml").write_text("project: shop\n")
    monkeypatch.setenv("TRIBUTARY_WORKSPACE", str(tmp_path))
    for name, text in FILES.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "shop"


def profile(*pass_env: str) -> Profile:
    secrets = {"DBT_ENV_SECRET_DEV_PASSWORD": "mine"}
    return Profile("dev", "tributary", {"type": "duckdb", "path": "dev.duckdb"}, secrets, pass_env)


def test_a_child_of_dbt_sees_what_its_project_looks_up_and_nothing_else(project: Path) -> None:
    names = ("DAY", "REGION", "FROM_A_PACKAGE", "CHAT", "OUR_KEY", "NOT_DBT", "PREFECT_API_KEY", "ANYTHING")
    environ = {"PATH": os.environ["PATH"], "PYTHONUTF8": "0", **dict.fromkeys(names, "set")}
    given = child_environment(project, profile("ANYTH*"), environ=environ)
    # As the process itself sees it; Python adds where it runs, with some locales.
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    with DbtProcess([sys.executable, "-c", code], given, project) as child:
        seen = json.loads(b"".join(child.lines()))
    assert {
        name: value for name, value in seen.items() if name not in ("PATH", "LC_CTYPE", "TRIBUTARY_PARENT_PID")
    } == {
        **dict.fromkeys(("DAY", "REGION", "FROM_A_PACKAGE", "ANYTHING"), "set"),
        "PYTHONUTF8": "1",
        "DBT_ENV_SECRET_DEV_PASSWORD": "mine",
    }


def test_what_is_kept_back_is_said_in_one_sentence_with_what_to_do(project: Path) -> None:
    environ = dict.fromkeys(("CHAT", "OUR_KEY", "REGION"), "set")
    assert kept_back(project, profile(), environ) == [
        "dbt was not given CHAT, which the project looks up: a secret of the orchestrator or of another target. "
        "If dbt is to have it, name it in `pass_env` of target dev in "
        f"{project.parent}/targets.yml."
    ]
    assert kept_back(project, profile("CHAT"), environ) == []
    assert kept_back(project, profile(), {"REGION": "set"}) == []


def test_names_that_no_file_holds_are_spoken_of_as_long_as_the_target_passes_nothing_on(project: Path) -> None:
    (project / "models" / "a.sql").write_text("{{ env_var(name) }}")
    (said,) = kept_back(project, profile(), {})
    assert said.startswith("Environment variables that models/a.sql looks up by a name put together at run time do not")
    assert kept_back(project, profile("REGION"), {}) == []


def test_a_changed_file_is_read_again(project: Path) -> None:
    environ = {"ELSE": "set", "REGION": "set"}
    assert "ELSE" not in child_environment(project, profile(), environ=environ)
    (project / "models" / "a.sql").write_text("select '{{ env_var('ELSE') }}' as another_column")
    assert "ELSE" in child_environment(project, profile(), environ=environ)


def test_folders_that_only_dbt_can_work_out_are_searched_for_look_ups(project: Path) -> None:
    (project / "dbt_project.yml").write_text("name: shop\nmodel-paths: [\"{{ env_var('WHERE') }}\"]\n")
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "b.sql").write_text("{{ env_var('ELSE') }}")
    given = child_environment(project, profile(), environ=dict.fromkeys(("ELSE", "WHERE"), "set"))
    assert {"ELSE", "WHERE"} <= given.keys()


def test_secrets_of_others_are_those_of_every_other_entry_also_of_one_that_waits(project: Path) -> None:
    assert secrets_of_others("dev") == {"OUR_KEY", "SHARED", "CHAT", "CHAT_PAY"}
    assert secrets_of_others("twin") == {"OUR_KEY", "CHAT", "CHAT_PAY"}, "what it shares is its own"
