"""A dbt project whose folders and names mean something else in a selection, or in a shell; every dbt takes it."""

from __future__ import annotations

from pathlib import Path

_FILES = {
    "dbt_project.yml": """
name: odd
version: '1.0'
profile: odd
flags: {send_anonymous_usage_stats: false}
models: {odd: {+materialized: table}}
""",
    "seeds/raw_orders.csv": "id\n1\n2\n",
    "models/Finance & Sales/orders.sql": "select {{ env_var('ODD_ORDERS', 'id') }} as id from {{ ref('raw_orders') }}",
    "models/Finance & Sales/orders_by_day.sql": "select id from {{ ref('orders') }}",
    # A folder with the name of a model, and a singular test with that too.
    "models/orders/inner_orders.sql": "select id from {{ ref('orders') }}",
    "tests/orders.sql": "select 1 as id where false",
    "models/2024.sql": "select 1 as id",
    "models/zwölf/größe.sql": "select 1 as id",
    "models/dim_v1.sql": "select 1 as id",
    "models/dim_v2.sql": "select 1 as id, 2 as other",
    "models/inside.sql": "{{ config(materialized='ephemeral') }}\nselect id from {{ ref('orders') }}",
    "models/on_inside.sql": "select id from {{ ref('inside') }}",
    "models/metricflow_time_spine.sql": "select cast('2026-01-01' as date) as date_day",
    "models/facts.sql": "select 1 as id, 2 as amount, cast('2026-01-01' as date) as day",
    "snapshots/snap.sql": "{% snapshot snap %}"
    "{{ config(unique_key='id', strategy='check', check_cols='all', target_schema='main') }}"
    "select id from {{ ref('orders') }}{% endsnapshot %}",
    "models/schema.yml": """
sources: [{name: raw, schema: main, tables: [{name: raw_orders}]}]
models:
  - name: orders
    columns:
      - name: id
        data_tests:
          - unique: {name: 'orders.id=unique,always'}
          - not_null: {name: 'id::not_null'}
          - not_null: {name: 'grade_A+'}
          - not_null: {name: 'ratio_within_[0,1]'}
          - not_null: {name: '@at'}
          - not_null: {name: 'to*'}
  - name: dim
    latest_version: 2
    versions: [{v: 1}, {v: 2}]
    columns: [{name: id, data_tests: [not_null]}]
exposures:
  - {name: board, type: dashboard, owner: {name: a, email: a@example.com}, depends_on: [ref('orders')]}
unit_tests:
  - name: 'unit_[a],b'
    model: orders_by_day
    given: [{input: ref('orders'), rows: [{id: 1}]}]
    expect: {rows: [{id: 1}]}
""",
    "models/semantic.yml": """
models:
  - name: metricflow_time_spine
    time_spine: {standard_granularity_column: date_day}
    columns: [{name: date_day, granularity: day}]
semantic_models:
  - name: facts
    model: ref('facts')
    defaults: {agg_time_dimension: on_day}
    entities: [{name: id, type: primary}]
    dimensions: [{name: on_day, expr: day, type: time, type_params: {time_granularity: day}}]
    measures: [{name: total, expr: amount, agg: sum}]
metrics:
  - {name: total_amount, label: Total, type: simple, type_params: {measure: total}}
""",
}
# Nodes of every kind, each of which something else in the project resembles.
SOME = (
    "model.odd.orders",
    "model.odd.dim.v1",
    "model.odd.größe",
    "model.odd.2024",
    "seed.odd.raw_orders",
    "snapshot.odd.snap",
    "test.odd.orders",
    "test.odd.ratio_within_[0,1].90c1a68439",
)


def write_odd_project(folder: Path) -> Path:
    """Write the project, and return its folder."""
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
