"""A secret that is saved in a block is found nowhere else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from flows.engine.process import door
from flows.engine.process.process import DbtProcess
from flows.pipelines.full import dbt_full_pipeline
from infrastructure.errors import DbtRunFailed
from infrastructure.profiles import load_profile
from tests.support.prefect_api import SetUpTarget, ask
from tests.support.projects import PROJECTS
from tests.support.recorded import Recorded

# What a worker may have in its environment besides: none of it is dbt's business.
PLANTED = ("SLACK_WEBHOOK_URL", "AIRBYTE_CLIENT_SECRET", "PREFECT_CLIENT_CUSTOM_HEADERS_NOTE", "OTHER_TARGETS_PASSWORD")


@pytest.fixture
def login(postgres_database: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make a role that may do everything in the database, with a password that nothing else holds."""
    import psycopg2

    user, password = f"tributary_{uuid4().hex[:8]}", f"geheim-{uuid4().hex}"
    with closing(psycopg2.connect(**postgres_database)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"create role {user} login password '{password}'")
            cursor.execute(f"grant all on database {postgres_database['dbname']} to {user}")
            yield {**postgres_database, "user": user, "password": password}
            cursor.execute(f"drop owned by {user} cascade")
            cursor.execute(f"drop role {user}")


def files_with(folder: Path, secret: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_secret_is_found_in_its_block_and_nowhere_else(
    login: dict[str, Any],
    prefect_server: str,
    set_up_target: SetUpTarget,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = login["password"]
    settings = {
        "warehouse": "postgres",
        **{name: login[name] for name in ("host", "port", "user", "dbname")},
        "password_env": "SHOP_PASSWORD",
        "credentials_block": f"c{uuid4().hex[:8]}",
        "schema": f"s{uuid4().hex[:8]}",
    }
    target = set_up_target(settings, {"SHOP_PASSWORD": secret})
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    # What OpenLineage is told goes into a file that is searched as well.
    lineage = tmp_path / "lineage.jsonl"
    transport = {"type": "file", "log_file_path": str(lineage), "append": True}
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT", json.dumps(transport))
    for name in PLANTED:
        monkeypatch.setenv(name, secret)
    children: list[tuple[Sequence[str], Mapping[str, str]]] = []

    class Watched(DbtProcess):
        def __init__(self, argv: Sequence[str], environment: Mapping[str, str], *rest: Any) -> None:
            children.append((argv, environment))
            super().__init__(argv, environment, *rest)

    monkeypatch.setattr(door, "DbtProcess", Watched)
    state = dbt_full_pipeline(
        target=target, project_dir=str(PROJECTS / "outcomes"), docs=True, vars={"a": 1}, return_state=True
    )

    error = state.result(raise_on_failure=False)
    assert isinstance(error, DbtRunFailed)
    assert "model.outcomes.wrong_sql" in error.failed, "it did sign in, and got as far as the wrong SQL"
    assert state.state_details.flow_run_id
    recorded = Recorded(prefect_server, state.state_details.flow_run_id)
    node_runs = recorded.node_runs(len(error.result.nodes))

    for _, environment in children:
        assert [name for name, value in environment.items() if secret in value] == [
            name for name in environment if name.startswith("DBT_ENV_SECRET_")
        ]
    profiles = (error.result.target_path.parent / "profiles" / "profiles.yml").read_text()
    assert "DBT_ENV_SECRET_" in profiles
    printed = capfd.readouterr()
    blocks = ask("POST", f"{prefect_server}/block_documents/filter", json={"include_secrets": False})
    assert target in blocks.text
    places = {
        "argv": " ".join(word for argv, _ in children for word in argv),
        "profiles.yml": profiles,
        "what was printed": printed.out + printed.err,
        "the error": f"{error!r} {error} {error.result!r}",
        "the profile": repr(load_profile(target)),
        "the flow run": json.dumps(recorded.flow_run()),
        "task runs": json.dumps([*node_runs.values(), *recorded.task_runs()]),
        "logs": json.dumps(recorded.logs()),
        "artifacts": json.dumps(recorded.artifacts()),
        "blocks without secrets": blocks.text,
        "our own environment": json.dumps({k: v for k, v in os.environ.items() if k not in PLANTED}),
    }
    assert [place for place, text in places.items() if secret in text] == []
    assert all(places.values())
    assert files_with(tmp_path, secret) == []
    assert login["host"] in lineage.read_text(), "events were sent"
    assert list((tmp_path / "state").rglob("run.log")), "the state folder is the one that was searched"
    assert files_with(Path(os.environ["PREFECT_HOME"]), secret) == [], "the server keeps the block encrypted"
    assert load_profile(target).connection()["password"] == secret
