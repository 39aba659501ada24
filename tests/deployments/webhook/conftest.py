"""Deployments to start, and receivers that run as they would in production."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.support.prefect_api import post
from tests.support.webhook.receiver import Deployment


@pytest.fixture
def deployment(prefect_server: str) -> Deployment:
    """Make a deployment of its own for a test."""
    name = f"test-{uuid4().hex[:8]}"
    flow = post(prefect_server, "/flows/", {"name": "dbt-transformation-flow"})
    made = post(prefect_server, "/deployments/", {"name": name, "flow_id": flow["id"]})
    return Deployment(prefect_server, f"dbt-transformation-flow/{name}", made["id"])
