{#-
    dbt's own versions give the session's local time, and a DuckDB session takes its time zone from the machine.
-#}
{% macro duckdb__snapshot_get_time() -%}
    cast(now() at time zone 'UTC' as timestamp)
{%- endmacro %}

{% macro postgres__snapshot_get_time() -%}
    cast(now() at time zone 'UTC' as timestamp)
{%- endmacro %}
