"""The types that blocks are saved as, kept as data: importing the libraries behind them takes up to 20 s.

`uv run --isolated --extra blocks --extra snowflake --extra bigquery python -m infrastructure.blocks.block_types` writes
block_types.json anew from those libraries; with `--check` it says whether the file is up to date.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

BLOCK_TYPES_FILE = Path(__file__).with_name("block_types.json")


@dataclass(frozen=True)
class BlockType:
    """A block type and the schema of its fields, as its library registers them.

    Attributes:
        settings: name, slug, logo_url, documentation_url, description and code_example.
        fields: the JSON Schema of the fields, with the secret ones and those that are blocks themselves.
        checksum: of the fields; with the version it identifies the schema on a server.
    """

    settings: dict[str, Any]
    fields: dict[str, Any]
    capabilities: list[str]
    version: str
    checksum: str

    @property
    def slug(self) -> str:
        """Return the type's name in addresses."""
        return self.settings["slug"]

    @property
    def nested(self) -> list[str]:
        """Return the slugs of the block types that fields of this one refer to."""
        references = self.fields["block_schema_references"].values()
        listed = [item for found in references for item in (found if isinstance(found, list) else [found])]
        return [item["block_type_slug"] for item in listed]

    @property
    def defaults(self) -> dict[str, Any]:
        """Return the value that each field has when it is left out, where there is one."""
        properties = self.fields["properties"].items()
        return {name: field["default"] for name, field in properties if field.get("default") is not None}

    def is_secret(self, path: str) -> bool:
        """Tell whether Prefect hides the field at a dotted path from readers who do not ask for secrets."""
        for secret in self.fields["secret_fields"]:
            if path == secret or (secret.endswith(".*") and path.startswith(secret[:-1])):
                return True
        return False


@cache
def block_types() -> dict[str, BlockType]:
    """Return every block type by slug, each after those that it refers to."""
    entries = json.loads(BLOCK_TYPES_FILE.read_text(encoding="utf-8"))
    return {entry["settings"]["slug"]: BlockType(**entry) for entry in entries}


def block_type(slug: str) -> BlockType:
    """Return one block type."""
    return block_types()[slug]


def text_from_libraries() -> str:
    """Return what infrastructure/blocks/block_types.json should hold, from the block classes themselves."""
    with warnings.catch_warnings():
        # prefect_dbt.cli says that it is deprecated, and nothing replaces its profile blocks.
        warnings.simplefilter("ignore")
        from prefect.blocks.notifications import PagerDutyWebHook, SlackWebhook
        from prefect.blocks.system import Secret
        from prefect.blocks.webhook import Webhook
        from prefect_dbt.cli import DbtCliProfile  # pyright: ignore[reportMissingImports]
        from prefect_dbt.cli.configs import (  # pyright: ignore[reportMissingImports]
            BigQueryTargetConfigs,
            GlobalConfigs,
            PostgresTargetConfigs,
            SnowflakeTargetConfigs,
            TargetConfigs,
        )
        from prefect_gcp import GcpCredentials  # pyright: ignore[reportMissingImports]
        from prefect_snowflake import (  # pyright: ignore[reportMissingImports]
            SnowflakeConnector,
            SnowflakeCredentials,
        )
        from prefect_sqlalchemy import SqlAlchemyConnector  # pyright: ignore[reportMissingImports]

    classes: list[Any] = [
        *(
            Secret,
            SlackWebhook,
            Webhook,
            PagerDutyWebHook,
            GcpCredentials,
            SnowflakeCredentials,
            SnowflakeConnector,
            SqlAlchemyConnector,
        ),
        *(TargetConfigs, BigQueryTargetConfigs, SnowflakeTargetConfigs, PostgresTargetConfigs, GlobalConfigs),
        DbtCliProfile,
    ]
    return json.dumps([_entry(block) for block in classes], indent=1) + "\n"


def _entry(block: Any) -> dict[str, Any]:  # noqa: ANN401 (a class of any of those libraries)
    settings = ("name", "slug", "logo_url", "documentation_url", "description", "code_example")
    schema = block._to_block_schema()
    return {
        "settings": block._to_block_type().model_dump(include=set(settings), mode="json"),
        "fields": schema.fields,
        "capabilities": sorted(schema.capabilities),
        "version": schema.version,
        "checksum": schema.checksum,
    }


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` compare it with the libraries."""
    text = text_from_libraries()
    if arguments == ["--check"]:
        is_current = BLOCK_TYPES_FILE.exists() and BLOCK_TYPES_FILE.read_text(encoding="utf-8") == text
        print("up to date" if is_current else "infrastructure/blocks/block_types.json is out of date: write it anew")
        return 0 if is_current else 1
    BLOCK_TYPES_FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
