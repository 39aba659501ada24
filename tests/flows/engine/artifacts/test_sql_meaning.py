"""Texts of models that say the same, and texts that only look like it."""

from __future__ import annotations

import pytest

from flows.engine.artifacts.sql_meaning import says_the_same

MODEL = """{{ config(materialized="table") }}
with orders as (
    select id, amount * 2 as Total from {{ ref('stg_orders') }} where amount > 0
)
select id, Total, 'a -- b' as note from orders
"""


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (MODEL, MODEL.replace("\n", "\n\n").replace("    ", "\t")),
        (MODEL, f"-- what it is for\n{MODEL.replace('select id', 'select /* the key */ id')}"),
        (MODEL, f"{{# what it is for #}}\n{MODEL}"),
        (MODEL, MODEL.replace("select", "SELECT").replace("from", "From").replace("where", "WHERE")),
        (MODEL, MODEL.replace("{{ ref('stg_orders') }}", "{{ref( 'stg_orders' )}}")),
        (MODEL, MODEL.replace("where amount > 0", "where (amount > 0)")),
        (MODEL, MODEL.replace("amount * 2", "((amount)) * 2")),
        (
            "select id, sum(x) as x from {{ ref('a') }} group by id",
            "SELECT ID, SUM(X) AS x\nFROM {{ ref('a') }}\nGROUP  BY Id",
        ),
        ("select a{% if x %}, b{% endif %} from t", "select a{%if x%}, b{% endif %}\nfrom t -- all of it"),
        ("select {{ cents('x') }} as x, y", "select {{ cents('x') }}  as x,y"),
    ],
)
@pytest.mark.parametrize("adapter", ["duckdb", "postgres", "snowflake", "bigquery", "databricks"])
def test_what_only_looks_otherwise_says_the_same(then: str, now: str, adapter: str) -> None:
    assert says_the_same(then, now, adapter)
    assert says_the_same(now, then, adapter)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (MODEL, MODEL.replace("amount > 0", "amount >= 0")),
        (MODEL, MODEL.replace("'a -- b'", "'a  -- b'")),
        (MODEL, MODEL.replace("'a -- b'", "'A -- b'")),
        (MODEL, MODEL.replace("stg_orders", "stg_returns")),
        (MODEL, MODEL.replace('"table"', '"view"')),
        (MODEL, MODEL.replace("amount * 2", "amount -- * 2")),
        # Parentheses that change what is computed, or what is named.
        ("select a * (b + c) as x from t", "select a * b + c as x from t"),
        ("select (a).b as x from t", "select a.b as x from t"),
        ("select x from t where a and (b or c)", "select x from t where a and b or c"),
        ("select {{ one_more('x') }} * 2 as y", "select ({{ one_more('x') }}) * 2 as y"),
        # Jinja that is executed though it stands in a comment, or is no longer.
        ("select 1 as x -- {{ log('x') }}", "select 1 as x"),
        ("select 1 as x -- {{ columns() }}", "select 1 as x --  {{ columns() }}"),
        ("select 1 as x {# {{ columns() }} #}", "select 1 as x {{ columns() }}"),
        # Text that is put together, or kept as it is.
        ("select {{ prefix }}_id from t", "select {{ prefix }} _id from t"),
        ("select '{{ name }} x' as x", "select '{{ name }}  x' as x"),
        (
            "{% set text %}a  b{% endset %}select '{{ text }}' as x",
            "{% set text %}a b{% endset %}select '{{ text }}' as x",
        ),
        ("{% call told() %}a  b{% endcall %}", "{% call told() %}a b{% endcall %}"),
        ("{% raw %}select 1{% endraw %} as x", "{% raw %}select  1{% endraw %} as x"),
        ("select a {{- b }} from t", "select a {{ b }} from t"),
        # A macro can end in a comment, which the end of its line ends.
        ("select {{ sum_of('a') }}\n, b from t", "select {{ sum_of('a') }}, b from t"),
        # Names in quotes are what they are.
        ('select "Id" from t', 'select "id" from t'),
        ('select "id" from t', "select id from t"),
        ("select 1 union all select 2", "select 1 union select 2"),
        ("select 5--3\n from t", "select 5- -3\n from t"),
        ("select 1 as x {% if", "select 1 as x  {% if"),
        ("select 'open", "select  'open"),
    ],
)
@pytest.mark.parametrize("adapter", ["duckdb", "postgres", "snowflake", "bigquery", "databricks"])
def test_what_may_be_something_else_is_not_said_to_be_the_same(then: str, now: str, adapter: str) -> None:
    assert not says_the_same(then, now, adapter)
    assert not says_the_same(now, then, adapter)


def test_a_columns_name_is_as_it_was_written_where_the_warehouse_shows_it_so() -> None:
    then, now = "select a as total, b amount from t", "select a as Total, b Amount from t"
    assert [says_the_same(then, now, each) for each in ("duckdb", "bigquery", "snowflake", "postgres")] == [
        *(False, False, True, True)
    ]


def test_names_that_differ_in_case_are_two_where_the_warehouse_says_so() -> None:
    assert not says_the_same("select a from t", "select A from t", "clickhouse")
    assert says_the_same("select a from t", "SELECT a FROM t", "clickhouse")


def test_of_a_dialect_that_nobody_knows_nothing_is_the_same() -> None:
    assert not says_the_same("select a from t", "select a  from t", "of_the_future")
