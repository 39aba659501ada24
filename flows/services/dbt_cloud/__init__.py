"""dbt Cloud's administrative API: signing in, staying under its limits, and asking again without doing twice."""
