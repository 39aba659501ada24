"""What the environment says of proxies."""

from __future__ import annotations

import os

import pytest


def no_proxy_but(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment name these proxies, and no others."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
