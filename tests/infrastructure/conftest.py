"""A targets.yml with every way of signing in, and what it makes on the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infrastructure.registration import apply, declare, plan
from tests.support.adapter_sign_ins import adapter_sign_ins
from tests.support.environments import Environments
from tests.support.prefect_api import delete_block
from tests.support.sign_ins import keyfile, private_key, sign_ins


@pytest.fixture(scope="session")
def every_sign_in(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """Write a targets.yml with every way of signing in, each with a credentials block of its own."""
    folder = tmp_path_factory.mktemp("targets")
    (folder / "service-account.json").write_text(json.dumps(keyfile()))
    (folder / "key.pem").write_text(private_key())
    of_four = sign_ins(str(folder / "service-account.json"), str(folder / "key.pem"))
    found = {entry.name: entry for entry in (*of_four, *adapter_sign_ins())}
    targets = {name: entry.settings | {"credentials_block": f"credentials-{name}"} for name, entry in found.items()}
    document = {
        "default": "duckdb",
        "targets": targets,
        "slack_webhook": {"url_env": "SLACK_URL", "channels": {"payroll": "SLACK_URL_PAYROLL"}},
        "pagerduty": {"routing_key_env": "PAGERDUTY_KEY"},
        "airbyte": {
            "api_url": "https://api.airbyte.com/v1",
            "client_id_env": "AIRBYTE_ID",
            "client_secret_env": "AIRBYTE_SECRET",
        },
    }
    path = folder / "targets.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    environ = {name: value for entry in found.values() for name, value in entry.environ.items()}
    environ |= {
        "SLACK_URL": "https://hooks.slack.com/services/T000/B000/webhook0815",
        "SLACK_URL_PAYROLL": "https://hooks.slack.com/services/T000/B000/payroll0815",
        "PAGERDUTY_KEY": "pagerduty-key-0815-0815-0815-081",
        "AIRBYTE_ID": "airbyte-id-0815",
        "AIRBYTE_SECRET": "airbyte-secret-0815",
    }
    return Environments(path, environ, found)


@pytest.fixture(scope="package")
def every_sign_in_saved(every_sign_in: Environments, prefect_server: str) -> Iterator[Environments]:
    """Set every way of signing in up on the server; another folder's tests find no service there afterwards."""
    from infrastructure.server.client import connect

    declared = every_sign_in.declared()
    with connect() as server:
        apply(server, plan(server, declared))
    yield every_sign_in
    of_targets = declare(every_sign_in.load(), every_sign_in.environ, list(every_sign_in.sign_ins)).documents
    for document in reversed([document for document in declared.documents if document not in of_targets]):
        delete_block(prefect_server, document.type_slug, document.name)


@pytest.fixture
def write_targets(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a targets.yml with the targets that it is given."""

    def write(default: str | None = None, extra: dict[str, Any] | None = None, **targets: dict[str, Any]) -> Path:
        named = {name.replace("_", "-"): settings for name, settings in targets.items()}
        document = {"default": default or next(iter(named)), "targets": named} | (extra or {})
        path = tmp_path / "targets.yml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    return write
