"""The files of a generated project, and the rows under it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.truth.world import BAD, LIMIT, Check, Node, Source, World

_PROJECT = "shop"
_YEARS = 3
_METRICS = {
    "models/facts.sql": "select 1 as id, 2 as amount, cast('2026-01-01' as date) as day",
    "models/metricflow_time_spine.sql": "select cast('2026-01-01' as date) as date_day",
    "models/metrics.yml": {
        "models": [
            {
                "name": "metricflow_time_spine",
                "time_spine": {"standard_granularity_column": "date_day"},
                "columns": [{"name": "date_day", "granularity": "day"}],
            }
        ],
        "semantic_models": [
            {
                "name": "facts",
                "model": "ref('facts')",
                "defaults": {"agg_time_dimension": "on_day"},
                "entities": [{"name": "id", "type": "primary"}],
                "dimensions": [
                    {"name": "on_day", "expr": "day", "type": "time", "type_params": {"time_granularity": "day"}}
                ],
                "measures": [{"name": "total", "expr": "amount", "agg": "sum"}],
            }
        ],
        "metrics": [
            {"name": "total_amount", "label": "Total", "type": "simple", "type_params": {"measure": "total"}},
        ],
    },
}


def write_project(world: World, folder: Path) -> None:
    """Write what differs from what is there; `folder` holds the project and the package beside it."""
    files = _files(world)
    written = ("p*/models/**/*.sql", "p*/seeds/*.csv", "p*/tests/*.sql")
    for path in (path for pattern in written for path in folder.glob(pattern)):
        if str(path.relative_to(folder)) not in files:
            path.unlink()
    for name, text in files.items():
        path = folder / name
        content = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, indent=1)
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    packages = folder / "project" / "dbt_packages"
    if world.has_package and not packages.exists():
        # What `dbt deps` makes of a package that is a folder.
        packages.mkdir()
        os.symlink(folder / "pack", packages / "pack")


def _files(world: World) -> dict[str, str | Mapping[str, Any]]:
    found: dict[str, str | Mapping[str, Any]] = {
        "project/dbt_project.yml": _settings(world),
        "project/macros/more.sql": f"{{% macro more() %}}{world.macro}{{% endmacro %}}\n"
        "{% macro lowest() %}0{% endmacro %}\n",
        "project/tests/generic/below.sql": "{% test below(model, most) %}\n"
        "select * from {{ model }} where val >= {{ most }}\n{% endtest %}\n",
        "project/models/sources.yml": {"version": 2, "sources": [_sources(world)]},
        "project/models/properties.yml": _properties(world),
    }
    for relation, node in world.nodes.items():
        folder = "pack" if node.package else "project"
        if node.kind == "seed":
            rows = "".join(f"{key},{value}\n" for key, value in sorted(node.rows.items()))
            found[f"{folder}/seeds/{relation}.csv"] = f"id,val\n{rows}"
        elif node.kind == "model":
            place = f"{node.folder}/" if node.folder else ""
            found[f"{folder}/models/{place}{relation}.sql"] = _sql(world, node)
    for check in world.checks.values():
        if check.kind == "singular":
            found[f"project/tests/{check.name}.sql"] = (
                f"select * from {_ref(world.nodes[check.of[0]])} where val >= {LIMIT}\n"
            )
    if world.has_package:
        found["pack/dbt_project.yml"] = {"name": "pack", "version": "1.0", "config-version": 2}
        found["project/packages.yml"] = {"packages": [{"local": "../pack"}]}
    if world.is_disabled_there:
        found["project/models/unused.sql"] = "{{ config(enabled=false) }}\nselect no_such_column\n"
    if world.has_metrics:
        found |= {f"project/{name}": text for name, text in _METRICS.items()}
    found["project/selectors.yml"] = _selectors(world)
    return found


def _settings(world: World) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "name": _PROJECT,
        "version": "1.0",
        "config-version": 2,
        "profile": _PROJECT,
        "flags": {"send_anonymous_usage_stats": False},
        "models": {_PROJECT: {"+materialized": "view"}},
        "vars": {"steady": "{{ env_var('STEADY', '0') }}" if world.is_var_of_env else world.project_var},
    }
    if any(source.has_freshness for source in world.sources.values()):
        # A hook that fails would else fail the look at the sources, before anything is built.
        settings["flags"]["source_freshness_run_project_hooks"] = False
    if world.hook is not None:
        settings["on-run-start"] = [_hook("TRIP_START", "select 1")]
        done = f"create or replace table {{{{ target.schema }}}}.run_done as select {world.hook} as id"
        settings["on-run-end"] = [_hook("TRIP_END", done)]
    return settings


def _hook(trip: str, statement: str) -> str:
    return f"{{% if env_var('{trip}', '') == 'hard' %}}select no_such_column{{% else %}}{statement}{{% endif %}}"


def _selectors(world: World) -> dict[str, Any]:
    hot = {"name": "hot", "definition": {"method": "tag", "value": "hot", "children": True}}
    if not world.has_default:
        return {"selectors": [hot]}
    quick = [{"method": "fqn", "value": "*"}, {"exclude": [{"method": "tag", "value": "slow"}]}]
    return {"selectors": [hot, {"name": "quick", "default": True, "definition": {"union": quick}}]}


def _sources(world: World) -> dict[str, Any]:
    tables: list[dict[str, Any]] = []
    for source in world.sources.values():
        config = {"loaded_at_field": "loaded_at", "freshness": {"error_after": {"count": 12, "period": "hour"}}}
        tables.append({"name": source.name, **({"config": config} if source.has_freshness else {})})
    return {"name": "raw", "schema": "raw", "tables": tables}


def _properties(world: World) -> dict[str, Any]:
    entries: dict[str, dict[str, Any]] = {}
    document: dict[str, list[dict[str, Any]]] = {"seeds": [], "snapshots": [], "models": []}
    for relation, node in world.nodes.items():
        if node.package:
            continue
        entry = entries.setdefault(node.name, {"name": node.name})
        config: dict[str, Any] = {"tags": sorted(node.tags)} if node.tags else {}
        if node.kind == "seed":
            config["column_types"] = {"id": "bigint", "val": "bigint"}
        if node.kind == "snapshot":
            config |= {"strategy": "check", "unique_key": "id", "check_cols": ["val"]}
            entry["relation"] = _ref(world.nodes[node.parents[0]], braces=False)
        elif world.has_group and node.kind == "model" and node.number % 2 == 0:
            config["group"] = "finance"
        tests = [test for check in world.checks.values() if check.of[0] == relation if (test := _test(world, check))]
        if node.version:
            entry["latest_version"] = 2
            entry.setdefault("versions", []).append({"v": node.version, "data_tests": tests})
        else:
            entry["data_tests"] = tests
        entry["config"] = config
    for name, entry in entries.items():
        kind = next(node.kind for node in world.nodes.values() if node.name == name)
        document[f"{kind}s"].append(entry)
    units = [_unit_test(world, check) for check in world.checks.values() if check.kind == "unit"]
    document["unit_tests"] = units
    if world.has_group:
        document["groups"] = [{"name": "finance", "owner": {"name": "finance", "email": "finance@example.com"}}]
    if world.has_board:
        seen = [_ref(node, braces=False) for node in list(world.nodes.values())[-2:]]
        owner = {"name": "board", "email": "board@example.com"}
        document["exposures"] = [{"name": "board", "type": "dashboard", "owner": owner, "depends_on": seen}]
    return {"version": 2, **{key: value for key, value in document.items() if value}}


def _test(world: World, check: Check) -> dict[str, Any] | None:
    said: dict[str, Any] = {"name": check.name}
    if check.is_warning:
        said["config"] = {"severity": "warn"}
    match check.kind:
        case "not_null" | "unique":
            return {check.kind: {**said, "arguments": {"column_name": "id"}}}
        case "below":
            return {"below": {**said, "arguments": {"most": LIMIT}}}
        case "related":
            to = _ref(world.nodes[check.of[1]], braces=False)
            return {"relationships": {**said, "arguments": {"column_name": "id", "to": to, "field": "id"}}}
        case _:
            return None


def _unit_test(world: World, check: Check) -> dict[str, Any]:
    node = world.nodes[check.of[0]]
    parent = world.nodes[node.parents[0]]
    value = 10 + world.constant(node, {}) + check.is_wrong
    return {
        "name": check.name,
        "model": node.name,
        "given": [{"input": _ref(parent, braces=False), "rows": [{"id": 1, "val": 10}]}],
        "expect": {"rows": [{"id": 1, "val": value}]},
    }


def _ref(node: Node, braces: bool = True) -> str:
    said = f"ref('{node.name}', v={node.version})" if node.version else f"ref('{node.name}')"
    return f"{{{{ {said} }}}}" if braces else said


def _sql(world: World, node: Node) -> str:
    config = {"materialized": f"'{node.shape}'"}
    is_batched = node.shape == "microbatch"
    if node.shape == "incremental":
        config["unique_key"] = "'id'"
    if is_batched:
        config = {
            **{"materialized": "'incremental'", "incremental_strategy": "'microbatch'", "event_time": "'happened_at'"},
            **{"begin": "'2024-01-01'", "batch_size": "'year'", "lookback": "9"},
        }
    if node.goes_on:
        config["on_error"] = "'continue'"
    if node.package:
        config["tags"] = repr(sorted(node.tags))
    if node.hooked:
        config["pre_hook"] = config["post_hook"] = "'select 1'"
    parts = [
        f"select id, val from {{{{ source('raw', '{parent[7:]}') }}}}"
        if parent.startswith("source:")
        else f"select id, val from {_ref(world.nodes[parent])}"
        + (" where dbt_valid_to is null" if world.nodes[parent].kind == "snapshot" else "")
        for parent in node.parents
    ] or [f"select * from (values {', '.join(map(str, node.rows.items()))}) as made (id, val)"]
    at = f"make_timestamp(2024 + cast(id as bigint) % {_YEARS}, 6, 1, 0, 0, 0.0)"
    value = (
        f"case when val >= {BAD} then error('{node.name} minds the data') else val end" if node.minds_data else "val"
    )
    union = "\n  union all\n  ".join(parts)
    lines = [
        f"{{{{ config({', '.join(f'{key}={said}' for key, said in config.items())}) }}}}",
        f"select cast(id as bigint) as id, cast(sum({value}) + {_constant(node)} as bigint) as val"
        + (f", {at} as happened_at" if is_batched else ""),
        f"from (\n  {union}\n) as parts",
        "where no_such_column = 1" if node.is_broken else "where true",
        *(_trips(node)),
    ]
    if node.has_macro_filter and node.shape == "incremental":
        lines.append("{% if is_incremental() %} and id >= {{ lowest() }}{% endif %}")
    if is_batched:
        lines.append(
            f"{{% if model.batch %}} and {at} >= cast('{{{{ model.batch.event_time_start }}}}' as timestamptz)"
            f" and {at} < cast('{{{{ model.batch.event_time_end }}}}' as timestamptz){{% endif %}}"
        )
    if node.words:
        lines.insert(1, f"-- written in way {node.words}")
        lines.append("" if node.words % 2 else "/* by key */")
    return "\n".join([*lines, "GROUP  BY id\n" if node.words else "group by id\n"])


def _trips(node: Node) -> list[str]:
    if not node.can_trip:
        return []
    asked = f"env_var('{node.trip}', '')"
    lines = [f"{{% if {asked} == 'hard' %}} and no_such_column = 1{{% endif %}}"]
    if node.shape != "view":
        # A view would not look before somebody reads it.
        said = f"error('Transaction conflict: {node.name} has to wait')"
        lines.append(f"{{% if {asked} == 'pass' %}} and {said} is null{{% endif %}}")
    if node.shape == "microbatch":
        year = "model.batch.event_time_start.year"
        lines.append(
            f"{{% if {asked} == 'batch' and model.batch and {year} == 2025 %}} and no_such_column = 1{{% endif %}}"
        )
    return lines


def _constant(node: Node) -> str:
    more = {
        "macro": "{{ more() }}",
        "project_var": "{{ var('steady') }}",
        "var": "{{ var('bump', 0) }}",
        "env": "{{ env_var('BUMP', '0') }}",
    }
    return " + ".join([str(node.add), *(more[name] for name in sorted(node.looks_up))])


def load_rows(path: Path, sources: Mapping[str, Source]) -> None:
    """Write raw tables into a DuckDB file, loaded now; a stale one was loaded three days ago."""
    import duckdb

    with duckdb.connect(str(path)) as connection:
        connection.execute("create schema if not exists raw")
        for source in sources.values():
            rows = ", ".join(f"({key}, {value})" for key, value in source.rows.items())
            ago = "interval 3 day" if source.is_stale else "interval 0 hour"
            connection.execute(
                f"create or replace table raw.{source.name} as select cast(id as bigint) as id, "
                f"cast(val as bigint) as val, cast(now() at time zone 'UTC' as timestamp) - {ago} as loaded_at "
                f"from (values {rows}) as made (id, val)"
            )


def drop(path: Path, relation: str) -> None:
    """Drop a table or a view, as somebody may do by hand."""
    import duckdb

    with duckdb.connect(str(path)) as connection:
        for kind in connection.execute(
            "select table_type from information_schema.tables where table_schema = 'main' and table_name = ?",
            [relation],
        ).fetchall():
            connection.execute(f'drop {"view" if kind[0] == "VIEW" else "table"} main."{relation}"')


def read_rows(path: Path, world: World) -> dict[str, tuple[str, dict[int, int] | str]]:
    """Return what the warehouse has of each node: "table" or "view" with its values by id, or why it can't be read."""
    import duckdb

    found: dict[str, tuple[str, dict[int, int] | str]] = {}
    if not path.exists():
        return found
    with duckdb.connect(str(path), read_only=True) as connection:
        listed = dict(
            connection.execute(
                "select table_name, table_type from information_schema.tables where table_schema = 'main'"
            ).fetchall()
        )
        for relation, node in world.nodes.items():
            if relation not in listed or node.shape == "ephemeral":
                continue
            shape = "view" if listed[relation] == "VIEW" else "table"
            current = " where dbt_valid_to is null" if node.kind == "snapshot" else ""
            try:
                rows = connection.execute(f'select id, val from main."{relation}"{current}').fetchall()
                is_single = len({key for key, _ in rows}) == len(rows)
                found[relation] = (shape, dict(rows) if is_single else f"rows that are there twice: {sorted(rows)}")
            except duckdb.Error as exc:
                found[relation] = (shape, f"can't be read: {str(exc).splitlines()[0]}")
        if "run_done" in listed:
            found["run_done"] = ("table", dict(connection.execute("select id, id from main.run_done").fetchall()))
    return found
