"""What the dbt project does on Snowflake and BigQuery: real adapters, and local servers that speak their protocols.

Neither adapters nor servers are in the project's environment, and uv makes environments of their own for them, which
take a gigabyte. So they are asked for: TRIBUTARY_TEST_WAREHOUSES=essentials builds every model and compares the rows,
`everything` takes some minutes more and writes the tables in docs/warehouses.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest

from infrastructure.workspace import ROOT
from tests.warehouses.evidence import READY
from tests.warehouses.table import COMMANDS, TABLE_FILE, tables_of, who_tried_again, with_tables

_HOW_FAR = os.environ.get("TRIBUTARY_TEST_WAREHOUSES")
OTHERS = ["snowflake", "bigquery"]
# Seeds, snapshots and models of the project.
NODES = 39


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what came of every command, by warehouse."""
    if _HOW_FAR not in ("essentials", "everything"):
        pytest.skip("takes minutes and a gigabyte: TRIBUTARY_TEST_WAREHOUSES=essentials, or =everything")
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on the path, which makes the environments of the adapters and of the local servers")
    extras = ["--extra", "postgres", "--extra", "snowflake", "--extra", "bigquery"]
    command = [uv, "run", "--isolated", *extras, "python", "-m", "tests.warehouses.evidence"]
    if _HOW_FAR == "everything":
        server = json.dumps(request.getfixturevalue("postgres_database"))
        command += ["--everything", "--warehouses", "duckdb,postgres,snowflake,bigquery", "--postgres", server]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if READY not in run.stdout:
        pytest.skip(f"uv cannot make the environment with the other adapters here: {run.stderr.strip()[-300:]}")
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("warehouse", ["duckdb", *OTHERS])
def test_every_seed_snapshot_and_model_is_built(seen: dict[str, Any], warehouse: str) -> None:
    built = seen["warehouses"][warehouse]["build"]

    assert not built.get("error") and not built["failed"], built
    assert built["counts"]["succeeded"] + built["counts"]["warned"] == sum(built["counts"].values()) >= NODES


@pytest.mark.parametrize("warehouse", OTHERS)
def test_every_model_has_the_rows_that_it_has_on_duckdb(seen: dict[str, Any], warehouse: str) -> None:
    """Also the incremental ones, after a second sync."""
    expected, found = seen["warehouses"]["duckdb"]["rows"], seen["warehouses"][warehouse]["rows"]
    assert expected.keys() == found.keys()
    for model, rows in expected.items():
        assert found[model] == rows, model


@pytest.mark.parametrize("warehouse", OTHERS)
def test_every_ratio_is_rounded_once_and_half_away_from_zero(seen: dict[str, Any], warehouse: str) -> None:
    assert seen["warehouses"][warehouse]["ratios"] == []


def test_every_statement_and_session_on_snowflake_says_whose_it_is(seen: dict[str, Any]) -> None:
    said = seen["warehouses"]["snowflake"]["said"]

    assert said["nodes"] >= NODES
    assert said["unsaid"] == []
    assert said["query_tags"] == [{"app": "dbt", "flow_run_id": "snowflake-build", "target": "snowflake"}]


def test_every_job_on_bigquery_says_its_run_target_and_node_as_labels_can(seen: dict[str, Any]) -> None:
    labels = seen["warehouses"]["bigquery"]["labels"]

    assert labels["flow_run_id"] == "bigquery-build"
    assert labels["target_name"] == "bigquery"
    assert labels["node_id"].startswith("model_tributary_")


@pytest.mark.parametrize(
    ("warehouse", "figure"), [("snowflake", "query_id"), ("bigquery", "job_id"), ("bigquery", "bytes_processed")]
)
def test_the_warehouses_figures_reach_the_result(seen: dict[str, Any], warehouse: str, figure: str) -> None:
    assert all(figure in figures for figures in seen["warehouses"][warehouse]["build"]["figures"])


@pytest.mark.parametrize("warehouse", OTHERS)
def test_a_load_says_at_once_that_nothing_listens(seen: dict[str, Any], warehouse: str) -> None:
    said = seen["warehouses"][warehouse]["load into nowhere"]

    assert said.startswith(f"Target {warehouse}: nothing listens at 127.0.0.1:9. Start the server, or correct")


def test_a_run_on_duckdb_imports_no_other_client_though_all_are_installed(seen: dict[str, Any]) -> None:
    assert seen["imports"]["installed"] == ["postgres", "snowflake", "bigquery"]
    imported = seen["imports"]["imported"]
    assert imported.pop("other", []) == []
    assert imported == {"flow": [], "dbt": []}


_everything = pytest.mark.skipif(_HOW_FAR != "everything", reason="takes minutes: TRIBUTARY_TEST_WAREHOUSES=everything")


@_everything
def test_what_is_wrong_with_the_settings_for_snowflake_is_said_in_a_sentence(seen: dict[str, Any]) -> None:
    port = "127.0.0.1:9"
    assert seen["warehouses"]["snowflake"]["checks"] == {
        "wrong password": "the user or the password is wrong",
        "key pair of somebody else": "Snowflake does not accept the key pair",
        "expired token": "the token has expired",
        "missing role": "the user cannot take role NO_SUCH_ROLE",
        "missing warehouse": "there is no warehouse NO_SUCH_WAREHOUSE, or the role may not use it",
        "missing database": "there is no database NO_SUCH_DATABASE, or the role may not use it",
        "unreachable host": f"nothing listens at {port}",
        "unknown host": "there is no host no-such-account.invalid",
        "encrypted key pair": "",
    }


@_everything
def test_what_is_wrong_with_the_settings_for_bigquery_is_said_in_a_sentence(seen: dict[str, Any]) -> None:
    nowhere = "demo-project.nowhere"
    assert seen["warehouses"]["bigquery"]["checks"] == {
        "expired key": "Google does not accept the key: it has been deleted or has expired",
        "revoked refresh token": "the token has expired or been revoked",
        "expired token": "the token has expired or is not valid",
        "wrong region": "dataset demo-project.dev is in location US, not in EU",
        "missing dataset": f"there is no dataset {nowhere} yet: the first run creates it in US, if the account may",
        "unreachable host": "nothing listens at 127.0.0.1:9",
        "unknown host": "there is no host no-such-endpoint.invalid",
        "access token": "",
        "refresh token": "",
    }


@_everything
@pytest.mark.parametrize(
    ("warehouse", "run"), [("snowflake", "faults"), ("bigquery", "faults"), ("bigquery", "faults, client retries")]
)
def test_what_goes_wrong_in_mid_run_is_got_over(seen: dict[str, Any], warehouse: str, run: str) -> None:
    for fault, came_of_it in seen["warehouses"][warehouse][run].items():
        assert came_of_it["hits"], f"{fault} did not come about"
        assert came_of_it["outcome"] == "succeeded", f"{fault}: {came_of_it}"


@_everything
def test_what_the_client_gives_up_tributary_tries_again(seen: dict[str, Any]) -> None:
    snowflake, bigquery = (
        {fault: who_tried_again(came) for fault, came in seen["warehouses"][name]["faults"].items()} for name in OTHERS
    )

    assert [fault for fault, who in snowflake.items() if who == "Tributary"] == [
        "internal error",
        "lock held too long",
        "session gone",
    ]
    assert "Tributary" in bigquery.values()


@_everything
@pytest.mark.parametrize("warehouse", OTHERS)
def test_sample_data_and_commits_are_loaded_and_only_what_is_new_is_loaded_again(
    seen: dict[str, Any], warehouse: str
) -> None:
    assert seen["warehouses"][warehouse]["load"].get("ok"), seen["warehouses"][warehouse]["load"]


@_everything
def test_every_command_ends_well_everywhere_and_the_tables_say_so(seen: dict[str, Any]) -> None:
    text = TABLE_FILE.read_text(encoding="utf-8")
    tables = tables_of(seen, f"{datetime.now(UTC):%-d %B %Y}")
    TABLE_FILE.write_text(with_tables(text, tables), encoding="utf-8")

    bad = {
        f"{command} on {name}": way.get(command)
        for name, way in seen["warehouses"].items()
        for command in COMMANDS
        if command not in way
        or "error" in way[command]
        or way[command].get("failed")
        or not way[command].get("ok", True)
    }
    assert not bad, bad
