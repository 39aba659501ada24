from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.services.airbyte.sync_events import (
    AirbyteSync,
    connections_of,
    idempotency_key,
    run_parameters,
    source_names,
    sources_of,
    sync_of,
    syncs_of,
)
from infrastructure.errors import ConfigError
from infrastructure.workspace import EXAMPLE

GOOGLE = "00000000-0000-4000-8000-000000000001"
FACEBOOK = "00000000-0000-4000-8000-000000000002"
CONNECTIONS = {GOOGLE: ("google_ads",), FACEBOOK: ("facebook_ads", "google_ads")}

syncs = st.builds(AirbyteSync, st.uuids().map(str), st.integers(1, 2**63 - 1))


def project_with(folder: Path, sources: str) -> Path:
    (folder / "dbt_project.yml").write_text("name: shop\n")
    (folder / "models" / "staging").mkdir(parents=True)
    (folder / "models" / "staging" / "_sources.yml").write_text(sources)
    return folder


@given(st.lists(syncs, min_size=1, max_size=8))
def test_a_key_does_not_depend_on_order_or_repeats(some: list[AirbyteSync]) -> None:
    assert idempotency_key(some) == idempotency_key([*reversed(some), *some])


@given(st.sets(syncs, min_size=1, max_size=4), st.sets(syncs, min_size=1, max_size=4))
def test_different_syncs_have_different_keys(some: set[AirbyteSync], others: set[AirbyteSync]) -> None:
    assert (idempotency_key(some) == idempotency_key(others)) == (some == others)


def test_a_key_says_what_it_is_for_and_belongs_to_one_deployment() -> None:
    one = AirbyteSync(GOOGLE, 41)
    assert idempotency_key([one], "flow/prod") == f"flow/prod:airbyte-sync:{GOOGLE}:41"
    assert idempotency_key([one], "flow/prod") != idempotency_key([one], "flow/test")


@given(st.lists(syncs))
def test_a_runs_tags_give_its_syncs_back(some: list[AirbyteSync]) -> None:
    tags = ["nightly", "airbyte-sync:nonsense", "airbyte-sync:a:b", *(sync.tag for sync in some)]
    assert syncs_of(tags) == sorted(some)


def test_a_sync_is_read_however_it_is_spelt() -> None:
    assert sync_of(GOOGLE.upper(), "41") == sync_of(GOOGLE.replace("-", ""), 41) == AirbyteSync(GOOGLE, 41)


@pytest.mark.parametrize(
    ("connection", "job"),
    [
        ("abc-123", 1),
        (None, 1),
        ({}, {}),
        (GOOGLE, None),
        (GOOGLE, 0),
        (GOOGLE, -1),
        (GOOGLE, True),
        (GOOGLE, 1.5),
        (GOOGLE, []),
        (GOOGLE, 2**63),
    ],
)
def test_what_names_no_sync_is_none(connection: object, job: object) -> None:
    assert sync_of(connection, job) is None


def test_syncs_that_finish_together_become_one_run_of_the_union() -> None:
    together = [AirbyteSync(FACEBOOK, 7), AirbyteSync(GOOGLE, 42), AirbyteSync(GOOGLE, 41), AirbyteSync("unknown", 1)]
    assert sources_of(together, CONNECTIONS) == ["facebook_ads", "google_ads"]
    parameters = run_parameters(together[:3], CONNECTIONS, "prod")
    assert parameters == {
        "source": ["facebook_ads", "google_ads"],
        "jobs": {GOOGLE: 42, FACEBOOK: 7},
        "target": "prod",
    }


def test_connections_are_those_of_the_projects_source_meta() -> None:
    environ = {"TRIBUTARY_AIRBYTE_GOOGLE_ADS": "7F4E3C52-8A8B-4E0A-9B0F-3F6C2D1E5A90"}
    assert connections_of(EXAMPLE.project, environ) == {
        "00000000-0000-4000-8000-000000000002": ("facebook_ads",),
        "00000000-0000-4000-8000-000000000003": ("supabase",),
        "7f4e3c52-8a8b-4e0a-9b0f-3f6c2d1e5a90": ("google_ads",),
    }
    assert source_names(EXAMPLE.project) == ["facebook_ads", "github", "google_ads", "supabase"]


def test_one_connection_can_load_several_sources_and_one_source_have_several_connections(tmp_path: Path) -> None:
    project = project_with(
        tmp_path,
        f"""
        sources:
          - {{name: shop, meta: {{airbyte_connection_id: {GOOGLE}}}}}
          - name: crm
            config: {{meta: {{airbyte_connection_id: [{GOOGLE}, {FACEBOOK}]}}}}
          - name: erp
            tables:
              - {{name: orders, config: {{meta: {{airbyte_connection_id: "{{{{ env_var('ERP') }}}}"}}}}}}
              - {{name: plain}}
          - {{name: files}}
        """,
    )
    assert connections_of(project, {"ERP": FACEBOOK}) == {GOOGLE: ("crm", "shop"), FACEBOOK: ("crm", "erp")}


def test_an_id_that_is_no_uuid_is_refused_with_its_place(tmp_path: Path) -> None:
    project = project_with(tmp_path, "sources: [{name: shop, meta: {airbyte_connection_id: abc-123}}]")
    with pytest.raises(ConfigError, match=r"'?abc-123'? of source shop in models/staging/_sources\.yml"):
        connections_of(project, {})


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dbt_project\.yml can't be read"):
        connections_of(tmp_path, {})
