"""The measurement of loading runs, and its last lines can be read by a program."""

from __future__ import annotations

import re

from click.testing import CliRunner

from benchmarks.raw_load import raw_load


def test_a_small_measurement_loads_both_kinds_of_data_and_ends_in_numbers() -> None:
    result = CliRunner().invoke(raw_load, ["--rows", "500", "--commits", "20", "--only", "duckdb"])
    assert result.exit_code == 0, result.output
    assert re.search(r"git, first load +duckdb +20 ", result.output)
    assert re.search(r"git, nothing new +duckdb +20 ", result.output)
    last = result.stdout.splitlines()[-1]
    assert re.fullmatch(r"rows_per_second duckdb: [1-9]\d* postgres: none", last)
