"""Load what setup saved with the libraries that the blocks are of; runs in an environment that has them all.

Reads {"warehouses": {target: warehouse}, "local_profiles": path} from standard input, and prints what the
block classes and dbt make of each target, as one JSON document on the last line.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from argparse import Namespace
from typing import Any

from tests.support.block_libraries import READY

print(READY, flush=True)
warnings.simplefilter("ignore")

from dbt.config.profile import Profile as DbtProfile  # noqa: E402
from dbt.config.renderer import ProfileRenderer  # noqa: E402
from prefect.blocks.notifications import PagerDutyWebHook, SlackWebhook  # noqa: E402
from prefect.blocks.system import Secret  # noqa: E402
from prefect.blocks.webhook import Webhook  # noqa: E402
from prefect_dbt.cli import DbtCliProfile  # noqa: E402  # pyright: ignore[reportMissingImports]
from prefect_dbt.cli.configs import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    BigQueryTargetConfigs,
    PostgresTargetConfigs,
    SnowflakeTargetConfigs,
    TargetConfigs,
)
from prefect_gcp import GcpCredentials  # noqa: E402  # pyright: ignore[reportMissingImports]
from prefect_snowflake import SnowflakeCredentials  # noqa: E402  # pyright: ignore[reportMissingImports]
from prefect_sqlalchemy import SqlAlchemyConnector  # noqa: E402  # pyright: ignore[reportMissingImports]

from infrastructure.blocks.block_types import BLOCK_TYPES_FILE, text_from_libraries  # noqa: E402
from infrastructure.profiles import load_profile  # noqa: E402

CONFIGS: dict[str, Any] = {
    "duckdb": TargetConfigs,
    "postgres": PostgresTargetConfigs,
    "snowflake": SnowflakeTargetConfigs,
    "bigquery": BigQueryTargetConfigs,
}


def _as_dbt_sees_it(raw: dict[str, Any], target: str) -> dict[str, Any]:
    """Return the credentials that dbt makes of a profile: rendered, validated by the adapter's own class."""
    from dbt.flags import set_from_args
    from dbt_common.context import set_invocation_context

    set_invocation_context(os.environ)
    set_from_args(Namespace(), {})
    profile = DbtProfile.from_raw_profile_info(
        raw_profile=raw["tributary"],
        profile_name="tributary",
        renderer=ProfileRenderer({}),
        target_override=target,
    )
    return profile.credentials.to_dict(omit_none=True) | {"threads": profile.threads}


def _target(target: str, warehouse: str, local: dict[str, Any]) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = {}
    block = DbtCliProfile.load(f"dbt-cli-profile-{target}")
    found["profile"] = block.get_profile()["tributary"]["outputs"][target]
    configs = CONFIGS.get(warehouse, TargetConfigs).load(f"{warehouse}-target-configs-{target}")
    # Without a key, prefect-dbt asks Google for a token at once: there is no Google here.
    if not (warehouse == "bigquery" and configs.credentials.service_account_info is None):
        found["configs"] = configs.get_configs()
    if warehouse not in CONFIGS:
        # The adapters that would judge the output are not here.
        return found
    found |= _credentials(f"credentials-{target}", warehouse)
    profile = load_profile(target)
    os.environ.update(profile.child_environment())
    found["dbt"] = _as_dbt_sees_it(yaml.safe_load(profile.profiles_yml()), target)
    for variable in profile.child_environment():
        del os.environ[variable]
    found["dbt_local"] = _as_dbt_sees_it(local, target)
    return found


def _credentials(block: str, warehouse: str) -> dict[str, Any]:
    """Return what a flow of one's own gets of the credentials and from which class; nothing without a block."""
    found: dict[str, Any] = {}
    try:
        match warehouse:
            case "postgres":
                loaded = SqlAlchemyConnector.load(block)
                url = loaded.connection_info.create_url()
                found = {"user": url.username, "password": url.password, "host": url.host}
            case "snowflake":
                loaded = SnowflakeCredentials.load(block)
                plain = loaded.model_dump(exclude_none=True)
                found = {key: _shown(value) for key, value in plain.items()}
            case "bigquery":
                loaded = GcpCredentials.load(block)
                found = _shown(loaded.service_account_info) or {}
            case _:
                return {}
    except ValueError as exc:
        if "Unable to find block document" not in str(exc):
            raise
        return {}
    return {"credentials": found, "class": type(loaded).__name__}


def _shown(value: Any) -> Any:
    shown = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    return shown.decode() if isinstance(shown, bytes) else shown


def _secret(name: str) -> str:
    block: Any = Secret.load(name)
    return block.get()


def main() -> None:
    """Answer the request on standard input."""
    import yaml

    request = json.load(sys.stdin)
    with open(request["local_profiles"]) as file:
        local = yaml.safe_load(file)
    slack: Any = SlackWebhook.load("slack-webhook")
    pagerduty: Any = PagerDutyWebHook.load("pagerduty")
    webhook: Any = Webhook.load("slack-webhook")
    answer = {
        "block_types": text_from_libraries() == BLOCK_TYPES_FILE.read_text(),
        "targets": {name: _target(name, warehouse, local) for name, warehouse in request["warehouses"].items()},
        "slack": slack.url.get_secret_value(),
        "slack_from_automations": webhook.url.get_secret_value(),
        "pagerduty": pagerduty.integration_key.get_secret_value(),
        "airbyte": {name: _secret(f"airbyte-{name}") for name in ("api-url", "client-id", "client-secret")},
    }
    print(json.dumps(answer, default=str))


if __name__ == "__main__":
    main()
