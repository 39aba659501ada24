"""The thresholds file: read strictly, and explained where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.history.health_settings import load_health
from infrastructure.errors import ConfigError


def test_a_check_that_is_left_out_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "h.yml").write_text("last_run: {warn_hours: 1, fail_hours: 2, normal: new, action: run it}\n")
    assert list(load_health(tmp_path / "h.yml").checks()) == ["last_run"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lst_run: {}", "line 1, lst_run: no such setting; did you mean `last_run`?"),
        ("last_run: {warn_hour: 1, fail_hours: 2, normal: a, action: b}", "did you mean `warn_hours`?"),
        (
            "last_run: {warn_hours: -1, fail_hours: 2, normal: a, action: b}",
            "warn_hours: expected greater than 0",
        ),
        ("last_run: {warn_hours: 1, fail_hours: 2, action: b}", "last_run.normal: is required"),
        ("last_run: [", "is not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "h.yml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_health(tmp_path / "h.yml")
    assert message in str(caught.value)
    assert str(tmp_path / "h.yml") in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*none\.yml"):
        load_health(tmp_path / "none.yml")
