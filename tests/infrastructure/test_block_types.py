"""The saved blocks as the libraries that they are of see them, and the profiles as the dbt adapters see them.

Those libraries are not in the project's environment, where importing them would cost every run seconds. The
test makes them an environment of their own, or uses the interpreter that TRIBUTARY_TEST_BLOCKS_PYTHON names.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from infrastructure.blocks import block_types
from infrastructure.profiles import local_profiles_text, profile_of
from tests.support.block_libraries import run_with_libraries
from tests.support.environments import Environments
from tests.support.sign_ins import keyfile

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(every_sign_in_saved: Environments, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the libraries make of every block that setup saved."""
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "profiles.yml").write_text(local_profiles_text(every_sign_in_saved.load()))
    (folder / "adc.json").write_text(json.dumps(keyfile()))
    sign_ins = every_sign_in_saved.sign_ins
    request = {
        "warehouses": {name: entry.connection["type"] for name, entry in sign_ins.items()},
        "local_profiles": str(folder / "profiles.yml"),
    }
    environment = {
        **every_sign_in_saved.environ,
        # What prefect-gcp looks for where a block names no key.
        "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "adc.json"),
    }
    run = run_with_libraries("tests.infrastructure.load_with_libraries", environment, json.dumps(request))
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_the_block_types_are_as_their_libraries_register_them(seen: dict[str, Any]) -> None:
    assert seen["block_types"], f"write the file anew: {block_types.__doc__}"


def test_prefect_dbt_gives_the_declared_output_for_every_sign_in(
    seen: dict[str, Any], every_sign_in: Environments
) -> None:
    targets = every_sign_in.load()
    for name, target in targets.targets.items():
        output = seen["targets"][name]["profile"]
        output.pop("credentials_from", None)
        assert output == profile_of(name, target, every_sign_in.environ).output, name


def test_dbt_gets_the_declared_credentials_for_every_sign_in(seen: dict[str, Any], every_sign_in: Environments) -> None:
    """Through the profile of a run and through the local profiles.yml alike."""
    aliases = {"bigquery": {"project": "database"}, "postgres": {"dbname": "database"}}
    for name, entry in every_sign_in.sign_ins.items():
        if "adapter" in entry.settings:
            continue
        renamed = aliases.get(entry.connection["type"], {})
        expected = {renamed.get(key, key): value for key, value in entry.connection.items() if key != "type"}
        for way in ("dbt", "dbt_local"):
            credentials = seen["targets"][name][way]
            # dbt-snowflake 1.12 has no such setting: it is for Python clients.
            assert "session_parameters" not in credentials
            for key, value in expected.items():
                # A person's own profiles.yml has no key from a block: libpq looks where people keep theirs.
                is_key_of_block = key == "sslkey" and value.startswith("/proc/")
                if key == "session_parameters" or (is_key_of_block and way == "dbt_local"):
                    continue
                got = credentials[key]
                if key == "keyfile_json":
                    got = {field: got[field] for field in value}
                if key in ("private_key", "scopes", "sslkey"):
                    value, got = _loosely(value), _loosely(got)
                assert got == value, f"{name}, {way}: {key}"


def _loosely(value: Any) -> Any:
    if not isinstance(value, str):
        return list(value)
    # A key in memory has another path in every process.
    return re.sub(r"^/proc/\d+/fd/\d+$", "/proc/<process>/fd/<file>", value.replace("\\n", "\n").strip())


def test_the_target_configs_lead_to_the_credentials(seen: dict[str, Any], every_sign_in: Environments) -> None:
    for name, entry in every_sign_in.sign_ins.items():
        configs = seen["targets"][name].get("configs")
        if configs is None:
            continue
        if "adapter" in entry.settings:
            target = every_sign_in.load().targets[name]
            assert configs == profile_of(name, target, every_sign_in.environ).output, name
            continue
        text = json.dumps(configs)
        # prefect-dbt 0.7.25 leaves Snowflake tokens out of what it makes of these blocks.
        lost = ("token", "oauth_client_secret")
        for key, value in entry.connection.items():
            if key in (
                "keyfile_json",
                "keyfile",
                "method",
                "authenticator",
                "workload_identity_provider",
                *lost,
            ):
                continue
            if (key == "password" and not value) or (key == "sslkey" and value.startswith("/proc/")):
                continue
            assert json.dumps(value)[1:-1].strip() in text, f"{name}: {key}"


def test_the_credentials_are_loaded_by_their_classes(seen: dict[str, Any], every_sign_in: Environments) -> None:
    for name, entry in every_sign_in.sign_ins.items():
        found = seen["targets"][name].get("credentials")
        if found is None:
            continue
        for key in ("password", "private_key", "private_key_passphrase", "account", "user"):
            if entry.connection.get(key):
                assert str(found[key]).strip() == str(entry.connection[key]).strip(), f"{name}: {key}"
        for key, value in entry.connection.get("keyfile_json", {}).items():
            assert found[key] == value, f"{name}: {key}"
    assert {seen["targets"][name]["class"] for name in seen["targets"] if "class" in seen["targets"][name]} == {
        "SqlAlchemyConnector",
        "SnowflakeCredentials",
        "GcpCredentials",
    }


def test_services_are_loaded_by_their_classes(seen: dict[str, Any], every_sign_in: Environments) -> None:
    assert seen["slack"] == seen["slack_from_automations"] == every_sign_in.environ["SLACK_URL"]
    assert seen["pagerduty"] == every_sign_in.environ["PAGERDUTY_KEY"]
    assert seen["airbyte"] == {
        "api-url": "https://api.airbyte.com/v1",
        "client-id": every_sign_in.environ["AIRBYTE_ID"],
        "client-secret": every_sign_in.environ["AIRBYTE_SECRET"],
    }


def test_the_interpreter_of_the_libraries_is_not_the_projects(seen: dict[str, Any]) -> None:
    # If it were, the project would pay for importing them.
    assert not list(Path(shutil.__file__).parent.glob("site-packages/prefect_dbt"))
