"""The receiver's description of its API, and what it answers to whatever can be made of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from deployments.webhook.inbox.delivery import read_delivery
from deployments.webhook.receive.openapi import description
from tests.support.webhook.deliveries import body, flat, notification

ROOT = Path(__file__).parents[3]
# The kind of answer that each part of the door gives: stored, nothing to do, wrong secret, no JSON, wrong shape.
EXPECTED = {"202", "200", "401", "400", "422"}


def test_what_airbyte_sends_is_what_the_description_allows() -> None:
    document = description(1000)
    schema = {
        "$ref": "#/components/schemas/Body",
        "components": {
            "schemas": document["components"]["schemas"]
            | {
                "Body": document["paths"]["/webhooks/airbyte"]["post"]["requestBody"]["content"]["application/json"][
                    "schema"
                ]
            }
        },
    }
    check = jsonschema.Draft202012Validator(schema)
    for said in (notification(), notification(success=False), flat(), flat(jobId="7"), {"text": "hello"}):
        check.validate(said)
        read_delivery(body(said))
    assert not check.is_valid(notification(job_id=0))
    assert not check.is_valid({"data": {}})


def test_no_request_however_hostile_makes_the_receiver_fail() -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv, for an environment of its own")
    command = [uv, "run", "--quiet", "--isolated", "--no-default-groups", "--group", "hostile", "python"]
    done = subprocess.run(
        [*command, "-m", "tests.deployments.webhook.hostile", "400"], cwd=ROOT, capture_output=True, text=True
    )
    if "environment is there" not in done.stdout:
        pytest.skip(f"uv cannot make the environment of group `hostile` here: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["cases"] >= 400
    assert found["stored"] > 0
    assert set(found["statuses"]) == EXPECTED
