"""The record of a run on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.engine.context.events import NodeEvent
from flows.engine.ledger.ledger import Ledger, is_damaged, read_ledger
from infrastructure.errors import ConfigError

AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def event(name: str, status: str = "success") -> NodeEvent:
    return NodeEvent(f"model.shop.{name}", name, "model", "table", status, AT, None if status == "started" else AT)


def names(path: Path) -> list[str]:
    return [entry["event"]["unique_id"] for entry in read_ledger(path)]


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append({"kind": "run", "at": AT})
        ledger.node(event("a", "started"), 1)
        ledger.node(event("a"), 2)
    run, started, ended = read_ledger(path)
    assert run == {"kind": "run", "at": AT}
    assert (started["attempt"], NodeEvent(**started["event"])) == (1, event("a", "started"))
    assert (ended["attempt"], NodeEvent(**ended["event"])) == (2, event("a"))
    assert path.stat().st_mode & 0o077 == 0, "only its owner reads it"


def test_every_event_is_on_disk_before_the_ledger_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.node(event("a"), 1)
    assert names(path) == ["model.shop.a"]
    ledger.__exit__(None, None, None)


def test_a_last_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.node(event("a"), 1)
        ledger.node(event("b"), 1)
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines()[1])):
        path.write_bytes(whole[:-cut])
        assert "model.shop.a" in names(path)
        assert len(list(read_ledger(path))) == (2 if cut == 1 else 1)


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe\x00", b"[1, 2]", b'"text"', b'{"kind": "node"}', b'{"kind": "node", "event": {"at": 3}}', b""],
)
def test_a_line_of_anything_else_is_left_out_and_known_as_damage(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.node(event("a"), 1)
    assert not is_damaged(path)
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert names(path) == ["model.shop.a"]
    assert is_damaged(path)
    path.write_bytes(path.read_bytes().removeprefix(line + b"\n") + line[:-1])
    assert not is_damaged(path), "a last line that was cut off is what a crash leaves"


def test_a_run_that_goes_on_after_a_cut_loses_no_event_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"kind":"node","uni')
    with Ledger(path) as ledger:
        ledger.node(event("a"), 1)
        ledger.node(event("b"), 1)
    assert "model.shop.b" in names(path)


def test_a_ledger_that_cannot_be_opened_says_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't be written to .*ledger\.jsonl: No such file.* TRIBUTARY_STATE"):
        Ledger(tmp_path / "nowhere" / "ledger.jsonl")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_a_full_disk_is_said_at_the_first_event() -> None:
    with (
        Ledger(Path("/dev/full")) as ledger,
        pytest.raises(ConfigError, match=r"can't be written to /dev/full: No space left on device.*Free some space"),
    ):
        ledger.node(event("a"), 1)


def test_a_disk_that_becomes_full_in_the_middle_of_an_event_is_said_too(tmp_path: Path) -> None:
    """The system writes the part that fits and raises nothing."""
    path = tmp_path / "ledger.jsonl"
    code = f"""
import resource, signal
from pathlib import Path
from flows.engine.ledger.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
with Ledger(Path({str(path)!r})) as ledger:
    for number in range(9):
        ledger.append({{"number": number, "text": "x" * 40}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ConfigError: The record of this run can't be written to" in done.stderr
    assert [entry["number"] for entry in read_ledger(path)] == [0]


@pytest.mark.parametrize("how", ["deleted", "moved", "another in its place"])
def test_a_ledger_that_is_deleted_under_the_run_is_there_again_whole(tmp_path: Path, how: str) -> None:
    path = tmp_path / "state" / "run" / "ledger.jsonl"
    path.parent.mkdir(parents=True)
    with Ledger(path) as ledger:
        ledger.node(event("a"), 1)
        if how == "another in its place":
            path.unlink()
            path.write_text("")
        elif how == "moved":
            (tmp_path / "state").rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(tmp_path / "state")
        ledger.keep()
        assert names(path) == ["model.shop.a"]
        ledger.node(event("b"), 1)
    assert names(path) == ["model.shop.a", "model.shop.b"]
    assert [entry.name for entry in path.parent.iterdir()] == ["ledger.jsonl"]
    assert path.stat().st_mode & 0o077 == 0, "only its owner reads it"


def test_a_ledger_that_cannot_be_made_anew_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run" / "ledger.jsonl"
    path.parent.mkdir()
    with Ledger(path) as ledger:
        ledger.node(event("a"), 1)
        shutil.rmtree(path.parent)
        path.parent.write_text("a file is in the way")
        with pytest.raises(ConfigError, match=r"The record of this run can't be written to .*ledger\.jsonl"):
            ledger.node(event("b"), 1)
