"""An artifact for each node that did not end well, on the page of its task run: the error, the rows, the SQL.

A good node has none: of its server, one takes as long as dbt 2 takes for the node.
"""

from __future__ import annotations

from flows.engine.artifacts.manifest import Node
from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.context.run_context import current_flow_run
from flows.engine.context.state import TEXT_LOG
from flows.engine.ledger.explanation import Explanation, FailedNode, explain, title_of
from flows.engine.ledger.failures import log_of
from flows.engine.sinks.task_runs import task_run_id
from flows.report.adapter_costs import cost_columns, figures_of
from flows.report.artifacts import attaching, key_of
from infrastructure.plain_text import cut, markdown_block, markdown_code, markdown_text

# The others are in the table of results.
MOST_NODES = 20
_SQL_CHARACTERS = 20_000


def node_markdown(node: NodeResult, known: Node | None, told: FailedNode | None, sql: str) -> str:
    """Return what there is to say about a node that failed or warned, as Markdown.

    Args:
        known: the node in the manifest.
        told: what the explanation of the run says of it.
        sql: what dbt compiled it to; empty where it did not get so far.
    """
    lines = [f"## {markdown_text(told.title if told else title_of(node))}", ""]
    if said := "\n".join(told.said) if told else node.message.strip():
        lines += [markdown_block(said, where=TEXT_LOG), ""]
    lines += told.markdown_about() if told else []
    costs = {"rows written": figures_of(node).rows, **cost_columns(node)}
    about = [
        f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}"
        for name, value in costs.items()
        if value not in (None, "")
    ]
    about += [f"relation: {markdown_code(node.relation)}"] if node.relation else []
    if known:
        about += [f"file: {markdown_code(known.path)}"] if known.path else []
        about += [f"columns described: {markdown_text(', '.join(sorted(known.columns)))}"] if known.columns else []
        about += [f"owner: {markdown_text(', '.join(known.owners))}"] if known.owners else []
    about.append(f"ran for {node.seconds:.2f} s" + (f", at attempt {node.attempts}" if node.attempts > 1 else ""))
    lines += [f"- {line[0].upper()}{line[1:]}" for line in about]
    if sql:
        fence = "`" * (3 + sql.count("```"))
        lines += ["", "### The SQL that dbt ran", "", f"{fence}sql", cut(sql.strip(), _SQL_CHARACTERS, TEXT_LOG), fence]
    return "\n".join(lines)


def publish_nodes(result: DbtResult, explanation: Explanation | None = None) -> None:
    """Create the artifacts of the nodes that failed or warned, the causes first, on their task runs."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate

    flow_run = current_flow_run()
    bad = {node.unique_id: node for node in result.of("failed", "warned")}
    if flow_run is None or not bad:
        return
    with attaching(), get_client(sync_client=True) as client:
        manifest = result.artifacts.manifest_if_any
        explained = explanation or explain(result, log_of(result.run_path))
        told = {each.unique_id: each for each in explained.failed}
        for unique_id in list(dict.fromkeys([*told, *bad]))[:MOST_NODES]:
            node, known, cause = bad[unique_id], manifest.nodes.get(unique_id), told.get(unique_id)
            compiled = result.artifacts.compiled_file(known, result.started_at)
            artifact = ArtifactCreate(
                key=key_of("dbt", result.target, node.name),
                type="markdown",
                description=": ".join([cause.title, *cause.said[:1]]) if cause else title_of(node),
                data=node_markdown(node, known, cause, compiled[1] if compiled else ""),
                flow_run_id=flow_run.id,
                task_run_id=task_run_id(flow_run, unique_id),
            )
            client.create_artifact(artifact)
