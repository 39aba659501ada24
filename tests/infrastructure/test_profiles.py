"""Profiles: what is loaded from Prefect is what was declared, and what cannot be loaded says why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infrastructure.blocks.documents import BlockDocument, change_of
from infrastructure.errors import ConfigError, UpstreamUnavailable
from infrastructure.profiles import (
    Profile,
    load_profile,
    local_profiles_action,
    local_profiles_text,
    profile_of,
    require_adapter,
)
from infrastructure.targets.target_file import load_targets
from infrastructure.workspace import ROOT
from tests.support.environments import Environments
from tests.support.warm_children import DBT

DUCKDB = {"warehouse": "duckdb", "path": "data/dev.duckdb", "schema": "analytics"}


def _save(*documents: BlockDocument) -> None:
    from infrastructure.server.client import connect

    with connect() as server:
        for document in documents:
            server.save_block(change_of(document, server.read_block(document.type_slug, document.name)))


def _hand_made(name: str, configs: dict[str, Any]) -> None:
    _save(
        BlockDocument(
            "dbt-cli-profile",
            f"dbt-cli-profile-{name}",
            {"name": "shop", "target": name, "target_configs": configs},
        )
    )


def test_nothing_but_the_child_environment_holds_a_secret(every_sign_in: Environments) -> None:
    targets = every_sign_in.load()
    for name, entry in every_sign_in.sign_ins.items():
        profile = profile_of(name, targets.targets[name], every_sign_in.environ)
        for secret in entry.secrets:
            assert secret not in repr(profile)
            assert secret not in str(profile.output)
            assert secret not in yaml.safe_load(profile.profiles_yml())["tributary"]["outputs"][name].values()
            assert secret.splitlines()[-1] not in profile.profiles_yml()


def test_profiles_yml_takes_the_name_that_the_project_asks_for() -> None:
    profile = Profile("dev", "tributary", {"type": "duckdb", "path": "/x", "schema": "s"}, {})

    assert yaml.safe_load(profile.profiles_yml("jaffle_shop")) == {
        "jaffle_shop": {"target": "dev", "outputs": {"dev": {"type": "duckdb", "path": "/x", "schema": "s"}}}
    }
    assert list(yaml.safe_load(profile.profiles_yml())) == ["tributary"]
    assert profile.warehouse == "duckdb"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/dev.duckdb", "{root}/data/dev.duckdb"),
        ("/srv/dev.duckdb", "/srv/dev.duckdb"),
        ("~/dev.duckdb", "{home}/dev.duckdb"),
        ("md:warehouse", "md:warehouse"),
        ("s3://bucket/dev.duckdb", "s3://bucket/dev.duckdb"),
    ],
)
def test_a_relative_path_starts_at_the_repository(
    write_targets: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    expected: str,
) -> None:
    target = load_targets(write_targets(dev=DUCKDB | {"path": path}), {}).find("dev")
    monkeypatch.chdir(tmp_path)

    assert profile_of("dev", target, {}).output["path"] == expected.format(root=ROOT, home=Path.home())


def test_loading_a_duckdb_profile_makes_the_folder_of_its_file(prefect_server: str, fresh: str, tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "dev.duckdb"
    _hand_made(fresh, {"type": "duckdb", "schema": "s", "threads": 1, "extras": {"path": str(file)}})

    assert load_profile(fresh).output["path"] == str(file)
    assert file.parent.is_dir()
    assert not file.exists()


def test_a_missing_profile_names_the_command_that_makes_it(prefect_server: str, fresh: str) -> None:
    _hand_made(f"{fresh}-prod", {"type": "duckdb", "schema": "s", "extras": {"path": "/x"}})

    with pytest.raises(ConfigError) as caught:
        load_profile(f"{fresh}-prodd")
    message = str(caught.value)
    assert message.startswith(f"Target '{fresh}-prodd' is not set up on the Prefect server at {prefect_server}")
    assert f"; did you mean `{fresh}-prod`?" in message
    assert message.endswith(f"tributary setup --target {fresh}-prodd")


def test_a_missing_or_emptied_credentials_block_is_named(prefect_server: str, fresh: str) -> None:
    block = f"sqlalchemy-connector/{fresh}"
    configs: dict[str, Any] = {
        "type": "postgres",
        "schema": "s",
        "extras": {
            "password": "{{ env_var('DBT_ENV_SECRET_P') }}",
            "credentials_from": {"DBT_ENV_SECRET_P": f"{block}#connection_info.password"},
        },
    }
    _hand_made(fresh, configs)
    with pytest.raises(ConfigError, match=f"The block {block}, which target {fresh} needs, is missing. Create it"):
        load_profile(fresh)

    _save(BlockDocument("sqlalchemy-connector", fresh, {"connection_info": {"driver": "postgresql+psycopg2"}}))
    with pytest.raises(ConfigError, match=f"The block {block} has no connection_info.password, which target"):
        load_profile(fresh)


@pytest.mark.parametrize(
    "extras",
    [
        {"password": "geheim"},
        {"keyfile_json": {"private_key": "geheim"}},
        {"token": "geheim"},
        {"secrets": {"s3": {"secret": "geheim"}}},
    ],
)
def test_a_profile_that_holds_credentials_itself_is_refused(
    prefect_server: str, fresh: str, extras: dict[str, Any]
) -> None:
    _hand_made(fresh, {"type": "postgres", "schema": "s", "extras": extras})

    with pytest.raises(ConfigError, match="holds credentials itself") as caught:
        load_profile(fresh)
    assert "geheim" not in str(caught.value)
    assert f"tributary setup --target {fresh}. Then change those" in str(caught.value)


def test_a_profile_with_target_configs_that_carry_credentials_is_refused(prefect_server: str, fresh: str) -> None:
    credentials = {"connection_info": {"driver": "d", "password": "geheim"}}
    _hand_made(fresh, {"type": "postgres", "schema": "s", "credentials": credentials})

    with pytest.raises(ConfigError, match=r"holds credentials itself \(credentials\)"):
        load_profile(fresh)


def test_a_profile_that_refers_to_target_configs_is_refused(prefect_server: str, fresh: str) -> None:
    from infrastructure.blocks.documents import Reference

    configs = BlockDocument("dbt-cli-target-configs", fresh, {"type": "duckdb", "schema": "s"})
    _save(configs)
    reference: Any = Reference(configs.type_slug, configs.name)
    _hand_made(fresh, reference)

    with pytest.raises(ConfigError, match="a reference to block dbt-cli-target-configs/"):
        load_profile(fresh)


def test_a_hand_made_profile_that_looks_its_secrets_up_is_taken(prefect_server: str, fresh: str) -> None:
    extras = {"host": "h", "password": "{{ env_var('REDSHIFT_PASSWORD') }}"}
    _hand_made(fresh, {"type": "postgres", "schema": "s", "threads": 2, "extras": extras})

    profile = load_profile(fresh)
    assert profile.name == "shop"
    assert profile.output == {"type": "postgres", "schema": "s", "threads": 2} | extras
    assert profile.child_environment() == {}
    with pytest.raises(ConfigError, match=r"looks up \{\{ env_var"):
        profile.connection()


def test_a_missing_adapter_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ConfigError, match=r"dbt-oracle is not installed\. Install it with: uv pip install dbt-ora"):
        require_adapter("oracle", "prod")
    require_adapter("duckdb", "dev")


def test_looking_for_an_adapter_imports_no_client() -> None:
    code = (
        "import sys\nfrom infrastructure.profiles import require_adapter\nrequire_adapter('postgres', 'pg')\n"
        "print(sorted({'psycopg2', 'duckdb', 'dbt.adapters.postgres', 'prefect'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_server_that_does_not_answer_is_named() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: "http://user:geheim@127.0.0.1:9/api"}),
        pytest.raises(UpstreamUnavailable, match=r"http://127\.0\.0\.1:9/api does not answer") as caught,
    ):
        load_profile("dev")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "/api/v1"])
def test_an_address_that_is_no_prefect_api_is_named(prefect_server: str, wrong: str) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    address = prefect_server.removesuffix("/api") + wrong
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(ConfigError, match=f"{address} is not the API of a Prefect server"),
    ):
        load_profile("dev")


def test_the_local_profiles_file_looks_up_the_variables_of_the_user(every_sign_in: Environments) -> None:
    targets = every_sign_in.load()
    text = local_profiles_text(targets)
    outputs = yaml.safe_load(text)["tributary"]["outputs"]

    assert list(outputs) == list(targets.targets)
    assert outputs["pg-password"]["password"] == "{{ env_var('PG_PASSWORD') }}"
    assert outputs["sf-encrypted-key-pair"]["private_key"] == "{{ env_var('SF_ENCRYPTED_KEY') }}"
    assert outputs["bq-key-in-variable"]["keyfile_json"] == "{{ env_var('BQ_KEY') | as_native }}"
    for entry in every_sign_in.sign_ins.values():
        for secret in entry.secrets:
            assert secret.splitlines()[-1] not in text


def test_dbt_reads_the_local_profiles_file(every_sign_in: Environments, tmp_path: Path) -> None:
    (tmp_path / "profiles.yml").write_text(local_profiles_text(every_sign_in.load()))
    (tmp_path / "dbt_project.yml").write_text("name: shop\nprofile: tributary\nversion: '1.0'\n")
    command = [*DBT, "parse", "--target", "pg-password", "--no-use-colors"]
    environ = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "PG_PASSWORD": "pg-password-0815"}

    run = subprocess.run(command, cwd=tmp_path, env=os.environ | environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "Registered adapter: postgres" in run.stdout


def test_a_profiles_file_of_the_user_is_never_overwritten(tmp_path: Path, every_sign_in: Environments) -> None:
    text = local_profiles_text(every_sign_in.load())
    file = tmp_path / "profiles.yml"

    assert local_profiles_action(file, text) == "create"
    file.write_text(text)
    assert local_profiles_action(file, text) == "unchanged"
    file.write_text(text + "# older\n")
    assert local_profiles_action(file, text) == "update"
    file.write_text("shop: {}\n")
    assert local_profiles_action(file, text) == "not ours"
