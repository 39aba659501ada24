"""Setting up on a real Prefect server: a second run changes nothing, and nothing shows a secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infrastructure.blocks.documents import BlockDocument, change_of
from infrastructure.errors import ConfigError, DriftError
from infrastructure.plan import Plan
from infrastructure.profiles import load_profile
from infrastructure.registration import LimitChange, apply, declare, plan
from infrastructure.targets.target_file import load_targets
from tests.support.environments import Environments
from tests.support.prefect_api import ask, delete_block

POSTGRES = {
    "warehouse": "postgres",
    "host": "h",
    "user": "u",
    "dbname": "d",
    "schema": "s",
    "password_env": "PG_PASSWORD",
}


def _set_up(path: Path, environ: dict[str, str]) -> Plan:
    from infrastructure.server.client import connect

    with connect() as server:
        planned = plan(server, declare(load_targets(path, environ), environ))
        apply(server, planned)
        return planned


def _planned(path: Path, environ: dict[str, str]) -> Plan:
    from infrastructure.server.client import connect

    with connect() as server:
        return plan(server, declare(load_targets(path, environ), environ))


def _actions(planned: Plan) -> dict[str, str]:
    return {change.name: change.action for change in planned.changes}


def _postgres(write_targets: Callable[..., Path], name: str, **changed: Any) -> Path:
    return write_targets(**{name: POSTGRES | {"credentials_block": name} | changed})


def test_planning_changes_nothing(prefect_server: str, fresh: str, write_targets: Callable[..., Path]) -> None:
    path = _postgres(write_targets, fresh)
    first = _planned(path, {"PG_PASSWORD": "geheim"})

    assert set(_actions(first).values()) == {"create"}
    assert _actions(_planned(path, {"PG_PASSWORD": "geheim"})) == _actions(first)


def test_a_new_password_reaches_the_next_run_and_changes_one_block(
    prefect_server: str, fresh: str, write_targets: Callable[..., Path]
) -> None:
    path = _postgres(write_targets, fresh)
    _set_up(path, {"PG_PASSWORD": "old-geheim"})
    before = load_profile(fresh)
    changed = _set_up(path, {"PG_PASSWORD": "new-geheim"})

    assert before.connection()["password"] == "old-geheim"
    assert load_profile(fresh).connection()["password"] == "new-geheim"
    assert load_profile(fresh).output == before.output
    (change,) = [change for change in changed.changes if change.is_change]
    assert change.name == f"sqlalchemy-connector/{fresh}"
    assert [(f.path, f.old, f.new) for f in change.fields] == [("connection_info.password", "(secret)", "(secret)")]


def test_a_setting_that_is_taken_out_is_taken_out_of_the_blocks(
    prefect_server: str, fresh: str, write_targets: Callable[..., Path]
) -> None:
    environ = {"PG_PASSWORD": "geheim"}
    _set_up(_postgres(write_targets, fresh, sslmode="require", role="r"), environ)
    assert load_profile(fresh).output["sslmode"] == "require"
    path = _postgres(write_targets, fresh)
    _set_up(path, environ)

    assert not {"sslmode", "role"} & set(load_profile(fresh).output)
    assert _planned(path, environ).is_empty


def test_a_profile_as_the_documentation_makes_it_is_brought_to_the_safe_form(
    prefect_server: str, fresh: str, write_targets: Callable[..., Path]
) -> None:
    from infrastructure.blocks.documents import Reference
    from infrastructure.server.client import connect

    configs = BlockDocument("dbt-cli-target-configs", fresh, {"type": "postgres", "schema": "s"})
    reference = Reference(configs.type_slug, configs.name)
    data = {"name": "shop", "target": fresh, "target_configs": reference}
    profile = BlockDocument("dbt-cli-profile", f"dbt-cli-profile-{fresh}", data)
    with connect() as server:
        for document in (configs, profile):
            server.save_block(change_of(document, None))
    with pytest.raises(ConfigError, match="holds credentials itself"):
        load_profile(fresh)

    planned = _set_up(_postgres(write_targets, fresh), {"PG_PASSWORD": "geheim"})
    assert _actions(planned)[profile.slug] == "update"
    assert load_profile(fresh).connection()["password"] == "geheim"


def test_the_limit_is_made_and_corrected(prefect_server: str, fresh: str, write_targets: Callable[..., Path]) -> None:
    from infrastructure.server.client import connect

    path = write_targets(**{fresh: {"warehouse": "duckdb", "path": "x.duckdb", "schema": "s"}})
    _set_up(path, {})
    with connect() as server:
        assert server.read_limit(f"dbt-{fresh}") == 1
        server.save_limit(f"dbt-{fresh}", 5)

    planned = _set_up(path, {})
    assert [(limit.action, limit.old) for limit in planned.only(LimitChange)] == [("update", 5)]
    with connect() as server:
        assert server.read_limit(f"dbt-{fresh}") == 1


def test_a_limit_that_is_switched_off_is_switched_on(
    prefect_server: str, fresh: str, write_targets: Callable[..., Path]
) -> None:
    path = write_targets(**{fresh: {"warehouse": "duckdb", "path": "x.duckdb", "schema": "s"}})
    _set_up(path, {})
    address = f"{prefect_server}/v2/concurrency_limits/dbt-{fresh}"
    ask("PATCH", address, json={"active": False})

    assert _actions(_set_up(path, {}))[f"dbt-{fresh}"] == "create"
    assert ask("GET", address).json()["active"] is True
    assert _planned(path, {}).is_empty


def test_a_block_that_vanishes_between_plan_and_change_is_reported(
    prefect_server: str, fresh: str, write_targets: Callable[..., Path]
) -> None:
    from infrastructure.server.client import connect

    path, environ = _postgres(write_targets, fresh), {"PG_PASSWORD": "geheim"}
    _set_up(path, environ)
    path = _postgres(write_targets, fresh, threads=8)
    planned = _planned(path, environ)
    delete_block(prefect_server, "dbt-cli-profile", f"dbt-cli-profile-{fresh}")

    with pytest.raises(DriftError, match="has been deleted since this was planned"), connect() as server:
        apply(server, planned)


def test_a_block_that_somebody_else_makes_meanwhile_is_brought_to_what_is_declared(
    prefect_server: str, fresh: str, write_targets: Callable[..., Path]
) -> None:
    from infrastructure.server.client import connect

    path = _postgres(write_targets, fresh)
    planned = _planned(path, {"PG_PASSWORD": "geheim"})
    _set_up(path, {"PG_PASSWORD": "of somebody else"})
    with connect() as server:
        apply(server, planned)

    assert load_profile(fresh).connection()["password"] == "geheim"


def test_prefect_still_shows_objects_in_its_secret_block(prefect_server: str, fresh: str) -> None:
    # Why airbyte_documents() keeps one text per block. When this fails, Prefect hides them: they may be one.
    from infrastructure.server.client import connect

    with connect() as server:
        server.save_block(change_of(BlockDocument("secret", fresh, {"value": {"id": "not-hidden"}}), None))
    address = f"{prefect_server}/block_types/slug/secret/block_documents/name/{fresh}"
    assert "not-hidden" in ask("GET", address, params={"include_secrets": False}).text


def test_what_lacks_variables_is_passed_over_with_their_names(write_targets: Callable[..., Path]) -> None:
    path = write_targets(
        default="dev",
        extra={"slack_webhook": {"url_env": "SLACK_URL"}},
        dev={"warehouse": "duckdb", "path": "x.duckdb", "schema": "s"},
        pg=POSTGRES | {"host": "${PG_HOST}"},
    )
    declared = declare(load_targets(path, {}), {})

    assert declared.targets == ("dev",)
    assert [str(entry) for entry in declared.passed_over] == [
        "pg: PG_HOST and PG_PASSWORD are not set",
        "slack_webhook: SLACK_URL is not set",
    ]


def test_a_target_that_is_asked_for_and_lacks_variables_is_an_error(
    write_targets: Callable[..., Path],
) -> None:
    path = write_targets(pg=POSTGRES)
    with pytest.raises(ConfigError, match=r"Target pg: PG_PASSWORD is not set\.\nSet PG_PASSWORD and run the same"):
        declare(load_targets(path, {}), {}, ["pg"])


def test_services_are_set_up_only_when_no_target_is_named(every_sign_in: Environments) -> None:
    declared = declare(every_sign_in.load(), every_sign_in.environ, ["duckdb"])

    assert [document.slug for document in declared.documents] == [
        "dbt-cli-target-configs/duckdb-target-configs-duckdb",
        "dbt-cli-profile/dbt-cli-profile-duckdb",
    ]
    assert declared.targets == ("duckdb",)


def test_a_password_that_is_part_of_a_name_is_warned_about(write_targets: Callable[..., Path]) -> None:
    # dbt would log model.*****.orders, and nobody could tell which node that is.
    path = write_targets(pg=POSTGRES | {"dbname": "tributary_dev"})
    (warning,) = declare(load_targets(path, {}), {"PG_PASSWORD": "tributary"}).warnings

    assert warning.startswith("pg: a secret of this target is also a part of its profile (tributary), dbname (trib")
    assert declare(load_targets(path, {}), {"PG_PASSWORD": "9nTkQ2"}).warnings == ()
