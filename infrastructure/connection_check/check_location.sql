{# What `dbt debug` does not look at, printed as one line of JSON for connection_check.py. #}

{% macro look() %}
    {{ print("found: " ~ tojson(adapter.dispatch("look")())) }}
{% endmacro %}

{# Snowflake signs a user in to a database or warehouse that is not there, and then has none in use. #}
{% macro snowflake__look() %}
    {% set found = run_query("select current_database(), current_warehouse()").rows[0] %}
    {{ return({"database": found[0], "warehouse": found[1]}) }}
{% endmacro %}

{#
    A dataset is in one location, and a job in another one does not find it. A project whose models all have schemas of
    their own has no dataset of the target's name: then those that begin with it stand for it, ten at most, and one of
    them in the right location is enough, as some may be other people's.
#}
{% macro bigquery__look() %}
    {% set names = adapter.list_schemas(target.project) | sort %}
    {% if target.schema in names %}
        {% set names = [target.schema] %}
    {% else %}
        {% set prefix = target.schema ~ "_" %}
        {% set names = names | select("ge", prefix) | select("lt", prefix ~ "~") | list %}
    {% endif %}
    {% set locations = [] %}
    {% for name in names[:10] %}
        {% set relation = api.Relation.create(database=target.project, schema=name) %}
        {% do locations.append(adapter.get_dataset_location(relation) | upper) %}
    {% endfor %}
    {% set wanted = (target.location or "") | upper %}
    {{ return({"location": wanted if wanted in locations else locations | first if locations else none}) }}
{% endmacro %}
