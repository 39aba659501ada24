"""Every way of signing in, on a real Prefect server: set up again, read by anybody, and loaded."""

from __future__ import annotations

import pytest

from infrastructure.profiles import load_profile, profile_of
from infrastructure.registration import plan
from tests.support.environments import Environments
from tests.support.prefect_api import ask


def test_a_second_run_changes_nothing(every_sign_in_saved: Environments) -> None:
    from infrastructure.server.client import connect

    declared = every_sign_in_saved.declared()
    assert len(declared.documents) > 40
    with connect() as server:
        again = plan(server, declared)

    assert again.is_empty, again.lines()


def test_no_reader_of_the_api_sees_a_secret(every_sign_in_saved: Environments, prefect_server: str) -> None:
    declared = every_sign_in_saved.declared()
    # Everything that a UI or a colleague can read without asking for secrets.
    readable: list[str] = []
    for document in declared.documents:
        address = f"{prefect_server}/block_types/slug/{document.type_slug}/block_documents/name/{document.name}"
        readable.append(ask("GET", address, params={"include_secrets": False}).text)
        if document.type_slug == "dbt-cli-profile":
            # A profile holds none at all, whoever asks.
            readable.append(ask("GET", address, params={"include_secrets": True}).text)
    filters = {"include_secrets": False, "limit": 200}
    readable.append(ask("POST", f"{prefect_server}/block_documents/filter", json=filters).text)
    readable.append(ask("POST", f"{prefect_server}/events/filter", json={"limit": 50}).text)
    readable.append(ask("POST", f"{prefect_server}/logs/filter", json={"limit": 200}).text)

    names = ("SLACK_URL", "SLACK_URL_PAYROLL", "PAGERDUTY_KEY", "AIRBYTE_ID", "AIRBYTE_SECRET")
    services = [every_sign_in_saved.environ[name] for name in names]
    secrets = [s for entry in every_sign_in_saved.sign_ins.values() for s in entry.secrets] + services
    assert len(secrets) > 15
    for secret in secrets:
        # A key of many lines is looked for by its last line of content, however its line breaks are written.
        lines = [line for line in secret.splitlines() if not line.startswith("-----")]
        for text in readable:
            assert lines[-1] not in text
    # The reading itself works: without hiding, they would have been seen.
    address = f"{prefect_server}/block_types/slug/sqlalchemy-connector/block_documents/name/credentials-pg-password"
    shown = ask("GET", address, params={"include_secrets": True})
    assert "pg-password-0815" in shown.text


def test_what_is_loaded_equals_what_was_declared(
    every_sign_in_saved: Environments, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether an adapter is installed is another test's matter.
    monkeypatch.setattr("infrastructure.profiles.require_adapter", lambda *_: None)
    monkeypatch.setattr("infrastructure.profiles.make_folder", lambda _: None)
    targets = every_sign_in_saved.load()
    for name, entry in every_sign_in_saved.sign_ins.items():
        profile = load_profile(name)
        assert profile.connection() == entry.connection, name
        assert profile == profile_of(name, targets.targets[name], every_sign_in_saved.environ)
        assert set(profile.secrets.values()) == set(entry.secrets)
        # A key that libpq reads from a file is there under its path.
        assert set(profile.child_environment().values()) <= {*entry.secrets, profile.connection().get("sslkey")}
        assert all(variable.startswith("DBT_ENV_SECRET_") for variable in profile.secrets)
