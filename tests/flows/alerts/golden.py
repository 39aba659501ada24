"""Every kind of alert, as it goes over the wire; `python -m tests.flows.alerts.golden` writes golden.json anew."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.alerts.incident import Incident, OpenIncident
from flows.alerts.incident_store import Notice
from flows.alerts.send.pagerduty import pagerduty_events
from flows.alerts.send.slack import digest_message, slack_message
from flows.engine.artifacts.results import FailingRows

GOLDEN_FILE = Path(__file__).with_name("golden.json")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SINCE = "2026-11-21T02:04:05+00:00"

TEST_FAILED = Incident(
    key="dbt/test.tributary.unique_fct_musician_payment_payment_id.1a2b3c4d5e",
    severity="critical",
    title="unique_fct_musician_payment_payment_id failed: 12 rows",
    text="Got 12 results, configured to fail if != 0",
    target="prod",
    owners=("Payroll",),
    tags=("gold", "payroll"),
    link="http://127.0.0.1:4200/runs/flow-run/00000000-0000-4000-8000-000000000001",
    retry_command="uv run prefect deployment run dbt-full-pipeline/nightly --param target=prod --param resume=true",
    count=12,
    failing_rows=FailingRows(("unique_field", "n_records"), (("4711", "2"), ("4712", "3"))),
    affects=("Payroll export",),
)
MODEL_FAILED = Incident(
    key="dbt/model.tributary.fct_commits",
    severity="error",
    title="fct_commits failed",
    text='Runtime Error in model fct_commits\n  column "a<b" & c does not exist',
    target="prod",
    owners=("Developer Experience",),
    link=TEST_FAILED.link,
    retry_command=TEST_FAILED.retry_command,
)
WARNED = Incident(
    key="dbt/test.tributary.accepted_values_stg_campaigns_status.99",
    severity="warning",
    title="accepted_values_stg_campaigns_status warns: 3 rows",
    text="Got 3 results, configured to warn if != 0",
    target="prod",
    owners=("Marketing Analytics",),
    count=3,
)
CRASHED = Incident(
    key="flow/dbt-full-pipeline",
    severity="error",
    title="dbt-full-pipeline crashed",
    text="Flow run process exited with non-zero status code -9.",
    target="prod",
    link=TEST_FAILED.link,
)
PERSONAL = replace(
    TEST_FAILED, failing_rows=None, note="Its rows are not shown: they contain personal data.", affects=()
)


def opened(*incidents: Incident, **fields: Any) -> tuple[OpenIncident, ...]:
    return tuple(OpenIncident(incident, SINCE, SINCE, **fields) for incident in incidents)


def mention(owner: str) -> str:
    return {"Payroll": "<!subteam^S0123ABCD>"}.get(owner, owner)


def thousands(count: int) -> tuple[OpenIncident, ...]:
    text = "Database Error: " + "x" * 350
    return opened(
        *(replace(MODEL_FAILED, key=f"dbt/model.a.m{n}", title=f"m{n} failed", text=text) for n in range(count))
    )


def slack(notice: Notice) -> dict[str, Any]:
    return slack_message(notice, mention, NOW)


def pages(notice: Notice) -> list[dict[str, Any]]:
    return [event.document for event in pagerduty_events(notice, "on-call")]


def documents() -> dict[str, Any]:
    """Return every kind by name."""
    told = {"on-call": {"dedup_key": f"tributary/prod/{TEST_FAILED.key}"}}
    closed = opened(TEST_FAILED, closed_at="2026-11-21T08:04:05+00:00", told=told)
    return {
        "slack: new": slack(Notice("prod", new=opened(WARNED, MODEL_FAILED, TEST_FAILED))),
        "slack: rows that are personal": slack(Notice("prod", new=opened(PERSONAL))),
        "slack: crashed": slack(Notice("prod", new=opened(CRASHED))),
        "slack: changed": slack(Notice("prod", changed=opened(MODEL_FAILED), quiet=opened(WARNED))),
        "slack: still failing": slack(Notice("prod", still=opened(MODEL_FAILED))),
        "slack: recovered": slack(Notice("prod", recovered=closed)),
        "slack: one fails as another recovers": slack(Notice("prod", new=opened(MODEL_FAILED), recovered=closed)),
        "slack: digest": digest_message("prod", opened(WARNED)),
        "slack: 10,000 nodes": slack(Notice("prod", new=thousands(10_000))),
        "pagerduty: trigger": pages(Notice("prod", new=opened(TEST_FAILED))),
        "pagerduty: resolve": pages(Notice("prod", recovered=closed)),
        "pagerduty: many": pages(Notice("prod", new=thousands(25))),
    }


if __name__ == "__main__":
    GOLDEN_FILE.write_text(json.dumps(documents(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
