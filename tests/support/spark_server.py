"""Spark's own Thrift server, which dbt-spark connects to as to any cluster."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import free_port, wait_until

_SERVER = "org.apache.spark.sql.hive.thriftserver.HiveThriftServer2"
# Java begins slowly, and the catalogue's tables are made before it listens.
_SECONDS = 300.0


@contextmanager
def spark_server(programs: Path, folder: Path) -> Iterator[int]:
    """Run a server with a catalogue of its own while the block runs; yields its port. Skips where there is no Java.

    Args:
        programs: the folder that spark-submit is in.
        folder: what it writes to.
    """
    if shutil.which("java") is None:
        pytest.skip("needs Java, which Spark runs on")
    folder.mkdir()
    port = free_port()
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": str(folder / "tables"),
        "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder / 'catalogue'};create=true",
    }
    hive = {"hive.server2.thrift.port": str(port), "hive.server2.thrift.bind.host": "127.0.0.1"}
    start = [str(programs / "spark-submit"), "--master", "local[2]", "--driver-memory", "1g", "--class", _SERVER]
    start += [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    start += ["spark-internal", *(word for name, value in hive.items() for word in ("--hiveconf", f"{name}={value}"))]
    # spark-submit asks the python3 of the PATH where Spark is, if nothing names another one.
    environment = {name: value for name, value in os.environ.items() if name != "SPARK_HOME"}
    environment["PATH"] = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])

    def listens() -> bool:
        if server.poll() is not None:
            pytest.fail(f"Spark did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(start, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(listens, "Spark's Thrift server listens", _SECONDS)
        yield port
    finally:
        server.terminate()
        server.wait(60)
