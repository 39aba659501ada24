"""`flows init`: what it writes, what it leaves alone, and that the commands which it names work."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from deployments.schedules.schedule_file import load_schedules
from flows.__main__ import main
from flows.alerts.routes import load_routes
from flows.history.health_settings import load_health
from infrastructure.commands import program
from infrastructure.targets.target_file import load_targets
from infrastructure.targets.warehouses import DuckDBTarget
from infrastructure.workspace import EXAMPLE, ROOT, workspace
from tests.support.projects import PROJECTS

SECRET = "hunter2-in-clear"
PROFILES = f"""
jaffle_shop:
  target: OURS
  outputs:
    OURS: {{type: duckdb, path: shop.duckdb}}
    prod: {{type: postgres, host: db, user: u, pass: {SECRET}, dbname: d, schema: s}}
"""
SOURCES = """
sources:
  - name: ads
    config:
      freshness: {warn_after: {count: 1, period: day}}
      meta: {airbyte_connection_id: 3b8d0f6e-1111-4222-8333-444455556666}
    tables: [{name: clicks}]
"""
FILES = [".gitignore", ".tributary/.gitignore", "schedules.yml", "targets.yml", "tributary.yml"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a project with a profiles.yml beside it."""
    folder = tmp_path / "shop"
    shutil.copytree(PROJECTS / "shop", folder)
    (folder / "profiles.yml").write_text(PROFILES.replace("OURS", "dev"))
    return folder


def init(*arguments: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, arguments)], input=answer)


def there(folder: Path) -> list[str]:
    return [name for name in FILES if (folder / name).exists()]


def test_it_shows_all_and_writes_nothing_without_a_yes(shop: Path) -> None:
    refused = init(shop, answer="n\n")

    assert "password_env: JAFFLE_SHOP_PROD_PASSWORD" in refused.output
    assert there(shop) == []
    assert init(shop, answer="y\n").exit_code == 0
    assert there(shop) == FILES


def test_it_writes_what_the_commands_read_and_no_secret(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "models" / "ads.yml").write_text(SOURCES)

    done = init(shop, "--yes")

    assert done.exit_code == 0
    written = "".join((shop / name).read_text() for name in FILES)
    assert SECRET not in written + done.output
    assert "JAFFLE_SHOP_PROD_PASSWORD  `password` of prod, which is written in profiles.yml" in done.output
    assert "It builds nothing while one of ads is too old." in written
    assert "client_id_env: AIRBYTE_CLIENT_ID" in written
    monkeypatch.setenv("TRIBUTARY_WORKSPACE", str(shop))
    assert load_targets().names == ["dev", "prod"]
    assert [it.full_name for it in load_schedules()[1]] == ["dbt-full-pipeline/jaffle-shop"]
    uncommented = (shop / "schedules.yml").read_text().replace("  # ", "  ").replace("  The ", "  # The ")
    uncommented = uncommented.replace("  What a", "  # What a")
    (shop / "schedules.yml").write_text(uncommented)
    assert [it.cron for it in load_schedules()[1]] == [None, "0 2 * * *", None, "*/10 * * * *"]


def test_what_is_there_is_never_overwritten(shop: Path) -> None:
    (shop / ".gitignore").write_text("mine\n.env\n")

    said = init(shop, "--yes").output
    assert "Left as they are, because they exist: .gitignore" in said
    assert "Add to your .gitignore, if it should not be in git: /data/, *.duckdb, *.duckdb.wal\n" in said
    assert (shop / ".gitignore").read_text() == "mine\n.env\n"
    again = init(shop, "--yes")
    assert (again.exit_code, "is a workspace already, and nothing is overwritten" in again.output) == (2, True)


def test_a_workspace_beside_the_project_names_it_and_its_files_from_there(shop: Path) -> None:
    ours = shop.parent / "deep" / "ours"

    done = init(ours / ".." / "ours", "--project-dir", shop, "--yes")

    assert done.exit_code == 0
    assert ".." not in done.output.partition("Wrote ")[2].split("\n")[0]

    assert "project: ../../shop\n" in (ours / "tributary.yml").read_text()
    assert "path: ../../shop/shop.duckdb\n" in (ours / "targets.yml").read_text()


def test_each_file_leads_editors_to_a_schema_that_it_fits(shop: Path) -> None:
    ours = shop.parent / "deep" / "ours"
    assert init(ours, "--project-dir", shop, "--yes").exit_code == 0
    assert init(shop.parent / "moved", "--migrate", "--yes").exit_code == 0

    for file in (folder / name for folder in (ours, shop.parent / "moved") for name in FILES[2:]):
        first, rest = file.read_text().split("\n", 1)
        schema = file.parent / first.removeprefix("# yaml-language-server: $schema=")
        jsonschema.validate(yaml.safe_load(rest), json.loads(schema.read_text()))
        assert "yaml-language-server" not in rest


def test_without_a_profiles_yml_the_target_is_a_duckdb_file(shop: Path) -> None:
    (shop / "profiles.yml").unlink()

    done = init(shop, "--yes")

    assert "target dev is a DuckDB file of its own" in done.output
    assert "path: data/dev.duckdb" in (shop / "targets.yml").read_text()


def test_what_was_edited_in_the_repository_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tmp_path / "ours"

    assert init(ours, "--migrate", "--yes").exit_code == 0

    monkeypatch.setenv("TRIBUTARY_WORKSPACE", str(ours))
    found = workspace()
    assert found.project == EXAMPLE.project
    assert load_targets().names == load_targets(EXAMPLE.targets).names
    dev = load_targets().find("dev")
    assert isinstance(dev, DuckDBTarget)
    assert (ours / dev.path).resolve() == ROOT / "data" / "dev.duckdb"
    assert len(load_schedules()[1]) == len(load_schedules(EXAMPLE.schedules)[1])
    assert found.routes == ours / "routes.yml"
    assert load_routes(found.routes) == load_routes(EXAMPLE.routes)
    assert load_health() == load_health(EXAMPLE.settings_of("health"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{shop}/models"], "has no dbt_project.yml, nor has a folder in it. Name the dbt project with --project-dir"),
        (["{shop}", "--profiles", "{shop}/dbt_project.yml"], "has no profile 'jaffle_shop', which dbt_project.yml"),
        ([str(ROOT)], "this one is Tributary's own"),
        (["{shop}", "--profiles", "{shop}/none.yml"], "does not exist"),
    ],
)
def test_what_it_can_not_work_with_is_said_in_a_sentence(shop: Path, arguments: list[str], said: str) -> None:
    done = init(*(each.format(shop=shop) for each in arguments), "--yes")

    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert there(shop) == []


def test_the_commands_that_it_names_build_the_project_in_its_own_database(
    prefect_server: str, shop: Path, fresh: str
) -> None:
    (shop / "profiles.yml").write_text(PROFILES.replace("OURS", fresh))

    lines = init(shop, "--yes").output.partition("Next:")[2].split("\n")

    for command in (shlex.split(line) for line in lines if line.strip()):
        typed = shlex.split(program())
        assert command[: len(typed)] == typed
        done = subprocess.run(
            [sys.executable, "-m", "flows", *command[len(typed) :]], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    with closing(duckdb.connect(str(shop / "shop.duckdb"), read_only=True)) as connection:
        assert connection.execute("select count(*) > 0 from main.customers").fetchone() == (True,)
