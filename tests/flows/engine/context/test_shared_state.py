"""State in a bucket where the store fails, on real servers, and what two machines know of one run."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.engine.context.shared import bucket as bucket_module
from flows.engine.context.shared.bucket import Bucket
from flows.engine.context.shared.state import SharedState
from flows.engine.context.shared.target import Names, SharedTarget
from flows.engine.ledger.keeper import Keeper
from flows.engine.ledger.ledger import Ledger, read_ledger
from infrastructure.errors import ConfigError, UpstreamUnavailable
from tests.support.served import served
from tests.support.stores import KINDS, STORES

NAMES = Names("ledger.jsonl", "last_good", "target/partial_parse.msgpack", 50)
FIRST, SECOND = "20261128T031500.000000Z-build-a", "20261128T041500.000000Z-build-b"


class Refusing(BaseHTTPRequestHandler):
    """A store that refuses everything."""

    def do_GET(self) -> None:
        said = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_HEAD = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def refusing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    with served(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def url(bucket: str, tmp_path: Path) -> str:
    return f"{bucket}/{tmp_path.name}"


def target_of(url: str, root: Path) -> SharedTarget:
    return SharedState(url, root).fetch(root / "shop" / "prod", NAMES)


def ledger_of(root: Path, run: str) -> Path:
    return root / "shop" / "prod" / "runs" / run / "ledger.jsonl"


def begun(root: Path, run: str) -> Ledger:
    path = ledger_of(root, run)
    path.parent.mkdir(parents=True)
    return Ledger(path)


def test_a_store_that_refuses_is_a_mistake_of_settings(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        with pytest.raises(ConfigError, match=r"s3://.* can't be written to: Access Denied\. Give this process access"):
            Bucket(url).write("a", b"1")
        with pytest.raises(ConfigError, match=r"can't be read"):
            Bucket(url).read_tagged("a")


def test_a_store_that_does_not_answer_is_given_up_and_not_waited_for_again_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        store = Bucket(url)
        with pytest.raises(UpstreamUnavailable, match=r"can't be read now: .*there was no answer for 0 s"):
            store.read("a")
        with pytest.raises(UpstreamUnavailable, match="it did not answer a moment ago"):
            store.create("a", b"1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_that_does_not_exist_is_said(kind: str, tmp_path: Path) -> None:
    address = f"{STORES.address(kind).partition('://')[0]}://no-such-bucket/state"
    with pytest.raises(ConfigError, match=rf"The state at {address} can't be listed"):
        SharedState(address, tmp_path).fetch_places("shop")


@pytest.fixture(params=KINDS)
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return Bucket(f"{STORES.address(request.param)}/{tmp_path.name}")


def test_a_version_is_replaced_once(any_store: Bucket) -> None:
    store = any_store
    assert store.read_tagged("head.json") is None
    assert store.create("head.json", b"1")
    assert not store.create("head.json", b"2")
    found = store.read_tagged("head.json")
    assert found is not None
    assert store.replace("head.json", b"3", found[1])
    assert not store.replace("head.json", b"4", found[1])
    assert store.read("head.json") == b"3"
    store.write("head.json", b"5")
    found = store.read_tagged("head.json")
    assert found is not None
    assert store.replace("head.json", b"6" * 300_000, found[1]), "also one that is large"
    store.remove(["head.json", "gone.json"])
    assert not store.replace("head.json", b"7", found[1]), "one that is gone is not what was read"


def test_objects_are_listed_and_read_by_the_names_that_they_were_written_by(any_store: Bucket) -> None:
    assert any_store.folders() == []
    assert any_store.sizes("shop/prod") == {}
    contents = {f"shop/prod/ledger/run a+b@{number}.jsonl": b"x" * number for number in (1, 2, 0)}
    for name, content in contents.items():
        any_store.write(name, content)
    any_store.write("shop/prod-2/head.json", b"{}")

    assert any_store.sizes("shop/prod") == {name: len(content) for name, content in contents.items()}
    assert any_store.folders() == ["shop"]
    assert any_store.read_all([*contents, "shop/prod/none"]) == contents
    assert any_store.read_all(["shop/prod/none"]) == {}
    assert any_store.read("shop/prod/none") is None


def test_of_writers_at_once_one_replaces_a_version(any_store: Bucket) -> None:
    any_store.write("head.json", b"0")
    found = any_store.read_tagged("head.json")
    assert found is not None

    def replace(number: int) -> bool:
        return Bucket(any_store.url).replace("head.json", b"%d" % number, found[1])

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(replace, range(1, 9)))
    assert sum(done) == 1
    assert any_store.read("head.json") == b"%d" % (done.index(True) + 1)


def test_the_record_of_a_run_is_elsewhere_while_it_goes_on(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with begun(here, FIRST) as ledger:
        sent = target_of(url, here).ledger(FIRST)
        ledger.append({"kind": "run"})
        sent.send(ledger.lines_from(0))
        ledger.append({"kind": "figures"})
        sent.send(ledger.lines_from(sent.sent))
    target_of(url, there)

    assert ledger_of(there, FIRST).read_bytes() == ledger_of(here, FIRST).read_bytes()


def test_a_run_goes_on_while_its_record_can_be_sent_nowhere_and_the_next_run_sends_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    target = target_of(url, here)

    def is_away(*_: object) -> None:
        raise UpstreamUnavailable("the store is away.")

    with monkeypatch.context() as patch:
        for name in ("create", "write", "read_tagged"):
            patch.setattr(Bucket, name, is_away)
        with begun(here, FIRST) as ledger, Keeper(ledger, target):
            ledger.append({"kind": "run"})
    assert "could not be kept for other machines: the store is away. It is in" in capsys.readouterr().out
    assert list(read_ledger(ledger_of(here, FIRST))) == [{"kind": "run"}]

    target_of(url, here).send_unsent()
    target_of(url, there)
    assert ledger_of(there, FIRST).read_bytes() == ledger_of(here, FIRST).read_bytes()


def test_what_others_went_on_without_counts_no_more_and_is_kept_aside(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with begun(here, FIRST) as ledger:
        ledger.append({"kind": "run"})
        target_of(url, here).ledger(FIRST).send(ledger.lines_from(0))
        ledger.append({"kind": "figures"})
    other = target_of(url, there)
    with begun(there, SECOND) as ledger, Keeper(ledger, other):
        ledger.append({"kind": "run", "resumes": FIRST})

    target_of(url, here)

    assert list(read_ledger(ledger_of(here, FIRST))) == [{"kind": "run"}]
    aside = here / "shop" / "prod" / "unshared" / FIRST / "ledger.jsonl"
    assert len(list(read_ledger(aside))) == 2
    assert "The record of this machine is in" in capsys.readouterr().out
