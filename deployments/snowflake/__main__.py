"""The command line: `python -m deployments.snowflake render`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployments.snowflake import script
from deployments.snowflake.task_graph import DbtObject, TaskGraph, node_by_node, whole
from flows.cli.options import examples, project_option
from infrastructure.console import EntryGroup
from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of
from infrastructure.screen import echo

if TYPE_CHECKING:
    from flows.engine.artifacts.manifest import Manifest
    from flows.engine.artifacts.manifest_file import WholeManifest


@click.group(cls=EntryGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Run a dbt project inside Snowflake, started by new rows in its sources."""


@main.command(
    epilog=examples(
        "python -m deployments.snowflake render --target prod-snowflake --output tasks.sql",
        "python -m deployments.snowflake render --target prod-snowflake --how sql --schedule '60 MINUTE'",
        "python -m deployments.snowflake render --target prod-snowflake --drop",
    )
)
@click.option("--target", "-t", required=True, help="The target, also in the profiles.yml of the dbt project object.")
@click.option("--how", type=click.Choice(["dbt", "sql"]), default="dbt", show_default=True,
              help="One task that runs dbt, or a task per node.")  # fmt: skip
@click.option("--manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="The project's manifest on this target; default: that of the last local run.")  # fmt: skip
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file to write; default: print it.",
)
@click.option("--drop", is_flag=True, help="Write the script that removes the tasks and streams.")
@click.option("--schedule", default="5 MINUTE", show_default=True, help="How often to check the streams for new rows.")
@click.option("--warehouse", default="TRANSFORMING", show_default=True, help="The virtual warehouse of all tasks.")
@click.option(
    "--schema", default="TRIBUTARY", show_default=True, help="The schema of tasks, streams and the project object."
)
@click.option("--database", help="Their database; default: that of the models.")
@click.option(
    "--project-object", "project", default="TRIBUTARY", show_default=True, help="Name of the dbt project object."
)
@click.option("--location", metavar="STAGE", help="Where to create the object from, if it does not exist yet.")
@click.option("--error-integration", metavar="NAME", help="The notification integration for failures.")
@project_option
def render(
    target: str,
    how: str,
    manifest: Path | None,
    output: Path | None,
    drop: bool,
    project_dir: str | None,
    **asked: Any,  # noqa: ANN401  (the fields of TaskPlace)
) -> None:
    """Write streams on the sources' tables and a graph of tasks that build what depends on them."""
    read = _read(manifest, project_dir, target)
    place = script.TaskPlace(database=asked.pop("database") or _database(read.manifest), **asked)
    dbt = DbtObject(place.name(place.project), target)
    found = node_by_node(read.manifest, read.compiled, dbt) if how == "sql" else whole(read.manifest, dbt)
    statements = (script.drop if drop else script.create)(found, place)
    written = script.as_script(statements, _head(found, target, drop))
    if output:
        output.write_text(written, encoding="utf-8")
        streams = count_of(len(found.sources), "stream")
        echo(f"{output}: {len(found.tasks) + 2} tasks, {streams} on sources.", err=True)
    else:
        echo(written, nl=False)


def _head(found: TaskGraph, target: str, drop: bool) -> list[str]:
    what = "What removes" if drop else "What makes"
    lines = [f"{what} the streams and tasks that run this project inside Snowflake, on target {target}."]
    lines += ["Written by `python -m deployments.snowflake render`; see docs/snowflake-native.md."]
    if found.left_out and not drop:
        lines += ["", "These nodes have no task:"]
        lines += [f"  {key} {why}" for key, why in sorted(found.left_out.items())]
    return lines


def _read(path: Path | None, project_dir: str | None, target: str) -> WholeManifest:
    from flows.engine.artifacts.manifest_file import MANIFEST, read_whole
    from flows.engine.context.project import read_project
    from flows.engine.context.state import state_of

    path = path or state_of(read_project(project_dir), target, os.environ).target_path / MANIFEST
    if not path.exists():
        raise ConfigError(
            f"There is no manifest at {path}. Run the project on this target once, or name a file with --manifest."
        )
    found = read_whole(path)
    if found is None or not found.manifest.adapter:
        raise ConfigError(f"{path} is not a dbt manifest. Name one with --manifest.")
    if found.manifest.adapter != "snowflake":
        raise ConfigError(
            f"{path} is a manifest for {found.manifest.adapter}, whose names and SQL are not Snowflake's. Give one "
            "that was made on a Snowflake target."
        )
    return found


def _database(manifest: Manifest) -> str:
    names = sorted({node.database for node in manifest.nodes.values() if node.resource_type == "model"})
    if len(names) != 1:
        raise ConfigError(
            f"The models are in {count_of(len(names), 'database')} ({', '.join(names)}). Choose one with --database."
        )
    return names[0]


if __name__ == "__main__":
    main(prog_name="python -m deployments.snowflake")
