"""What no fingerprint can see in SQL, and what only looks like it."""

from __future__ import annotations

import pytest

from flows.engine.artifacts.volatile_sql import unseen_in_python, unseen_in_sql, unseen_words


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("select id, current_date as day from {{ ref('a') }}", "reads the clock (current_date)"),
        ("select {{ dbt.current_timestamp() }} as at from {{ ref('a') }}", "reads the clock (current_timestamp)"),
        ("select * from {{ ref('a') }} where at > NOW() - interval 3 day", "reads the clock (NOW)"),
        ("select '{{ run_started_at }}' as at", "reads the clock (run_started_at)"),
        ("select gen_random_uuid() as id from {{ ref('a') }}", "is left to chance (gen_random_uuid)"),
        ("select * from {{ ref('a') }} using sample 10%", "is left to chance (using sample)"),
        ("select '{{ invocation_id }}' as run", "is left to chance (invocation_id)"),
        ("select * from read_csv('a.csv')", "reads files (read_csv)"),
        ("select * from 'a.parquet'", "reads files (from)"),
        ("select * from raw.orders", "reads raw.orders, which is neither a ref nor a source"),
        ('select * from {{ ref("a") }} join "Raw" . "orders" on true', 'reads "Raw"."orders", which is neither'),
        ("select * from orders", "reads orders, which is neither"),
        ("select * from {{ target.schema }}.orders", "reads ….orders, which is neither"),
        ("select * from {{ ref('a') }}_old", "reads …_old, which is neither"),
        ("select {{ env_var(name) }} as x", "looks up an environment variable whose name is worked out"),
    ],
)
def test_what_can_come_out_otherwise_is_said_in_words(sql: str, says: str) -> None:
    assert unseen_in_sql(sql).startswith(says)


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 as id",
        "with orders as (select * from {{ ref('a') }}), more (id) as (select 1) select * from orders join more on true",
        "with recursive up as materialized (select * from {{ source('a', 'b') }}) select * from UP",
        "select extract(year from t.day), trim(both ' ' from t.name), a is distinct from t.b from {{ ref('a') }} as t",
        "select * from {{ ref('a') }} -- not from raw.orders, and not now()",
        "select * from {{ ref('a') }} /* current_date */ {# random() #}",
        "select updated_at, current_date_key, known(), brand(x) from {{ ref('a') }}",
        "select n from generate_series(1, 10) as s(n), unnest([1]) as u",
        "select * from {{ ref('a') }} where name = 'taken from raw.orders'",
        "with cte_{{ i }} as (select 1 as id) select * from cte_{{ i }}",
        "select '{{ env_var('NAME') }}' as x, {{ var('y') }} as y",
        "select * from {{ this }}",
    ],
)
def test_what_only_looks_like_it_is_left_alone(sql: str) -> None:
    assert unseen_in_sql(sql) == ""


def test_macros_are_searched_for_words_only() -> None:
    assert (
        unseen_words("{% macro a(t) %}select * from x.y where d < today(){% endmacro %}") == "reads the clock (today)"
    )
    assert unseen_words("{% macro a(t) %}select * from x.y{% endmacro %}") == ""


def test_python_models_are_searched_for_clock_chance_and_the_world_outside() -> None:
    assert unseen_in_python("def model(dbt, session):\n    return dbt.ref('a')  # now()") == ""
    assert unseen_in_python("import requests") == "reads from outside (requests)"
    assert unseen_in_python("day = datetime.now()") == "is left to clock or chance (now)"
