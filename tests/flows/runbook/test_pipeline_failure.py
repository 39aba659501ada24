"""pipeline_failure against a stand-in for Airbyte, a real database and a real build."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from prefect.blocks.system import Secret

from flows.__main__ import main
from flows.alerts.incident_store import store_of
from flows.runbook.pipeline_failure.flow import lines_of, pipeline_failure
from flows.runbook.pipeline_failure.source_database import VARIABLE, check_source_database
from flows.services.airbyte.sync_health import incident_key
from tests.support.airbyte.server import AirbyteServer
from tests.support.prefect_api import SetUpTarget
from tests.support.processes import free_port
from tests.support.projects import PROJECTS, deliver_payments

CONNECTION = "9b1f3a52-6c1e-4a3c-8f0e-1d2c3b4a5f60"

PROJECT = str(PROJECTS / "orchestra")


@pytest.fixture
def known_airbyte(airbyte: AirbyteServer, prefect_server: str) -> Iterator[AirbyteServer]:
    """Register the stand-in as setup does."""
    Secret(value=airbyte.api_url).save("airbyte-api-url", overwrite=True)
    yield airbyte
    Secret.delete("airbyte-api-url")


def open_keys(target: str) -> list[str]:
    entries = store_of(target, os.environ).read().incidents.values()
    return [entry.incident.key for entry in entries if entry.closed_at is None]


def test_a_failed_sync_is_explained_started_again_and_built_on(
    known_airbyte: AirbyteServer, set_up_target: SetUpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = set_up_target()
    deliver_payments(target, hours_ago=200)
    monkeypatch.setenv(VARIABLE, f"postgresql://reader:secret-word@127.0.0.1:{free_port()}/office")
    known_airbyte.add_connection(CONNECTION, "Office")
    failed = known_airbyte.add_job(CONNECTION, "failed", reason="The password of reader has expired.")

    asked = ["pipeline-failure", "--target", target, "--project-dir", PROJECT]
    said = CliRunner().invoke(main, asked)
    assert said.exit_code == 1, said.output
    assert f"- connection Office is failed: job {failed} failed (The password of reader has expired.)" in said.output
    assert "does not answer: Connection refused" in said.output and "secret-word" not in said.output
    assert "source office.pay is of " in said.output
    assert "5 models depend on it, and people read: payroll_file" in said.output
    assert {incident_key(CONNECTION), "source database/reachable"} <= set(open_keys(target))
    assert not known_airbyte.asked("POST /jobs"), "nothing is started without consent"

    monkeypatch.delenv(VARIABLE)
    found = pipeline_failure(target, PROJECT, restart="yes")
    assert found.is_well and list(found.restarted) == [CONNECTION]
    assert len(known_airbyte.asked("POST /jobs")) == 1
    assert found.build is not None and "fct_musician_payment" in {node.name for node in found.build.nodes}
    assert incident_key(CONNECTION) not in open_keys(target)


def test_an_airbyte_that_is_away_is_what_was_to_be_found_out(
    prefect_server: str, set_up_target: SetUpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.runbook.pipeline_failure import flow as module
    from flows.services.airbyte import client as airbyte

    target = set_up_target()
    patient = airbyte.SyncPatience(sleep=lambda _: None)
    away = airbyte.AirbyteClient(f"http://127.0.0.1:{free_port()}/api/public/v1", patience=patient)
    monkeypatch.setattr(module, "find_airbyte", lambda *_: away)
    monkeypatch.setattr(module, "_stale", lambda *_: [])
    found = pipeline_failure(target, PROJECT, restart="yes")
    assert not found.is_well and not found.restarted
    assert lines_of(found)[0].startswith("Airbyte does not answer: Airbyte at http://127.0.0.1:")
    assert "airbyte/server" in open_keys(target)


def test_the_source_database_is_signed_in_to(postgres_database: dict[str, Any]) -> None:
    place = "{host}:{port}".format(**postgres_database)
    user = "{user}:{password}".format(**postgres_database)
    good = check_source_database({VARIABLE: f"postgresql://{user}@{place}/{postgres_database['dbname']}"})
    assert good is not None and good.error is None
    assert str(good) == f"the source database at {place} answers (login)"
    bad = check_source_database({VARIABLE: f"postgresql://{user}@{place}/no_such_database"})
    assert bad is not None and "no_such_database" in str(bad.error)
    assert check_source_database({}) is None
    odd = check_source_database({VARIABLE: "office"})
    assert odd is not None and "is not an address such as" in str(odd.error)
