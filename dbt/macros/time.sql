{% macro run_started_at_utc() -%}
    cast('{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S.%f") }}' as {{ dbt.type_timestamp() }})
{%- endmacro %}

{% macro add_days(date_expression, days) -%}
    cast({{ dbt.dateadd("day", days, date_expression) }} as date)
{%- endmacro %}

{% macro add_minutes(timestamp_expression, minutes_expression) -%}
    cast(
        {{ dbt.dateadd("minute", "coalesce(" ~ minutes_expression ~ ", 0)", timestamp_expression) }}
        as {{ dbt.type_timestamp() }}
    )
{%- endmacro %}

{% macro hours_between(start_expression, end_expression) -%}
    {{ ratio(
        "(" ~ epoch_microseconds(end_expression) ~ " - " ~ epoch_microseconds(start_expression) ~ ")",
        "3600000000",
        2
    ) }}
{%- endmacro %}

{% macro epoch_microseconds(timestamp_expression) -%}
    {{ return(adapter.dispatch("epoch_microseconds", "tributary")(timestamp_expression)) }}
{%- endmacro %}

{% macro default__epoch_microseconds(timestamp_expression) -%}
    cast(extract(epoch from {{ timestamp_expression }}) * 1000000 as {{ dbt.type_bigint() }})
{%- endmacro %}

{#- DuckDB's extract(epoch) is a double, which cannot hold microseconds exactly. -#}
{% macro duckdb__epoch_microseconds(timestamp_expression) -%}
    epoch_us({{ timestamp_expression }})
{%- endmacro %}

{% macro snowflake__epoch_microseconds(timestamp_expression) -%}
    date_part(epoch_microsecond, {{ timestamp_expression }})
{%- endmacro %}

{% macro bigquery__epoch_microseconds(timestamp_expression) -%}
    unix_micros({{ timestamp_expression }})
{%- endmacro %}

{% macro week_start(date_expression) -%}
    {{ return(adapter.dispatch("week_start", "tributary")(date_expression)) }}
{%- endmacro %}

{% macro default__week_start(date_expression) -%}
    cast({{ dbt.date_trunc("week", date_expression) }} as date)
{%- endmacro %}

{#- Snowflake's date_trunc('week') follows the session's WEEK_START. -#}
{% macro snowflake__week_start(date_expression) -%}
    cast(dateadd(day, 1 - dayofweekiso({{ date_expression }}), {{ date_expression }}) as date)
{%- endmacro %}

{% macro bigquery__week_start(date_expression) -%}
    date_trunc(cast({{ date_expression }} as date), isoweek)
{%- endmacro %}
