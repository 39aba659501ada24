{% macro money(expression) -%}
    {{ dbt.cast(expression, "numeric(18, 2)") }}
{%- endmacro %}

{#-
    BigQuery takes no precision in a cast ("Parameterized types are not allowed in CAST expressions"), not even in the
    casts that dbt itself writes to compare a model with its contract.
-#}
{% macro bigquery__cast(field, type) -%}
    {%- set with_precision = "(?:numeric|decimal)\\(\\s*\\d+\\s*(?:,\\s*(\\d+)\\s*)?\\)$" -%}
    {%- set exact = modules.re.match(with_precision, type | trim | lower) -%}
    {%- if exact -%}
        round(cast({{ field }} as numeric), {{ exact.group(1) or 0 }})
    {%- else -%}
        cast({{ field }} as {{ type }})
    {%- endif -%}
{%- endmacro %}

{#- Multiplying by a decimal stays exact everywhere; dividing gives a double on DuckDB and BigQuery. -#}
{% macro money_from_micros(expression) -%}
    {{ money(expression ~ " * " ~ dbt.cast("'0.000001'", "numeric(18, 6)")) }}
{%- endmacro %}

{% macro money_from_cents(expression) -%}
    {{ money(expression ~ " * " ~ dbt.cast("'0.01'", "numeric(18, 2)")) }}
{%- endmacro %}

{% macro ratio(numerator, denominator, scale) -%}
    {{ return(adapter.dispatch("ratio", "tributary")(numerator, denominator, scale)) }}
{%- endmacro %}

{% macro default__ratio(numerator, denominator, scale) -%}
    cast(
        round(
            cast({{ numerator }} as numeric(18, 2)) / nullif(cast({{ denominator }} as numeric(18, 2)), 0),
            {{ scale }}
        )
        as numeric(18, {{ scale }})
    )
{%- endmacro %}

{#- DuckDB divides decimals as doubles, so a tie can fall to either side: divide whole numbers instead. -#}
{% macro duckdb__ratio(numerator, denominator, scale) -%}
    {%- set dividend = "cast(cast(" ~ numerator ~ " as numeric(28, 2)) * 100 as hugeint)" -%}
    {%- set divisor = "cast(cast(" ~ denominator ~ " as numeric(28, 2)) * 100 as hugeint)" -%}
    cast(
        cast(
            sign({{ dividend }}) * (
                (2 * abs({{ dividend }}) * {{ 10 ** scale }} + {{ divisor }}) // nullif(2 * {{ divisor }}, 0)
            ) as numeric(18, 0)
        ) * cast('{{ ("%." ~ scale ~ "f") % (10 ** (-scale)) }}' as numeric(18, {{ scale }}))
        as numeric(18, {{ scale }})
    )
{%- endmacro %}

{#- Snowflake rounds a quotient to eight decimals and BigQuery to nine, and so twice: divide whole numbers instead. -#}
{% macro snowflake__ratio(numerator, denominator, scale) -%}
    {{ rounded_once(numerator, denominator, scale) }}
{%- endmacro %}

{% macro bigquery__ratio(numerator, denominator, scale) -%}
    {{ rounded_once(numerator, denominator, scale) }}
{%- endmacro %}

{% macro rounded_once(numerator, denominator, scale) -%}
    {%- set dividend = "(" ~ dbt.cast(numerator, "numeric(28, 2)") ~ " * 100)" -%}
    {%- set divisor = "nullif(2 * " ~ dbt.cast(denominator, "numeric(28, 2)") ~ " * 100, 0)" -%}
    {%- set doubled = "(2 * abs(" ~ dividend ~ ") * " ~ 10 ** scale ~ " + " ~ divisor ~ " / 2)" -%}
    {{ dbt.cast(
        "sign(" ~ dividend ~ ") * (" ~ doubled ~ " - mod(" ~ doubled ~ ", " ~ divisor ~ ")) / " ~ divisor
        ~ " / " ~ 10 ** scale,
        "numeric(18, " ~ scale ~ ")",
    ) }}
{%- endmacro %}
