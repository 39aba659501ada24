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
# Prints the selected nodes of every selector; one process, so that the project is parsed once.
DBT_SELECTORS = (
    sys.executable,
    "-c",
    """
import json, sys
from dbt.cli.main import dbtRunner

options, names = json.loads(sys.argv[1]), json.loads(sys.argv[2])
found = {}
for name in names:
    command = ["ls", "--quiet", "--output", "json", "--output-keys", "unique_id", "--selector", name]
    result = dbtRunner().invoke(command + options)
    assert result.success, (name, result.exception)
    found[name] = [json.loads(line)["unique_id"] for line in result.result or []]
print("FOUND" + json.dumps(found))
""",
)


@contextmanager
def warm_children() -> Iterator[None]:
    """Fork dbt, Prefect and this project's programs while the block runs, where the system has a way to."""
    if sys.platform != "linux":
        yield
        return
    from flows.engine.process.engines import OWN_DBT
    from infrastructure.connection_check import check

    dbt = ForkServer(Path(warm_dbt.__file__), [DBT, DBT_SELECTORS, OWN_DBT, (sys.executable, "-c", check._DBT)])
    programs = [(sys.executable, "-m", name) for name in warm_flows.PROGRAMS]
    modules = ForkServer(Path(warm_flows.__file__), programs, base=dbt)
    cold, subprocess.Popen = subprocess.Popen, warm_popen(modules, dbt)  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = cold  # type: ignore[misc]
        modules.close()
        dbt.close()
