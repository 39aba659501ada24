"""How a dbt child starts is what these tests are about."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def as_a_run_starts_them(cold_dbt: None) -> None:
    """Start dbt children as a run does."""
