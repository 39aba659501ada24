"""Which failures are worth another try, and what people are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.engine.artifacts.results import DbtResult, NodeResult, Stopped
from flows.engine.ledger.failures import crash_of, failure_of, log_of, retryable
from infrastructure.errors import ConfigError, DbtRunFailed
from infrastructure.plain_text import one_line

AT = datetime(2026, 1, 31, tzinfo=UTC)

CONFIGURATION = [
    "Runtime Error\n  Could not find profile named 'shop'",
    "Runtime Error\n  The profile 'shop' does not have a target named 'prd'.",
    "Error: No such option: --selct",
    "Encountered an error:\nRuntime Error\n  dbt found 2 package(s) specified in packages.yml, but only 0 package(s) "
    'installed in dbt_packages. Run "dbt deps" to install package dependencies.',
    "Parsing Error\n  Env var required but not provided: 'SHOP_SCHEMA'",
    "Runtime Error\n  Could not find selector named nightly, expected one of []",
    "Runtime Error\n  dbt cannot run because no profile was specified. Yours are in /home/profiles.yml",
]
FAILED_RUNS = [
    "Compilation Error\n  Model 'model.shop.a' (models/a.sql) depends on a node named 'b' which was not found",
    'Parser Error: syntax error at or near "form"',
    "",
]


@pytest.mark.parametrize("said", CONFIGURATION)
def test_what_a_person_has_to_mend_is_a_configuration_error(said: str) -> None:
    error = crash_of("dbt build", "dev", 2, said, Path("/run"), "duckdb")
    assert isinstance(error, ConfigError)
    assert str(error).startswith("dbt build could not start on target dev: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize("said", FAILED_RUNS)
def test_other_crashes_are_failed_runs_with_the_log(said: str) -> None:
    error = crash_of("dbt build", "dev", 2, said, Path("/run"), "duckdb")
    assert isinstance(error, DbtRunFailed)
    assert not error.is_transient
    assert str(error).endswith(f"Log: {log_of(Path('/run'))}")
    assert said[:20].split("\n")[0] in str(error)


def test_a_lost_connection_before_any_node_can_be_tried_again() -> None:
    said = 'Encountered an error:\nDatabase Error\n  connection to server at "h" failed: Connection refused'
    error = crash_of("dbt build", "prod", 2, said, Path("/run"), "postgres")
    assert isinstance(error, DbtRunFailed)
    assert error.is_transient


def test_a_child_that_was_killed_is_not_tried_again() -> None:
    error = crash_of("dbt build", "dev", -9, "Connection refused", Path("/run"), "duckdb")
    assert isinstance(error, DbtRunFailed)
    assert not error.is_transient
    assert "was ended from outside (signal 9)" in str(error)


def node(name: str, status: str, message: str = "") -> NodeResult:
    return NodeResult(f"model.shop.{name}", name, "model", "table", status, AT, AT, message)


LOCKED = "IO Error: Could not set lock on file"


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("a", "error", LOCKED), node("b", "success"), node("c", "skipped")], True),
        ([node("a", "error", LOCKED), node("b", "error", "Binder Error")], False),
        ([node("a", "fail", LOCKED)], False),
        ([node("a", "success")], False),
        ([], False),
    ],
)
def test_only_all_transient_failures_are_tried_again(nodes: list[NodeResult], expected: bool) -> None:
    assert retryable(nodes, "duckdb") is expected


def test_a_failure_names_the_first_five_nodes_the_reason_and_the_log() -> None:
    nodes = tuple(node(f"n{number}", "error", "Binder Error:\n  no column") for number in range(7))
    result = DbtResult("dbt build", "dev", (*nodes, node("z", "skipped")), AT, AT, Path("/t"), Path("/run"))
    error = failure_of(result, "duckdb")
    assert str(error) == (
        "n0 failed: Binder Error: no column. "
        "dbt build failed on target dev for 7 of 8 nodes: n0, n1, n2, n3, n4 and 2 more."
        f" 1 was skipped because of them. Log: {log_of(Path('/run'))}"
    )
    assert (len(error.failed), error.skipped, error.is_transient) == (7, ("model.shop.z",), False)


def test_a_long_message_is_cut_for_a_sentence() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("x" * 400) == "x" * 299 + "…"


def test_only_a_dbt_that_got_to_its_end_tells_by_its_nodes_what_is_wrong() -> None:
    """What a crash, or the end of its time, has left undone is no evidence of anything."""
    done, failed = (NodeResult(f"test.shop.{s}", s, "test", "test", s, AT, AT) for s in ("pass", "fail"))
    result = DbtResult("dbt test", "dev", (done, failed), AT, AT, Path("/target"), Path("/run"))
    error = failure_of(result, "duckdb")
    assert error.finished_result is None
    error.result = result
    assert error.finished_result is result
    error.result = replace(result, stopped=Stopped(2, (), 1))
    assert error.finished_result is None
    crash = crash_of("dbt test", "dev", -9, "", Path("/run"), "duckdb")
    assert isinstance(crash, DbtRunFailed)
    crash.result = result
    assert crash.finished_result is None
