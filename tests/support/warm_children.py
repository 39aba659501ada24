"""The children of the tests, forked from what has imported dbt, or Prefect and this project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import warm_dbt
from tests.support import warm_flows
from tests.support.forks import ForkServer, warm_popen

DBT = (sys.executable, "-c", "from dbt.cli.main import cli; cli.main(prog_name='dbt')")


@contextmanager
def warm_children() -> Iterator[None]:
    """Fork dbt, Prefect and this project's programs while the block runs, where the system has a way to."""
    if sys.platform != "linux":
        yield
        return
    from flows.engine.process.engines import OWN_DBT
    from infrastructure.connection_check import check

    dbt = ForkServer(Path(warm_dbt.__file__), [DBT, OWN_DBT, (sys.executable, "-c", check._DBT)])
    programs = [(sys.executable, "-m", name) for name in warm_flows.PROGRAMS]
    modules = ForkServer(Path(warm_flows.__file__), programs, base=dbt)
    cold, subprocess.Popen = subprocess.Popen, warm_popen(modules, dbt)  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = cold  # type: ignore[misc]
        modules.close()
        dbt.close()
