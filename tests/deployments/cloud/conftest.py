"""An account of dbt Cloud on this machine, a client of it, and files that are deployed to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cloud.jobs import ENVIRONMENT, PROJECT, TFVARS, Cloud
from tests.support.cloud.server import Account, serving


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    account = Account()
    account.environments[PROJECT] = {ENVIRONMENT}
    account.project_variables[PROJECT] = {"DBT_REGION", "DBT_ENV_SECRET_KEY"}
    with serving(account) as address:
        yield Cloud(account, address, tmp_path / "state")
    # Whatever a test was about: all that was sent and answered has the published form.
    assert account.mistakes == []


@pytest.fixture
def tfvars(tmp_path: Path) -> Path:
    path = tmp_path / "dev_env.tfvars"
    path.write_text(TFVARS)
    return path
