"""Blocks that people made by hand: targets name them, and they are used as they are."""

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

from infrastructure.blocks.documents import BlockChange, BlockDocument, Reference, SavedDocument
from infrastructure.blocks.given import given_output
from infrastructure.errors import ConfigError
from infrastructure.profiles import load_profile
from infrastructure.setup_profiles import main
from infrastructure.workspace import ROOT
from tests.support.block_libraries import run_with_libraries
from tests.support.prefect_api import ask
from tests.support.sign_ins import keyfile, private_key

PASSWORD = "geheim-4711"
PARTS = {"driver": "postgresql+psycopg2", "host": "db", "port": 5433, "username": "u", "database": "d"}
INSIDE = {"host": "127.0.0.1", "port": 9, "user": "u", "password": PASSWORD, "dbname": "d"}

Setup = Callable[..., Result]


@pytest.fixture
def setup(tmp_path: Path, write_targets: Callable[..., Path], prefect_server: str) -> Setup:
    """Return a function that runs setup with some targets."""

    def run(*arguments: str, **targets: dict[str, Any]) -> Result:
        return CliRunner().invoke(main, ["--targets-file", str(write_targets(**targets)), "--blocks-only", *arguments])

    return run


def save(type_slug: str, name: str, data: dict[str, Any]) -> None:
    from infrastructure.server.client import connect

    document = BlockDocument(type_slug, name, data)
    with connect() as server:
        server.save_block(BlockChange(document.slug, "create", document=document))


def read(type_slug: str, name: str) -> SavedDocument | None:
    from infrastructure.server.client import connect

    with connect() as server:
        return server.read_block(type_slug, name)


def of(type_slug: str, data: dict[str, Any], **own: Any) -> dict[str, Any]:
    """Return the output that a block stands for, with its secrets filled in."""
    found = given_output("prod", Reference(type_slug, "mine"), own, lambda _: SavedDocument(data, ("", "")))
    text = json.dumps(found.settings)
    for variable, value in found.secrets.items():
        assert value not in text.replace("\\n", "\n")
        text = text.replace(f"{{{{ env_var('{variable}') }}}}", json.dumps(value)[1:-1])
    return json.loads(text)


@pytest.mark.parametrize(
    ("type_slug", "data", "expected"),
    [
        (
            "sqlalchemy-connector",
            {"connection_info": PARTS | {"password": PASSWORD, "query": {"sslmode": "require"}}},
            {"type": "postgres", "host": "db", "port": 5433, "user": "u", "dbname": "d", "sslmode": "require"},
        ),
        (
            "sqlalchemy-connector",
            {"connection_info": f"postgresql://u:{PASSWORD}@db/d", "connect_args": {"connect_timeout": 3}},
            {"type": "postgres", "host": "db", "port": 5432, "user": "u", "dbname": "d", "connect_timeout": 3},
        ),
        (
            "snowflake-credentials",
            {"account": "a", "user": "u", "password": PASSWORD, "authenticator": "snowflake", "autocommit": None},
            {"type": "snowflake", "account": "a", "user": "u"},
        ),
        (
            "snowflake-credentials",
            {
                "account": "a",
                "password": PASSWORD,
                "authenticator": "okta_endpoint",
                "endpoint": "https://acme.okta.com",
            },
            {"type": "snowflake", "account": "a", "authenticator": "https://acme.okta.com"},
        ),
        (
            "dbt-cli-profile",
            {"name": "house", "target_configs": {"type": "trino", "schema": "s", "threads": 2, "extras": INSIDE}},
            {"type": "trino", "schema": "s", "threads": 2, "host": "127.0.0.1", "port": 9, "user": "u", "dbname": "d"},
        ),
    ],
    ids=["parts", "address", "snowflake", "okta", "any adapter"],
)
def test_a_block_says_to_dbt_what_prefects_libraries_mean_by_it(
    type_slug: str, data: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert of(type_slug, data) == expected | {"password": PASSWORD}


def test_a_key_of_google_and_what_targets_yml_says_come_before_the_block() -> None:
    found = of("gcp-credentials", {"service_account_info": keyfile(), "project": "theirs"}, project="ours", schema="s")

    assert (found["method"], found["project"], found["schema"]) == ("service-account-json", "ours", "s")
    assert found["keyfile_json"] == keyfile()
    assert of("gcp-credentials", {"project": "theirs"}) == {"type": "bigquery", "project": "theirs", "method": "oauth"}


def test_a_block_for_another_kind_of_database_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sqlalchemy-connector/mine is for mysql, and the target for postgres"):
        of("sqlalchemy-connector", {"connection_info": f"mysql://u:{PASSWORD}@db/d"})


def test_a_target_without_a_sign_in_of_its_own_uses_the_block_it_names_and_setup_leaves_that_alone(
    fresh: str, setup: Setup
) -> None:
    data = {"connection_info": PARTS | {"password": PASSWORD}}
    target = {"warehouse": "postgres", "schema": "s", "credentials_block": fresh}

    missing = setup("--plan", **{fresh: target})
    save("sqlalchemy-connector", fresh, data)
    planned, done = setup("--plan", "--json", **{fresh: target}), setup(**{fresh: target})
    again = setup(**{fresh: target})

    assert missing.exit_code == 2
    assert f"Target {fresh} uses your block sqlalchemy-connector/{fresh}, which is not on the Prefect server" in (
        missing.output
    )
    document = json.loads(planned.stdout)
    assert document["given_blocks"] == [f"sqlalchemy-connector/{fresh}"]
    assert document["warnings"] == []
    assert f"sqlalchemy-connector/{fresh}: is yours, and is used as it is" in done.stdout
    assert "Nothing to change" in again.stdout
    saved = read("sqlalchemy-connector", fresh)
    assert saved and saved.data["connection_info"] == data["connection_info"]
    connection = load_profile(fresh).connection()
    assert (connection["host"], connection["port"], connection["password"]) == ("db", 5433, PASSWORD)
    assert PASSWORD not in missing.output + planned.output + done.output + repr(load_profile(fresh))


def test_a_profile_block_that_shows_a_password_is_used_with_a_warning_and_one_command_mends_it(
    fresh: str, setup: Setup
) -> None:
    mine = f"{fresh}-mine"
    configs = {"type": "postgres", "schema": "s", "threads": 3, "extras": INSIDE}
    save("dbt-cli-profile", mine, {"name": "house", "target": "dev", "target_configs": configs})
    target = {"profile_block": mine, "schema": "other"}

    warned = setup(**{fresh: target})
    before = load_profile(fresh)
    mended = setup("--mend-block", mine, **{fresh: target})
    after, quiet = load_profile(fresh), setup("--plan", **{fresh: target})

    shown = f"{fresh}: the block dbt-cli-profile/{mine} shows target_configs.extras.password in clear"
    assert shown in warned.stdout
    assert f"setup --mend-block {mine}" in warned.stdout
    assert before.connection() == after.connection() == {"type": "postgres", "threads": 3, **INSIDE, "schema": "other"}
    assert mended.exit_code == 0, mended.output
    assert f"which is now in secret/{mine}-password" in mended.stdout
    assert "in clear" not in quiet.stdout
    saved = read("dbt-cli-profile", mine)
    assert saved and PASSWORD not in json.dumps(saved.data)
    assert PASSWORD not in warned.output + mended.output + quiet.output + before.profiles_yml()


def test_the_check_connects_with_a_block_of_ones_own(fresh: str, setup: Setup) -> None:
    nobody = {"host": "127.0.0.1", "port": 9, "password": PASSWORD}
    save("sqlalchemy-connector", fresh, {"connection_info": PARTS | nobody})

    checked = setup(
        "--check", "--json", **{fresh: {"warehouse": "postgres", "schema": "s", "credentials_block": fresh}}
    )

    (found,) = json.loads(checked.stdout)["checks"]
    assert (found["ok"], found["cause"]) == (False, "nothing listens at that host and port")
    assert PASSWORD not in checked.output


@pytest.mark.slow
def test_blocks_saved_by_prefects_own_classes_build_a_project(
    fresh: str,
    setup: Setup,
    postgres_database: dict[str, Any],
    tmp_path: Path,
    prefect_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A server that trusts this machine takes any password.
    password = postgres_database["password"] or PASSWORD
    place = postgres_database | {"password": password}
    asked = {"name": fresh, "postgres": place, "key": private_key(), "keyfile": keyfile()}

    made = run_with_libraries("tests.infrastructure.make_blocks_by_hand", {}, json.dumps(asked))

    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    for name, expected in json.loads(made.stdout.splitlines()[-1]).items():
        if expected.get("authenticator") == "snowflake":
            del expected["authenticator"]  # The client's own default, which goes with a key pair or a password.
        target = f"{fresh}-{name}-target"
        done = setup(**{target: {"profile_block": f"{fresh}-{name}"}})
        assert done.exit_code == 0, done.output
        with monkeypatch.context() as patch:
            # That of Snowflake or BigQuery need not be here.
            patch.setattr("infrastructure.profiles.require_adapter", lambda *_: None)
            assert load_profile(target).connection() == expected
        # Of what is nested in a block, Prefect's libraries forget that it is secret.
        where = f"/block_types/slug/dbt-cli-profile/block_documents/name/{fresh}-{name}"
        shown = ask("GET", prefect_server + where).text
        is_given_away = password in shown or "BEGIN PRIVATE KEY" in shown
        assert ("in clear" in done.output) == is_given_away, done.output
    workspace = _workspace(
        tmp_path / "shop",
        {
            f"{fresh}-clear-target": {"profile_block": f"{fresh}-clear"},
            fresh: {"warehouse": "postgres", "schema": "parts", "credentials_block": f"{fresh}-parts"},
            f"{fresh}-a": {"warehouse": "postgres", "schema": "address", "credentials_block": f"{fresh}-address"},
        },
    )
    said = _run(workspace, f"{fresh}-clear-target") + _run(workspace, fresh) + _run(workspace, f"{fresh}-a")
    mended = setup("--mend-block", f"{fresh}-saved", **{fresh: {"profile_block": f"{fresh}-saved"}})
    assert mended.exit_code == 0, mended.output
    said += _run(workspace, f"{fresh}-clear-target")
    assert password not in said + mended.output
    kept = [path for path in Path(os.environ["TRIBUTARY_STATE"]).rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept if password.encode() in path.read_bytes()] == []


def _workspace(folder: Path, targets: dict[str, Any]) -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "tributary.yml").write_text("project: .\n")
    (folder / "targets.yml").write_text(yaml.safe_dump({"default": next(iter(targets)), "targets": targets}))
    project = {"name": "house", "profile": "tributary", "flags": {"send_anonymous_usage_stats": False}}
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(project))
    (folder / "models" / "first.sql").write_text("select 1 as version")
    return folder


def _run(workspace: Path, target: str) -> str:
    command = [sys.executable, "-m", "flows", "run", "--workspace", str(workspace), "--target", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
