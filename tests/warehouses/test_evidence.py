"""What the dbt project does on Snowflake and BigQuery: real adapters, and local servers that speak their protocols.

Neither adapters nor servers are in the project's environment, and uv makes environments of their own for them, which
take a gigabyte. So they are asked for: TRIBUTARY_TEST_WAREHOUSES=essentials builds every model and compares the rows,
`everything` takes some minutes more and is what the table in README.md was made by.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from infrastructure.targets import ROOT
from tests.warehouses.evidence import READY
from tests.warehouses.table import TABLE_FILE, table_in, table_of

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


@pytest.mark.skipif(_HOW_FAR != "everything", reason="takes minutes: TRIBUTARY_TEST_WAREHOUSES=everything")
def test_what_is_wrong_with_a_sign_in_is_said_in_a_sentence(seen: dict[str, Any]) -> None:
    assert {kind: checks for kind, way in seen["warehouses"].items() if (checks := way.get("checks"))} == {
        "snowflake": {
            "wrong password": "the user or the password is wrong",
            "missing role": "the user cannot take role NO_SUCH_ROLE",
            "unreachable host": "the account's host does not answer",
        },
        "bigquery": {
            "expired key": "Google does not accept the key: it has been deleted or has expired",
            "unreachable host": "nothing listens at that host and port",
        },
    }


@pytest.mark.skipif(_HOW_FAR != "everything", reason="takes minutes: TRIBUTARY_TEST_WAREHOUSES=everything")
@pytest.mark.parametrize("warehouse", OTHERS)
def test_a_connection_that_is_cut_in_mid_run_is_got_over(seen: dict[str, Any], warehouse: str) -> None:
    cut = seen["warehouses"][warehouse]["cut"]

    assert not cut.get("error") and not cut["failed"], cut


@pytest.mark.skipif(_HOW_FAR != "everything", reason="takes minutes: TRIBUTARY_TEST_WAREHOUSES=everything")
@pytest.mark.parametrize("warehouse", OTHERS)
def test_sample_data_and_commits_are_loaded_and_only_what_is_new_is_loaded_again(
    seen: dict[str, Any], warehouse: str
) -> None:
    assert seen["warehouses"][warehouse]["load"].get("ok"), seen["warehouses"][warehouse]["load"]


@pytest.mark.skipif(_HOW_FAR != "everything", reason="takes minutes: TRIBUTARY_TEST_WAREHOUSES=everything")
def test_the_table_in_the_readme_is_what_was_seen(seen: dict[str, Any]) -> None:
    made = table_of(seen)
    assert table_in(TABLE_FILE.read_text(encoding="utf-8")) == made, f"{TABLE_FILE.name} should have:\n{made}"
