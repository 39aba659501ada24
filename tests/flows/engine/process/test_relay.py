"""What stands between a run and a dbt that is a program of its own, with programs that do as dbt may."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from flows.engine.process.engines import DbtElsewhere
from flows.engine.process.relay import EVENTS_VARIABLE, IN_DOUBT, WRITTEN_VARIABLE, Scrubber
from infrastructure.errors import ConfigError
from infrastructure.program import Program, find_program

# How a child starts is what these tests are about.
pytestmark = pytest.mark.usefixtures("cold_children")

SECRET = 'Tr0ub4dor&3 "wörd"/x=y\\z'
LINE = '{{"info": {{"name": "{name}", "level": "info"}}, "data": {{"node_info": {{"node_status": "{status}"}}}}}}'
# Not print, which a signal's handler can't call while it is at work.
SAYS = "import os, signal, sys, time\nsay = lambda text: os.write(1, f'{text}\\n'.encode())\n"


def relayed(folder: Path, code: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start a program behind the relay, which keeps its events in `events`."""
    program = folder / "program"
    program.write_text(f"#!{sys.executable}\n{SAYS}{code}\n")
    program.chmod(0o755)
    relay = DbtElsewhere(Program(str(program), "1.12.6")).head()
    argv = relay[: relay.index(str(program)) + 1]
    environment = {"PATH": os.environ["PATH"], "PYTHONUTF8": "1", EVENTS_VARIABLE: str(folder / "logs" / "events")}
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**environment, **variables},
        start_new_session=True,
    )


def to_the_end(child: subprocess.Popen[bytes]) -> bytes:
    """Return what a child says, with its lifeline held until it has ended."""
    assert child.stdout is not None
    said = child.stdout.read()
    child.wait(timeout=60)
    return said


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(SECRET))[3:-3],
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        *(base64.b64encode(bytes(before) + SECRET.encode() + b"@host").decode() for before in range(3)),
        base64.urlsafe_b64encode(b"user:" + SECRET.encode()).decode(),
        SECRET[:17],
        SECRET[8:],
    ],
)
def test_a_secret_is_blanked_out_as_drivers_write_it_and_where_they_cut_it(form: str) -> None:
    shown = Scrubber([SECRET])(f"could not sign in with {form} to db".encode()).decode()
    assert "*****" in shown
    assert shown.startswith("could not sign in with ")
    for length in range(8, len(form) + 1):
        assert form[:length] not in shown


def test_a_word_that_a_secret_has_in_it_stays_readable() -> None:
    account = "tributary-builder@warehouse-prod.iam.gserviceaccount.com"
    text = b"model.tributary.builder on warehouse-prod, see gserviceaccount.com"
    assert Scrubber([account])(text) == text


def test_each_line_of_a_key_is_a_secret_and_what_every_key_begins_with_is_none() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END PRIVATE KEY-----\n"
    scrub = Scrubber([key])
    assert scrub(b"line 3: AQEFAASCBKcwggSjAgEAAoIB?") == b"line 3: *****?"
    assert scrub(b"expected -----BEGIN PRIVATE KEY-----") == b"expected -----BEGIN PRIVATE KEY-----"


def test_lines_are_scrubbed_kept_for_this_user_alone_and_the_exit_code_is_handed_on(tmp_path: Path) -> None:
    code = f'say(\'{{"level":"debug"}}\'); say({SECRET!r}); sys.exit(3)'
    with relayed(tmp_path, code, DBT_ENV_SECRET_A=SECRET) as child:
        said = to_the_end(child)
    assert child.returncode == 3
    assert said == b"*****\n"
    kept = tmp_path / "logs" / "events"
    assert kept.read_bytes() == said
    assert kept.stat().st_mode & 0o777 == 0o600


def test_what_dbt_writes_beside_its_lines_is_scrubbed_too(tmp_path: Path) -> None:
    written = tmp_path / "query_log.sql"
    code = f"open({str(written)!r}, 'w').write('login ' + {SECRET!r})"
    with relayed(tmp_path, code, DBT_ENV_SECRET_A=SECRET, **{WRITTEN_VARIABLE: str(tmp_path)}) as child:
        to_the_end(child)
    assert written.read_text() == "login *****"
    assert written.stat().st_mode & 0o077 == 0


def test_a_run_that_is_gone_has_dbt_stop_and_loses_nothing_that_it_says(tmp_path: Path) -> None:
    """Its lines go on into the file, and what it calls done from then on is in doubt."""
    done, started = LINE.format(name="LogModelResult", status="success"), LINE.format(name="Start", status="started")
    code = f"""
def stop(number, frame):
    say('{done}'); say('{started}'); say('stopped'); sys.exit(1)
signal.signal(signal.SIGINT, stop)
say('{done}')
signal.pause()
"""
    child = relayed(tmp_path, code)
    assert child.stdout is not None
    assert child.stdin is not None
    assert json.loads(child.stdout.readline())["info"]["name"] == "LogModelResult"
    child.stdout.close()
    child.stdin.close()
    assert child.wait(timeout=60) == 1
    lines = (tmp_path / "logs" / "events").read_text().splitlines()
    assert [json.loads(line)["info"]["name"] for line in lines[:3]] == ["LogModelResult", IN_DOUBT, "Start"]
    assert lines[3:] == ["stopped"]


def test_a_signal_that_ends_dbt_is_told_as_one(tmp_path: Path) -> None:
    with relayed(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)") as child:
        to_the_end(child)
    assert child.returncode == -9


def dbt_that_says(folder: Path, text: str) -> str:
    program = folder / "bin" / "dbt"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("said", "generation", "adapters"),
    [
        ("Core:\n  - installed: 1.8.10\n  - latest: 1.12.6\n\nPlugins:\n  - duckdb: 1.8.4 - ok\n", 1, ("duckdb",)),
        ("A note on dbt 2\nCore:\n  - installed: 1.12.6\n\nPlugins:\n  - postgres: 1.11.0\n", 1, ("postgres",)),
        ("dbt-core 2.0.0-alpha.4", 2, None),
    ],
)
def test_a_program_is_known_by_its_version_and_found_by_its_environments_folder(
    said: str, generation: int, adapters: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dbt = dbt_that_says(tmp_path, said)
    found = find_program(str(tmp_path), {})
    assert (found.path, found.generation, found.adapters) == (dbt, generation, adapters)
    assert find_program(None, {"TRIBUTARY_DBT": dbt}) == found


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Core:\n  - installed: 1.7.20\n", r"dbt 1\.7\.20 \(.*\) is too old: Tributary runs dbt from 1\.8 on"),
        ("dbt-core 3.0.0", "is newer than this version of Tributary supports"),
        ("dbt Cloud CLI - 0.38.8 (abc)", "is not a dbt that Tributary supports: --version printed 'dbt Cloud CLI"),
    ],
)
def test_a_dbt_that_is_too_old_or_unknown_gets_one_sentence(
    said: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=sentence):
        find_program(dbt_that_says(tmp_path, said), {})


def test_a_dbt_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No dbt is found as '.*/nowhere'"):
        find_program(str(tmp_path / "nowhere"), {})
