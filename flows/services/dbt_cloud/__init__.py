"""A client of dbt Cloud's administrative API that stays under its limits and never does a thing twice."""
