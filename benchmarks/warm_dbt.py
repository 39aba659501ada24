"""A process that has imported dbt and its adapters, parsed dbt's own macros and built once: most of what a build costs.

What is forked from it has that behind it. This file imports nothing of this project, and can be run by its path.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import logging
import tempfile
from pathlib import Path

_PROJECT = {
    "models/one.sql": "{{ config(materialized='table') }} select 1 as id",
    "models/one.yml": (
        "{models: [{name: one, config: {tags: [a]}, columns: [{name: id, data_tests: [unique]}]}],"
        " groups: [{name: finance, owner: {name: a, email: a@example.com}}]}"
    ),
    "models/raw.yml": (
        "sources: [{name: raw, schema: main, config: {loaded_at_field: now(), freshness: {error_after: {count: 1,"
        " period: day}}}, tables: [{name: one}]}]"
    ),
    "seeds/two.yml": "seeds: [{name: two, config: {column_types: {id: bigint}}}]",
    "snapshots/three.yml": "snapshots: [{name: three, config: {tags: [a]}}]",
    "macros/eight.sql": "{% macro eight() %}8{% endmacro %}",
    "selectors.yml": "selectors: [{name: nine, definition: {method: tag, value: a}}]",
    "models/five.sql": "{{ config(materialized='incremental') }} select * from {{ ref('one') }}",
    "models/six.sql": "select * from {{ ref('five') }}",
    "seeds/two.csv": "id\n1\n",
    "snapshots/three.sql": (
        "{% snapshot three %}{{ config(unique_key='id', strategy='check', check_cols='all') }}"
        "select * from {{ ref('one') }}{% endsnapshot %}"
    ),
    "tests/four.sql": "select * from {{ ref('one') }} where id is null",
    "dbt_project.yml": "{name: warm, profile: warm, on-run-end: [select 1], models: {warm: {+materialized: view}}}",
    "profiles.yml": "warm: {target: dev, outputs: {dev: {type: duckdb, path: '{folder}/warm.duckdb'}}}",
}


def warm_up() -> None:
    """Import dbt and the adapters that are there, and build a project."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner
    from dbt_common.tests import enable_test_caching

    # dbt's own, for its own tests: what Jinja made of a text is kept, so that no child parses dbt's macros again.
    enable_test_caching()
    for adapter in ("postgres", "duckdb"):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"dbt.adapters.{adapter}")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in _PROJECT.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(content.replace("{folder}", folder))
        # The static parser has threads, which would not come along: a child would wait for them for ever. So the
        # project has no ref() in YAML, which always goes through it. Flags stand after the command, since `source
        # freshness` does not see those before it.
        flags = ["--quiet", "--log-level", "none", "--log-level-file", "none", "--no-static-parser"]
        places = [word for name in ("project", "profiles") for word in (f"--{name}-dir", folder)]
        places += [word for name in ("target", "log") for word in (f"--{name}-path", f"{folder}/{name}")]
        # The last one reads what the first two left of their parse, and parses what differs from it.
        for command in (["build"], ["source", "freshness"], ["ls"]):
            # In a context of its own: what dbt keeps there is not for the next one to find.
            done = contextvars.copy_context().run(dbtRunner().invoke, [*command, *flags, *places])
            assert done.success, done.exception
            for name in ("models/six.sql", "models/one.yml", "seeds/two.yml"):
                with Path(folder, name).open("a") as file:
                    file.write("\n")
        DuckDBConnectionManager.close_all_connections()
    # dbt has set it up, and what is forked sets up its own.
    logging.root.handlers.clear()
