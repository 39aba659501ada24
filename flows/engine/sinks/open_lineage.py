"""Tell OpenLineage what a run did: a run event for the dbt command and for each node, with what it read and wrote.

Asked for by OpenLineage's own settings, and sent by its own client: `OPENLINEAGE_URL`, `openlineage.yml` and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.artifacts.descriptions import Description, read_descriptions
from flows.engine.artifacts.manifest import DATA_TYPES, TEST_TYPES, Manifest
from flows.engine.artifacts.results import NodeResult
from flows.engine.context.events import CUT_OFF, NodeEvent
from flows.engine.ledger.addresses import plain_relation
from flows.engine.ledger.stream import NodeEnded, NodeStarted, RunEnded, RunEvent, RunStarted
from infrastructure.errors import ConfigError
from infrastructure.plain_text import cut

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client import event_v2 as ol
    from openlineage.client.facet_v2 import RunFacet

PRODUCER = "urn:tributary:openlineage"
# Of jobs, where OPENLINEAGE_NAMESPACE names none.
NAMESPACE = "tributary"
_SETTINGS = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
_TRANSPORT = "OPENLINEAGE__TRANSPORT"
_TOLD = DATA_TYPES | TEST_TYPES | {"source"}
_MESSAGE_CHARACTERS = 5000
_ENDINGS = {"succeeded": "COMPLETE", "failed": "FAIL", "aborted": "ABORT"}


def is_asked(environ: Mapping[str, str]) -> bool:
    """Say whether OpenLineage's own settings name a place to send to."""
    if environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    if any(environ.get(name) for name in _SETTINGS) or any(name.startswith(_TRANSPORT) for name in environ):
        return True
    return any(folder.joinpath("openlineage.yml").is_file() for folder in (Path.cwd(), Path.home() / ".openlineage"))


def open_sink(artifacts: Artifacts) -> OpenLineage:
    """Return the sink through OpenLineage's client.

    Raises:
        ConfigError: the client is not installed, or its settings name no transport.
    """
    import os

    try:
        from openlineage.client import OpenLineageClient
        from openlineage.client.event_v2 import set_producer
    except ImportError as exc:
        raise ConfigError("OpenLineage's client is not installed: uv sync --extra openlineage") from exc
    set_producer(PRODUCER)
    # The client would add the address of the git remote of the working folder, with the token that may be in it.
    client = OpenLineageClient(config={"facets": {"source_code_location": {"disabled": True}}})  # pyright: ignore[reportArgumentType]
    if client.transport.kind == "console" and not (client.config.transport or {}).get("type"):
        raise ConfigError(
            "OpenLineage's settings name no transport. Set OPENLINEAGE_URL, or `transport` in openlineage.yml"
        )
    return OpenLineage(client, artifacts, os.environ.get("OPENLINEAGE_NAMESPACE") or NAMESPACE)


class OpenLineage:
    """The events of a run as OpenLineage has them.

    Args:
        namespace: of the jobs.
    """

    def __init__(self, client: OpenLineageClient, artifacts: Artifacts, namespace: str) -> None:
        self._client = client
        self._artifacts = artifacts
        self._namespace = namespace
        self._known = Manifest({})

    def take(self, run: RunStarted, event: RunEvent) -> None:
        """Send what an event stands for; some stand for nothing here."""
        found = self._event(run, event)
        if found is not None:
            self._client.emit(found)

    def close(self) -> None:
        """Wait until a transport that sends by itself has sent."""
        self._client.close(timeout=5.0)

    def _event(self, run: RunStarted, event: RunEvent) -> ol.RunEvent | None:
        match event:
            case RunStarted():
                return self._of_command(run, "START", event.at)
            case RunEnded():
                return self._of_command(run, _ENDINGS[event.ending], event.at, event.message)
            case NodeStarted(node, number) if node.resource_type in _TOLD:
                return self._of_node(run, node, number, "START", node.started_at)
            case NodeEnded(result, number) if result.resource_type in _TOLD and number:
                state = "ABORT" if result.status == CUT_OFF else "FAIL" if result.outcome == "failed" else "COMPLETE"
                return self._of_node(run, result, number, state, result.finished_at)
            case _:
                return None

    def _of_command(self, run: RunStarted, state: str, at: datetime, message: str = "") -> ol.RunEvent:
        from openlineage.client import event_v2 as ol
        from openlineage.client.facet_v2 import parent_run

        flow = run.flow_run
        facets: dict[str, RunFacet] = {**self._engine(run), **_error(message)}
        if flow:
            facets["parent"] = parent_run.ParentRunFacet(
                run=parent_run.Run(runId=str(flow.id)),
                job=parent_run.Job(namespace=self._namespace, name=flow.flow or flow.name),
            )
        job = ol.Job(self._namespace, _command_job(run), {"jobType": _job_type("JOB")})
        return _run_event(state, at, ol.Run(_run_id(run), facets), job)

    def _of_node(
        self, run: RunStarted, node: NodeEvent | NodeResult, number: int, state: str, at: datetime
    ) -> ol.RunEvent:
        from openlineage.client import event_v2 as ol
        from openlineage.client.facet_v2 import parent_run

        is_start = state == "START"
        known = self._manifest.nodes.get(node.unique_id)
        is_test = node.resource_type not in DATA_TYPES
        read = self._manifest.tested(node.unique_id) if is_test else self._manifest.read_by(node.unique_id)
        # What is not data: a unit test is about the code, and what it reads is in the project.
        read = {"source": [node.unique_id], "unit_test": []}.get(node.resource_type, read)
        parent = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=_run_id(run)),
            job=parent_run.Job(namespace=self._namespace, name=_command_job(run)),
            root=self._root(run),
        )
        run_facets: dict[str, RunFacet] = {"parent": parent}
        job_facets: dict[str, Any] = {"jobType": _job_type(node.resource_type.upper())}
        outputs: list[ol.OutputDataset] = []
        if isinstance(node, NodeResult):
            run_facets |= self._engine(run) | _error(node.message if node.outcome == "failed" else "")
            run_facets |= _query(node, run) | (self._tested(node) if is_test else {})
            job_facets |= _owners(known.owners if known else (), "job") | self._sql(node.unique_id, run)
        inputs = [
            ol.InputDataset(
                run.address,
                name,
                facets={} if is_start else self._facets(unique_id),
                inputFacets=self._assertions(node) if isinstance(node, NodeResult) and is_test else {},
            )
            for unique_id in read
            if (name := self._name(unique_id))
        ]
        # Its own relation: dbt knows that of a node which is not in the last manifest any more.
        relation = node.relation or (known.relation if known else None)
        if not is_test and relation:
            statistics = _statistics(node) if isinstance(node, NodeResult) else {}
            facets = {} if is_start else self._facets(node.unique_id)
            outputs = [ol.OutputDataset(run.address, plain_relation(relation), facets=facets, outputFacets=statistics)]
        job = ol.Job(self._namespace, f"{run.project}.{run.target}.{node.unique_id}", job_facets)
        of_run = ol.Run(_run_id(run, node.unique_id, number), run_facets)
        return _run_event(state, at, of_run, job, inputs, outputs)

    @property
    def _manifest(self) -> Manifest:
        # dbt writes it anew at its end, and half of it is none.
        if (found := self._artifacts.manifest_if_any).nodes:
            self._known = found
        return self._known

    @cached_property
    def _descriptions(self) -> dict[str, Description]:
        # When the first node is known to have ended, dbt has written all that it compiled.
        return read_descriptions([self._artifacts.folder])

    def _name(self, unique_id: str) -> str:
        known = self._manifest.nodes.get(unique_id)
        return plain_relation(known.relation) if known and known.relation else ""

    def _root(self, run: RunStarted) -> Any:  # noqa: ANN401  (a class of the client)
        from openlineage.client.facet_v2 import parent_run

        flow = run.flow_run
        id_, name = (str(flow.id), flow.flow or flow.name) if flow else (_run_id(run), _command_job(run))
        return parent_run.Root(run=parent_run.RootRun(runId=id_), job=parent_run.RootJob(self._namespace, name))

    def _engine(self, run: RunStarted) -> dict[str, RunFacet]:
        from openlineage.client.facet_v2 import processing_engine_run

        version = self._manifest.dbt_version
        return {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version=version or "unknown", name=f"dbt ({run.warehouse})"
            )
        }

    def _facets(self, unique_id: str) -> dict[str, Any]:
        from openlineage.client.facet_v2 import documentation_dataset, schema_dataset

        known, described = self._manifest.nodes.get(unique_id), self._descriptions.get(unique_id)
        found: dict[str, Any] = _owners(known.owners if known else (), "dataset")
        if described and described.columns:
            fields = [
                schema_dataset.SchemaDatasetFacetFields(
                    name=column.name, type=column.kind or None, description=column.description or None
                )
                for column in described.columns
            ]
            found["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields)
        if described and described.text:
            found["documentation"] = documentation_dataset.DocumentationDatasetFacet(description=described.text)
        return found

    def _sql(self, unique_id: str, run: RunStarted) -> dict[str, Any]:
        from openlineage.client.facet_v2 import sql_job

        described = self._descriptions.get(unique_id)
        return {"sql": sql_job.SQLJobFacet(described.sql, run.warehouse)} if described and described.sql else {}

    def _assertions(self, test: NodeResult) -> dict[str, Any]:
        from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality

        known = self._manifest.nodes.get(test.unique_id)
        assertion = quality.Assertion(
            assertion=_kind_of(test, known.kind if known else ""),
            success=test.outcome == "succeeded",
            column=known.column or None if known else None,
            severity=known.severity or None if known else None,
            name=test.name,
            actual=None if test.failures is None else str(test.failures),
        )
        return {"dataQualityAssertions": quality.DataQualityAssertionsDatasetFacet(assertions=[assertion])}

    def _tested(self, test: NodeResult) -> dict[str, RunFacet]:
        from openlineage.client.facet_v2 import test_run

        known = self._manifest.nodes.get(test.unique_id)
        execution = test_run.TestExecution(
            name=test.name,
            status={"succeeded": "pass", "skipped": "skip"}.get(test.outcome, "fail"),
            severity=known.severity or None if known else None,
            type=_kind_of(test, known.kind if known else ""),
            actual=None if test.failures is None else str(test.failures),
        )
        return {"test": test_run.TestRunFacet(tests=[execution])}


def _run_event(
    state: str,
    at: datetime,
    run: ol.Run,
    job: ol.Job,
    inputs: Iterable[ol.InputDataset] = (),
    outputs: Iterable[ol.OutputDataset] = (),
) -> ol.RunEvent:
    from openlineage.client import event_v2 as ol

    return ol.RunEvent(
        eventTime=at.isoformat(),
        producer=PRODUCER,
        run=run,
        job=job,
        eventType=ol.RunState[state],
        inputs=list(inputs),
        outputs=list(outputs),
    )


def _run_id(run: RunStarted, unique_id: str = "", number: int = 1) -> str:
    """Return an id that is the same whichever process tells of it, so that twice is once."""
    from openlineage.client.uuid import generate_static_uuid

    return str(generate_static_uuid(run.at, f"{run.run}:{unique_id}:{number}".encode()))


def _command_job(run: RunStarted) -> str:
    return f"{run.project}.{run.target}.{run.command.replace(' ', '-')}"


def _job_type(kind: str) -> Any:  # noqa: ANN401  (a class of the client)
    from openlineage.client.facet_v2 import job_type_job

    return job_type_job.JobTypeJobFacet(processingType="BATCH", integration="DBT", jobType=kind)


def _kind_of(test: NodeResult, kind: str) -> str:
    return "freshness" if test.resource_type == "source" else kind or test.resource_type


def _error(message: str) -> dict[str, RunFacet]:
    from openlineage.client.facet_v2 import error_message_run

    if not message:
        return {}
    text = cut(message, _MESSAGE_CHARACTERS, "the run's log")
    return {"errorMessage": error_message_run.ErrorMessageRunFacet(message=text, programmingLanguage="SQL")}


def _query(result: NodeResult, run: RunStarted) -> dict[str, RunFacet]:
    from openlineage.client.facet_v2 import external_query_run

    if not result.query_id:
        return {}
    return {"externalQuery": external_query_run.ExternalQueryRunFacet(result.query_id, run.address)}


def _statistics(result: NodeResult) -> dict[str, Any]:
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    if result.row_count is None:
        return {}
    return {"outputStatistics": statistics.OutputStatisticsOutputDatasetFacet(rowCount=result.row_count)}


def _owners(names: Iterable[str], of: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import ownership_dataset, ownership_job

    if not names:
        return {}
    if of == "job":
        return {"ownership": ownership_job.OwnershipJobFacet(owners=[ownership_job.Owner(name=name) for name in names])}
    owners = [ownership_dataset.Owner(name=name) for name in names]
    return {"ownership": ownership_dataset.OwnershipDatasetFacet(owners=owners)}
