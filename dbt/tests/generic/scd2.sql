{#
    What must hold for a table of versions, each true from `valid_from` up to, not including, `valid_to`
    (null while it is the current one). Restrict the rows with the test's `where` configuration.
#}

{# Keys that do not have exactly one current version; `at_most_one` accepts none (a deleted record). #}
{% test scd2_one_current_version(model, key, valid_to, at_most_one=false) %}

select
    {{ key }},
    sum(case when {{ valid_to }} is null then 1 else 0 end) as current_versions
from {{ model }}
group by {{ key }}
having sum(case when {{ valid_to }} is null then 1 else 0 end) {{ "> 1" if at_most_one else "<> 1" }}

{% endtest %}

{# Versions that do not end after they begin. #}
{% test scd2_ends_after_start(model, key, valid_from, valid_to) %}

select
    {{ key }},
    {{ valid_from }},
    {{ valid_to }}
from {{ model }}
where {{ valid_from }} is null or {{ valid_to }} <= {{ valid_from }}

{% endtest %}

{# Versions that still hold when the next one of their key begins. #}
{% test scd2_no_overlap(model, key, valid_from, valid_to) %}

with versions as (
    select
        {{ key }},
        {{ valid_from }},
        {{ valid_to }},
        lead({{ valid_from }}) over (partition by {{ key }} order by {{ valid_from }}) as next_valid_from
    from {{ model }}
)

select *
from versions
where next_valid_from is not null and ({{ valid_to }} is null or {{ valid_to }} > next_valid_from)

{% endtest %}

{# Versions that end before the next one of their key begins. #}
{% test scd2_no_gap(model, key, valid_from, valid_to) %}

with versions as (
    select
        {{ key }},
        {{ valid_from }},
        {{ valid_to }},
        lead({{ valid_from }}) over (partition by {{ key }} order by {{ valid_from }}) as next_valid_from
    from {{ model }}
)

select *
from versions
where {{ valid_to }} < next_valid_from

{% endtest %}
