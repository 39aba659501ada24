"""Save blocks as people make them by hand with Prefect's libraries; runs in an environment that has them.

Reads {"name": …, "postgres": {…}, "key": …, "keyfile": {…}} from standard input, and prints for each profile block the
output that prefect-dbt makes of it, as one JSON document on the last line.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

from tests.support.block_libraries import READY

print(READY, flush=True)
warnings.simplefilter("ignore")

from prefect_dbt.cli import DbtCliProfile  # noqa: E402  # pyright: ignore[reportMissingImports]
from prefect_dbt.cli.configs import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    BigQueryTargetConfigs,
    PostgresTargetConfigs,
    SnowflakeTargetConfigs,
    TargetConfigs,
)
from prefect_gcp import GcpCredentials  # noqa: E402  # pyright: ignore[reportMissingImports]
from prefect_snowflake import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    SnowflakeConnector,
    SnowflakeCredentials,
)
from prefect_sqlalchemy import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    ConnectionComponents,
    SqlAlchemyConnector,
    SyncDriver,
)


def main() -> None:
    """Answer the request on standard input."""
    asked: dict[str, Any] = json.load(sys.stdin)
    name, place = asked["name"], asked["postgres"]
    driver = SyncDriver.POSTGRESQL_PSYCOPG2
    components = ConnectionComponents(
        driver=driver,
        username=place["user"],
        password=place["password"],
        host=place["host"],
        port=place["port"],
        database=place["dbname"],
    )
    SqlAlchemyConnector(connection_info=components).save(f"{name}-parts")
    address = (
        f"postgresql+psycopg2://{place['user']}:{place['password']}@{place['host']}:{place['port']}/{place['dbname']}"
    )
    SqlAlchemyConnector(connection_info=address).save(f"{name}-address")
    SnowflakeCredentials(account="acme-1", user="BUILDER", private_key=asked["key"], role="R").save(f"{name}-snowflake")
    GcpCredentials(service_account_info=asked["keyfile"], project="acme").save(f"{name}-gcp")

    snowflake = SnowflakeConnector(
        database="DB", warehouse="WH", schema="dbt", credentials=SnowflakeCredentials.load(f"{name}-snowflake")
    )
    clear = {**place, "port": int(place["port"])}
    configs: dict[str, Any] = {
        "clear": TargetConfigs(type="postgres", schema="by_hand", threads=2, extras=clear),
        "nested": PostgresTargetConfigs(schema="by_hand", credentials=SqlAlchemyConnector.load(f"{name}-parts")),
        "snowflake": SnowflakeTargetConfigs(connector=snowflake, extras={"query_tag": "t"}),
        "bigquery": BigQueryTargetConfigs(
            schema="by_hand", project="acme", credentials=GcpCredentials.load(f"{name}-gcp"), extras={"location": "EU"}
        ),
    }
    TargetConfigs(type="postgres", schema="by_hand", extras=clear).save(f"{name}-saved")
    configs["saved"] = TargetConfigs.load(f"{name}-saved")
    found: dict[str, Any] = {}
    for each, value in configs.items():
        block = DbtCliProfile(name="house", target="dev", target_configs=value)
        block.save(f"{name}-{each}")
        found[each] = block.get_profile()["house"]["outputs"]["dev"]
    print(json.dumps(found, default=lambda value: value.decode() if isinstance(value, bytes) else str(value)))


if __name__ == "__main__":
    main()
