{% test one_current_rate(model) %}
select player, kind from {{ model }} where is_current group by player, kind having count(*) > 1
{% endtest %}
