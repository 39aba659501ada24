"""What the process has behind it that this project's programs and Prefect's are forked from; run by its path.

This project's own modules are not among it: they are imported in each child, as ever.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PROGRAMS = (
    "flows",
    "infrastructure.setup_profiles",
    "deployments.apply",
    "deployments.webhook",
    "prefect",
    "tests.support.hold_target",
    "tests.support.witnessed_build",
)
_PREFECT = (
    "prefect.main",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.deployments",
    "prefect.cli._server_utils",
    "prefect.server.api.server",
)
_OTHERS = ("duckdb", "networkx", "psycopg2", "rich.console", "rich.table", "sqlglot", "tenacity", "yaml")


def warm_up() -> None:
    """Import Prefect, its server, and what this project uses."""
    for name in _PREFECT:
        importlib.import_module(name)
    for name in _OTHERS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def after_fork(module: str) -> None:
    """Have Prefect read its settings as it is imported: a program may set some of them before."""
    if module == "prefect":
        _read_settings()
        return
    hidden = {name: found for name, found in sys.modules.items() if name.partition(".")[0] == "prefect"}
    for name in hidden:
        del sys.modules[name]
    sys.meta_path.insert(0, _Hidden(hidden))


def _read_settings() -> None:
    from prefect import context
    from prefect.logging import configuration

    logging.root.handlers.clear()
    context.refresh_global_settings_context()
    configuration.PROCESS_LOGGING_CONFIG.clear()
    configuration.setup_logging()


class _Hidden(MetaPathFinder, Loader):
    """Give Prefect's modules back when the first of them is imported."""

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self._modules = modules
        self._spec = modules["prefect"].__spec__

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what gives all of them back, for Prefect."""
        return ModuleSpec(fullname, self, is_package=True) if fullname == "prefect" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that was there."""
        sys.modules.update(self._modules)
        return self._modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Do what Prefect does with its settings when it is imported."""
        sys.meta_path.remove(self)
        module.__spec__ = self._spec
        _read_settings()
