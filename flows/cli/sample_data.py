"""`tributary sample-data`."""

from __future__ import annotations

import click

from flows.cli.options import examples, raw_schema_option, target_option
from flows.cli.target import writing_to
from infrastructure.console import dumps, json_option, say
from infrastructure.screen import echo


@click.command("sample-data", epilog=examples("tributary sample-data --rows 1000000 --seed 7"))
@target_option
@click.option(
    "--rows", type=click.IntRange(1), default=20_000, show_default=True, help="Number of rows in all tables together."
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the generator: the same seed gives the same rows."
)
@raw_schema_option
@json_option
def sample_data(target: str, rows: int, seed: int, raw_schema: str, as_json: bool) -> None:
    """Write sample data of marketing and payroll, as Airbyte would load it."""
    with writing_to(target) as profile:
        from flows.loaders.sample_data import write_sample_data

        result = write_sample_data(profile, rows, seed, raw_schema=raw_schema, report=None if as_json else say)
        if as_json:
            from dataclasses import asdict

            echo(dumps(asdict(result)))
