"""Two machines and a target: the one that is cut off has stopped before the other writes, by the warehouse's log."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from benchmarks import two_writers
from benchmarks.two_writers import CUT, Case, Seen, main
from tests.support.postgres import some_postgres


def seen(first_until: float, second_from: float, at_once: int = 0) -> Seen:
    return Seen(Case("folder", CUT), first_until, second_from, at_once, 100.0, "")


def test_two_that_write_at_one_time_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [seen(95.0, 121.0), seen(95.0, 94.9), seen(95.0, 96.0, at_once=1)]
    assert [it.are_two for it in cases] == [False, True, True]
    two_writers._print(cases)
    assert capsys.readouterr().out.endswith("two writers: 2 of 3 cases\n")


@pytest.mark.slow
def test_a_machine_that_is_cut_off_has_stopped_before_the_other_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with some_postgres() as address:
        for name, key in {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}.items():
            monkeypatch.setenv(f"PG{name}", str(address[key]))
        result = CliRunner().invoke(main, ["--state", "folder", "--fault", CUT])
    assert result.exit_code == 0, result.output
    assert result.output.endswith("two writers: 0 of 1 cases\n")
    assert re.search(r"the first says: .* was stopped because the Prefect server has not renewed", result.output)
