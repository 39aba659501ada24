"""Take the dbt project through every command on every warehouse, and print what came of it as one line of JSON.

It wants the clients of all: `uv run --isolated --extra snowflake --extra bigquery -m tests.warehouses.evidence`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.ledger.retries import Retries
from flows.engine.run import run_dbt
from flows.loaders.git.load import ingest_git
from flows.loaders.sample_data import count_sample_rows, write_sample_data
from infrastructure.connection_check.check import check
from infrastructure.errors import DbtRunFailed, UpstreamUnavailable
from infrastructure.profiles import Profile
from tests.support.generated_repository import eventful_repository
from tests.support.warehouses.builds import HERE, DuckDB, PostgreSQL, Warehouse
from tests.support.warehouses.ratios import wrong_ratios
from tests.support.warehouses.servers import bigquery_server, snowflake_server
from tests.support.warm_children import warm_children
from tests.warehouses.clients import BigQuery, Snowflake, alike
from tests.warehouses.faults import FAULTS, MODELS, faulty_line
from tests.warehouses.imports import clients_imported, installed
from tests.warehouses.wrong_settings import settings_to_check

READY = "the clients' environment is there"
# Models that dbt could run together with any other are left out of what is timed twice.
QUICK = "tag:payroll"
# A busy machine takes its time to start dbt.
PATIENCE_SECONDS = 600.0


class Evidence:
    """One warehouse's way through the commands."""

    def __init__(self, name: str, warehouse: Warehouse) -> None:
        self.name = name
        self.warehouse = warehouse
        self.profile = Profile(name, "tributary", warehouse.dbt_output(), {})
        self.project = read_project()
        self.seen: dict[str, Any] = {"server": warehouse.server_version()}

    def dbt(self, verb: str, select: str | None = None, **options: Any) -> DbtResult:
        """Run a dbt command as the pipeline does, but for Prefect; a failed one gives its result too."""
        try:
            return run_dbt(
                DbtCommand(verb, select, **options.pop("command", {})),
                RunContext(self.project, self.profile, run_id=options.pop("run_id", f"{self.name}-{verb}")),
                RunOptions(resume=options.pop("resume", False), changed=options.pop("changed", False)),
                retries=options.pop("retries", Retries(0)),
            )
        except DbtRunFailed as failure:
            if failure.result is None:
                raise
            return failure.result

    def note(self, command: str, work: Callable[[], Any]) -> None:
        """Write down what came of a command, and how long it took."""
        started = time.monotonic()
        try:
            seen = _summary(work())
        except Exception as error:  # noqa: BLE001  (whatever it is, the other commands have their say)
            seen = {"error": f"{type(error).__name__}: {error}"[:1500]}
        self.seen[command] = seen | {"seconds": round(time.monotonic() - started, 1)}

    def everything(self) -> dict[str, Any]:
        """Go through every command, in the order of a new warehouse's first days."""
        self.warehouse.load("raw_tables.sql", "raw_rows.sql")
        self.note("debug", lambda: check(self.profile, PATIENCE_SECONDS))
        self.note("seed", lambda: self.dbt("seed"))
        self.note("freshness", lambda: self.dbt("source freshness"))
        self.note("snapshot", self._snapshot)
        self.note("run", lambda: self.dbt("run"))
        self.note("test", lambda: self.dbt("test", QUICK))
        self.warehouse.load("raw_changes.sql")
        # As the pipeline does, so that the build knows which data it is made from.
        self.dbt("source freshness", run_id=f"{self.name}-build")
        self.note("build", lambda: self.dbt("build"))
        self.said()
        self._rows()
        self.note("docs", self._docs)
        self.note("changed", self._changed)
        self.note("retry", self._retry)
        self.note("load", self._load)
        self._ratios()
        self._load_into_nowhere()
        self._faults()
        return self.seen

    def said(self) -> None:
        """Write down what the build's statements said of themselves."""
        if isinstance(self.warehouse, Snowflake):
            self.seen["said"] = self.warehouse.said_by_run(f"{self.name}-build")
        elif isinstance(self.warehouse, BigQuery):
            self.seen["labels"] = self.warehouse.labels_of_run(f"{self.name}-build")

    def essentials(self) -> dict[str, Any]:
        """Go the short way: every seed, snapshot and model from nothing, and what a later sync changes."""
        self.warehouse.load("raw_tables.sql", "raw_rows.sql")
        data_only = {"flags": ("--exclude-resource-type", "test", "unit_test")}
        self.note("build", lambda: self.dbt("build", command=data_only))
        self.said()
        self.warehouse.load("raw_changes.sql")
        self.note("second build", lambda: self.dbt("run", "config.materialized:incremental+"))
        self._rows()
        self._ratios()
        self._load_into_nowhere()
        return self.seen

    def _load_into_nowhere(self) -> None:
        """Write down what a load says of a host on which nothing listens."""
        nowhere = {"snowflake": {"port": 9}, "bigquery": {"api_endpoint": "http://127.0.0.1:9"}}.get(self.name)
        if nowhere is not None:
            profile = Profile(self.name, "tributary", self.warehouse.dbt_output() | nowhere, {})
            try:
                write_sample_data(profile, rows=10, seed=1, raw_schema="raw_nowhere")
            except UpstreamUnavailable as error:
                self.seen["load into nowhere"] = str(error)

    def _ratios(self) -> None:
        """Write down which quotients are not rounded as they should be."""
        if not isinstance(self.warehouse, DuckDB | PostgreSQL):
            self.seen["ratios"] = wrong_ratios(self.warehouse)

    def _load(self) -> dict[str, int]:
        """Have the project's own loaders fill another schema: sample data twice, commits twice."""
        schema = "raw_loaded"
        write_sample_data(self.profile, rows=100, seed=1, raw_schema=schema)
        sample = write_sample_data(self.profile, rows=100, seed=2, raw_schema=schema)
        repository = str(eventful_repository(self.warehouse.folder / "repository").folder)
        first, again = (ingest_git(self.profile, [repository], raw_schema=schema) for _ in range(2))
        return {
            "rows": count_sample_rows(self.profile, raw_schema=schema) - sample.rows,
            "commits": first.added - first.commit_count,
            "again": again.added,
        }

    def _faults(self) -> None:
        """Write down what `--check` says of wrong settings, and who gets over what goes wrong on the way."""
        if isinstance(self.warehouse, DuckDB | PostgreSQL):
            return
        self.seen["checks"] = {}
        for name, output in settings_to_check(self.warehouse):
            found = check(Profile(self.name, "tributary", output, {}), PATIENCE_SECONDS)
            self.seen["checks"][name] = found.cause or found.note
        self.seen["faults"] = self._on_faulty_line({})
        if self.name == "bigquery":
            # dbt-bigquery tries once more unless it is told not to, as the output of the local server tells it.
            self.seen["faults, client retries"] = self._on_faulty_line({"job_retries": 1})

    def _on_faulty_line(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Run models of which each meets a fault of its own; say how each ended, and in which attempt."""
        profile = self.profile
        with faulty_line(self.warehouse.dbt_output() | settings) as (output, line):
            line.faults = dict(zip(MODELS, FAULTS[self.name].values(), strict=True))
            self.profile = Profile(self.name, "tributary", output, {})
            result = self.dbt("run", " ".join(MODELS), retries=Retries(2, sleep=lambda _: None))
        self.profile = profile
        nodes = {node.name: node for node in result.nodes}
        return {
            fault: {
                "hits": line.hits[model],
                "outcome": nodes[model].outcome,
                "attempts": nodes[model].attempts,
                "message": nodes[model].message,
            }
            for fault, model in zip(FAULTS[self.name], MODELS, strict=True)
        }

    def _docs(self) -> dict[str, int]:
        """Generate the docs, and count what their catalog lacks."""
        self.dbt("docs generate")
        nodes = self._manifest()["nodes"]
        relations = {key for key, node in nodes.items() if node["resource_type"] in ("model", "seed", "snapshot")}
        catalog = json.loads((self._target() / "catalog.json").read_text(encoding="utf-8"))["nodes"]
        return {
            "relations that are missing": len(relations - catalog.keys()),
            "relations without columns": sum(not entry["columns"] for entry in catalog.values()),
        }

    def _changed(self) -> DbtResult:
        """Build what a row changes that has arrived since, and no more; then, as nothing has arrived, none of that."""
        self.warehouse.execute(
            "insert into raw.google_ads_campaign_performance values\n"
            "    (102, '2026-03-11', 7, 1, 100000, 0, 0, 'r1', '2026-03-12 02:00:00');"
        )
        # Runs of their own, which ask anew how old the data is.
        built = self.dbt("build", changed=True, run_id=f"{self.name}-changed")
        again = self.dbt("build", changed=True, run_id=f"{self.name}-changed-again")
        first, second = (
            {node.name for node in result.nodes if node.resource_type == "model"} for result in (built, again)
        )
        strangers = {name for name in first if name.startswith(("stg_facebook", "stg_github", "br_supabase"))}
        assert "fct_campaign_performance" in first and not strangers, f"{len(first)} nodes built, of them {strangers}"
        # What reads the clock is never the same twice.
        assert "fct_campaign_performance" not in second, f"built although nothing changed: {sorted(second)}"
        return built

    def _snapshot(self) -> DbtResult:
        # Snapshots stand on bronze views, which a new warehouse does not have yet.
        self.dbt("run", "+resource_type:snapshot,resource_type:model")
        return self.dbt("snapshot")

    def _retry(self) -> DbtResult:
        """Have a build fail because a raw table is away, and go on with what is left when it is back."""
        views_too = " cascade" if isinstance(self.warehouse, PostgreSQL) else ""
        self.warehouse.execute(f"drop table raw.facebook_ads_campaigns{views_too}")
        select = "stg_facebook_ads__campaigns stg_facebook_ads__insights"
        command = {"command": {"full_refresh": True}}
        failed = self.dbt("build", select, **command)
        assert failed.counts()["failed"], "the build went well without its raw table"
        script = (HERE / "raw_tables.sql").read_text()
        self.warehouse.execute(next(part for part in script.split(";") if "facebook_ads_campaigns" in part) + ";")
        return self.dbt("build", select, resume=True, **command)

    def _rows(self) -> None:
        manifest = self._manifest()
        names = [node["name"] for node in manifest["nodes"].values() if node["resource_type"] == "model"]
        found = self.warehouse.comparable(sorted(names))
        self.seen["rows"] = {
            model: [columns, [[str(value) for value in row] for row in sorted(alike(rows), key=repr)]]
            for model, (columns, rows) in found.items()
        }

    def _target(self) -> Path:
        return next(Path(os.environ["TRIBUTARY_STATE"]).glob(f"*/{self.name}/target"))

    def _manifest(self) -> dict[str, Any]:
        path = self._target() / "manifest.json"
        (self.warehouse.folder / "target").mkdir(exist_ok=True)
        (self.warehouse.folder / "target" / "manifest.json").write_bytes(path.read_bytes())
        return self.warehouse.manifest()


def _summary(came_of_it: Any) -> dict[str, Any]:
    if isinstance(came_of_it, dict):
        # Each number is how far a count is off.
        return {"ok": not any(came_of_it.values()), "cause": str(came_of_it)}
    if not isinstance(came_of_it, DbtResult):
        return {"ok": came_of_it.is_ok, "cause": came_of_it.cause}
    if came_of_it.command == "dbt source freshness":
        # The rows of the test's data are old on purpose; what matters is that the age of each source was found out.
        measured = [node for node in came_of_it.nodes if node.status != "runtime error"]
        return {"counts": {"succeeded": len(measured), "failed": len(came_of_it.nodes) - len(measured)}, "failed": []}
    failed = [f"{node.name}: {node.message}"[:500] for node in came_of_it.of("failed")]
    figures = [dict(node.adapter_response) for node in came_of_it.nodes if node.resource_type == "model"]
    return {"counts": came_of_it.counts(), "failed": failed[:5], "figures": figures[:2]}


def main() -> None:
    """Take the named warehouses through, side by side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--everything", action="store_true", help="every command, not only the essentials")
    parser.add_argument("--warehouses", default="duckdb,snowflake,bigquery")
    parser.add_argument("--postgres", type=json.loads, help="the server for postgres, in JSON as dbt has it")
    asked = parser.parse_args()
    print(READY, flush=True)
    with tempfile.TemporaryDirectory(prefix="tributary-evidence-") as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(warm_children())
        os.environ["TRIBUTARY_STATE"] = str(folder / "state")

        def place(kind: str) -> Path:
            (folder / kind).mkdir()
            return folder / kind

        ways: list[Evidence] = []
        for kind in asked.warehouses.split(","):
            at = place(kind)
            if kind == "duckdb":
                warehouse: Warehouse = DuckDB(at)
            elif kind == "postgres":
                warehouse = PostgreSQL(at, server=asked.postgres)
            elif kind == "snowflake":
                warehouse = Snowflake(at, output=stack.enter_context(snowflake_server(at / "server.log")))
            else:
                warehouse = BigQuery(at, output=stack.enter_context(bigquery_server(at / "server.log")))
            evidence = Evidence(kind, warehouse)
            if kind == "duckdb":
                evidence.profile.output["path"] = str(at / "warehouse.duckdb")
            ways.append(evidence)
        with ThreadPoolExecutor(max_workers=len(ways)) as pool:
            work = {way.name: pool.submit(way.everything if asked.everything else way.essentials) for way in ways}
            seen = {kind: future.result() for kind, future in work.items()}
        place("imports")
        imports = {"installed": installed(), "imported": clients_imported(folder / "imports")}
    packages = ("dbt-core", "dbt-duckdb", "dbt-postgres", "dbt-snowflake", "dbt-bigquery")
    versions = {name: version(name) for name in packages}
    print(json.dumps({"versions": versions, "imports": imports, "warehouses": seen}))


if __name__ == "__main__":
    main()
