"""The DuckDB path never imports another warehouse's client, which would cost every run seconds."""

from __future__ import annotations

from pathlib import Path

from tests.warehouses.imports import clients_imported, installed


def test_a_run_on_duckdb_imports_no_other_client(tmp_path: Path) -> None:
    """With every client there is in this environment; tests/warehouses/test_evidence.py has them all."""
    assert "postgres" in installed()

    imported = clients_imported(tmp_path)

    assert imported.pop("other", []) == []
    assert imported == {"flow": [], "dbt": []}
