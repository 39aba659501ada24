{# Rows on which the expression is not true; a null result counts as not true. #}
{% test expression_is_true(model, expression, column_name=none) %}

select *
from {{ model }}
where not coalesce({{ column_name ~ " " if column_name else "" }}{{ expression }}, false)

{% endtest %}
