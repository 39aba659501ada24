"""Tests of the dbt project: real dbt on real warehouses."""
