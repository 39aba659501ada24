{# What `dbt debug` does not look at, printed as one line of JSON for connection_check.py. #}

{% macro look() %}
    {{ print("found: " ~ tojson(adapter.dispatch("look")())) }}
{% endmacro %}

{# Snowflake signs a user in to a database or warehouse that is not there, and then has none in use. #}
{% macro snowflake__look() %}
    {% set found = run_query("select current_database(), current_warehouse(), current_schema()").rows[0] %}
    {{ return({"database": found[0], "warehouse": found[1], "schema": found[2]}) }}
{% endmacro %}

{# A dataset is in one location, and a job in another one does not find it. #}
{% macro bigquery__look() %}
    {% set relation = api.Relation.create(database=target.project, schema=target.schema) %}
    {{ return({"location": adapter.get_dataset_location(relation)}) }}
{% endmacro %}
