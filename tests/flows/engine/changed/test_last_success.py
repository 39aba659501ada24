"""The last good state on disk: whole or not at all, and never trusted when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.engine.artifacts.fingerprints import Input, Inputs, Parts
from flows.engine.changed import last_success as last_good
from flows.engine.changed.last_success import (
    KEPT_STATES,
    Built,
    LastSuccess,
    latest_folder,
    read_last_good,
    write_last_good,
)
from flows.engine.context.state import State
from infrastructure.errors import ConfigError

PARTS = Parts("c", "m", "f", "r", "s", {"day": "1"}, {})
LAST = LastSuccess(
    None,
    Inputs(
        {"model.a": Input("model.a", "a", "model", "table", "shop.a", ("source.b",), ("db", "s", "a"), PARTS)},
        {"source.b": "raw.b"},
        {"hooks": "1"},
    ),
    "proof",
    {
        "model.a": Built("success", "2026-11-21T12:00:00+00:00", "run-1", PARTS, {"source.b": None}, "x"),
        "model.b": Built("error", "2026-11-21T12:00:00+00:00", "run-1", None, {}, ""),
    },
    ("run-1",),
)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def test_what_is_written_is_read_back_with_the_artifacts_beside_it(state: State) -> None:
    assert read_last_good(state) is None
    write_last_good(state, LAST, {"manifest.json": b"{}"})
    found = read_last_good(state)
    assert found is not None
    assert found.folder is not None
    assert (found.inputs, found.proof, found.built, found.runs) == (LAST.inputs, "proof", LAST.built, ("run-1",))
    assert (found.folder / "manifest.json").read_bytes() == b"{}"
    assert [built.is_good for built in found.built.values()] == [True, False]


def test_the_newest_state_counts_and_only_the_last_few_are_kept(state: State) -> None:
    for number in range(KEPT_STATES + 2):
        write_last_good(state, LastSuccess(proof=str(number)), {})
    found = read_last_good(state)
    assert found is not None
    assert found.proof == str(KEPT_STATES + 1)
    assert len(list((state.folder / "last_good").iterdir())) == KEPT_STATES


@pytest.mark.parametrize(
    "content", [b"", b'{"format": 1, "built": {', b"[]", b'{"format": 0}', b'{"format": 1}', b"null"]
)
def test_a_state_that_is_cut_off_or_something_else_is_an_error_that_names_it(state: State, content: bytes) -> None:
    write_last_good(state, LAST, {})
    folder = latest_folder(state)
    assert folder is not None
    (folder / "nodes.json").write_bytes(content)
    with pytest.raises(
        ConfigError, match=rf"last good state in {folder} can't be read: nodes\.json is missing, cut off"
    ):
        read_last_good(state)


def test_a_disk_that_is_full_leaves_the_earlier_state_as_it_was(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    write_last_good(state, LAST, {"manifest.json": b"{}"})
    written: list[str] = []

    def full(path: Path, content: bytes) -> None:
        written.append(path.name)
        path.write_bytes(content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(last_good, "_write_through", full)
    with pytest.raises(OSError, match="No space left"):
        write_last_good(state, LastSuccess(proof="newer"), {"manifest.json": b"{}"})
    found = read_last_good(state)
    assert written
    assert found is not None
    assert found.proof == "proof"
    assert [path.name for path in (state.folder / "last_good").iterdir()] == ["00000001"]
