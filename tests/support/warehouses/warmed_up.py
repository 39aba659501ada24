"""What the server that dbt commands are forked from imports: a dbt that has parsed once."""

from tests.support.warm_dbt import warm_up

warm_up()
