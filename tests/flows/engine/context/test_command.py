"""dbt commands as arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.engine.context.command import DbtCommand, Place, arguments
from infrastructure.errors import ConfigError

PLACE = Place(Path("/project"), Path("/profiles"), "shop", Path("/artifacts"), Path("/run"))


def after_folders(command: DbtCommand) -> list[str]:
    """Return the arguments that follow the folders."""
    argv = arguments(command, PLACE, "dev")
    return argv[argv.index("/run") + 1 :]


def test_a_command_names_its_folders_target_and_log_format() -> None:
    argv = arguments(DbtCommand("source freshness"), PLACE, "prod")
    words = " ".join(argv)
    assert words.startswith("source freshness ")
    for pair in (
        "--project-dir /project",
        "--profiles-dir /profiles",
        "--target prod",
        "--target-path /artifacts",
        "--log-path /run",
    ):
        assert pair in words


def test_selections_are_single_words_and_variables_are_yaml() -> None:
    command = DbtCommand("build", "a+ tag:b", "c d", full_refresh=True, vars={"day": "2026-01-31", "all": [1, None]})
    assert after_folders(command) == [
        *("--select", "a+", "tag:b", "--exclude", "c", "d", "--full-refresh"),
        *("--vars", "{all: [1, null], day: '2026-01-31'}"),
    ]


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("build", ["--select", "a", "--full-refresh"]),
        ("run", ["--select", "a", "--full-refresh"]),
        ("seed", ["--select", "a", "--full-refresh"]),
        ("test", ["--select", "a"]),
        ("snapshot", ["--select", "a"]),
        ("source freshness", ["--select", "a"]),
        ("docs generate", []),
    ],
)
def test_a_command_is_given_only_what_it_takes(verb: str, expected: list[str]) -> None:
    assert after_folders(DbtCommand(verb, "a", full_refresh=True)) == expected


def test_a_selector_stands_in_place_of_a_selection() -> None:
    assert after_folders(DbtCommand("build", selector="nightly")) == ["--selector", "nightly"]
    with pytest.raises(ConfigError, match="Give either --selector or --select/--exclude"):
        DbtCommand("build", exclude="a", selector="nightly")


@pytest.mark.parametrize("words", ["--profiles-dir /tmp", "a --vars {}", "-t"])
@pytest.mark.parametrize("option", ["select", "exclude"])
def test_a_selection_cannot_smuggle_an_option_in(option: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option} was given .* which reads like an option"):
        DbtCommand("build", **{option: words})
