"""Hand what a ledger says on to a sink: beside the run, and later what the sink was not there for."""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from flows.engine.artifacts.artifacts import Artifacts
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import LEDGER, State
from flows.engine.ledger.ledger import entry_of
from flows.engine.ledger.resume import name_of_run
from flows.engine.ledger.stream import RunEvent, RunStarted, StreamReader
from flows.engine.sinks.last_state import do_beside_the_end
from flows.engine.sinks.sink import Kind, Sink, kinds
from infrastructure.commands import command
from infrastructure.plain_text import one_line

# How often it is looked what a ledger has new.
LOOK_SECONDS = 0.5
# A sink that does not answer is tried less and less.
_LONGEST_PAUSE_SECONDS = 60.0
# How long a run waits at its end, after its last state, for a sink that takes one event after the other, and for one
# that takes none.
CLOSE_SECONDS, ANSWER_SECONDS = 15.0, 2.0
# So many runs back, what a sink did not take is sent by the next run; for others there is `events replay`.
_LOOKED_AT = 5
# So many events are held in memory for a sink that is slow or away; the others stand in the ledger.
_MOST_EVENTS = 1000
# For which flow run, and of which sink, it was said that it is away.
_told: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Sent:
    """What a sink has of a run.

    Attributes:
        count: events that it took, from the first.
        is_whole: there are no more.
    """

    count: int = 0
    is_whole: bool = False


class SinkDelivery:
    """The events of one run on their way to one sink; how far it got stands beside the ledger."""

    def __init__(self, run_path: Path, file: int) -> None:
        self._path = run_path / LEDGER
        self._file = file
        self._reader = StreamReader(run_path.name)
        self._position = 0
        self._waiting: deque[RunEvent] = deque()
        self._run: RunStarted | None = None
        said = os.pread(file, 100, 0)
        self.sent = Sent(**orjson.loads(said)) if said else Sent()
        self._to_skip = self.sent.count

    @property
    def unsent(self) -> int:
        """Return how many events are known and not taken yet."""
        return len(self._waiting)

    def begin_again(self) -> None:
        """Have all of the run sent once more."""
        self.sent, self._to_skip = Sent(), 0

    def read(self, is_over: bool = False) -> None:
        """Read what the ledger has new.

        Args:
            is_over: nothing will be added to it any more.
        """
        with suppress(FileNotFoundError), self._path.open("rb") as lines:
            lines.seek(self._position)
            while len(self._waiting) < _MOST_EVENTS and (line := lines.readline()).endswith(b"\n"):
                self._position += len(line)
                if entry := entry_of(line):
                    self._keep(self._reader.take(entry))
            else:
                if is_over and not lines.readline().endswith(b"\n"):
                    self._keep(self._reader.over())

    def send(self, sink: Sink) -> Iterator[RunEvent]:
        """Hand what was read to a sink, and yield each event that it took; raises what the sink does."""
        while self._waiting:
            assert self._run, "what a ledger says begins with the run"
            sink.take(self._run, self._waiting[0])
            self.sent = Sent(self.sent.count + 1)
            self._write()
            yield self._waiting.popleft()

    def is_whole(self) -> None:
        """Write down that the sink has all of the run."""
        self.sent = Sent(self.sent.count, is_whole=True)
        self._write()

    def _keep(self, events: Iterator[RunEvent]) -> None:
        for event in events:
            if isinstance(event, RunStarted):
                self._run = event
            if self._to_skip:
                self._to_skip -= 1
            else:
                self._waiting.append(event)

    def _write(self) -> None:
        # What is not written down for want of space is sent again, under the same ids.
        with suppress(OSError):
            os.pwrite(self._file, orjson.dumps(self.sent).ljust(60), 0)


@contextmanager
def delivery(run_path: Path, kind: Kind) -> Iterator[SinkDelivery | None]:
    """Yield a run's delivery to a kind of sink; None while another process sends it.

    Raises:
        OSError: the run's folder can't be written.
    """
    file = os.open(_sent_path(run_path, kind), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield SinkDelivery(run_path, file)
    finally:
        os.close(file)


def send_the_rest(run_path: Path, kind: Kind, artifacts: Artifacts, again: bool = False) -> int | None:
    """Send what a sink has not taken of a run that is over, and return how many events that were.

    None while a process sends it that still runs.

    Args:
        again: send all of it, whatever the sink has.

    Raises:
        Exception: what the sink raised; what it took by then is not sent again.
    """
    with delivery(run_path, kind) as sending:
        if sending is None:
            return None
        if again:
            sending.begin_again()
        if sending.sent.is_whole:
            return 0
        sink = kind.open(artifacts)
        try:
            count = 0
            while True:
                sending.read(is_over=True)
                if not sending.unsent:
                    break
                count += sum(1 for _ in sending.send(sink))
            sending.is_whole()
            return count
        finally:
            sink.close()


class Follower:
    """A thread that tells a sink what happens in a run, so that neither dbt nor the run waits for the sink.

    Args:
        told_of: what says it once that a sink is away, such as a flow run with several commands.
        earlier: runs whose rest is sent as well.
    """

    def __init__(
        self, kind: Kind, run_path: Path, artifacts: Artifacts, told_of: str, earlier: Sequence[Path] = ()
    ) -> None:
        self._kind = kind
        self._whom = told_of, kind.name
        self._run_path = run_path
        self._artifacts = artifacts
        self._earlier = list(earlier)
        self._closing = threading.Event()
        self._why = ""
        self._taken = 0
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._work,), name=f"tributary-{kind.name}", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        do_beside_the_end(self._finish)

    def _finish(self) -> None:
        begun = moved = time.monotonic()
        taken = self._taken
        while self._thread.is_alive():
            self._thread.join(LOOK_SECONDS / 5)
            now = time.monotonic()
            taken, moved = (self._taken, now) if self._taken != taken else (taken, moved)
            if now > begun + CLOSE_SECONDS or now > moved + ANSWER_SECONDS:
                break
        if (self._thread.is_alive() or self._why) and self._whom not in _told:
            _told.add(self._whom)
            why = f": {self._why}" if self._why else ""
            current_reporter().note(
                f"{self._kind.title} did not take all events of this run{why}. The next run on this machine sends "
                "them, or: " + command(f"events replay {name_of_run(self._run_path)} --to {self._kind.name}")
            )

    def _work(self) -> None:
        try:
            with delivery(self._run_path, self._kind) as sending:
                if sending:
                    self._follow(sending)
        except Exception as exc:  # noqa: BLE001  (the ledger has it all, and the run goes on)
            self._why = in_words(exc)

    def _follow(self, sending: SinkDelivery) -> None:
        sink: Sink | None = None
        pause = LOOK_SECONDS
        try:
            while True:
                is_over = self._closing.is_set()
                sending.read(is_over)
                try:
                    sink = sink or self._kind.open(self._artifacts)
                    for _ in sending.send(sink):
                        self._taken += 1
                    self._send_earlier()
                    self._why, pause = "", LOOK_SECONDS
                except Exception as exc:  # noqa: BLE001  (whatever it is, it is tried again)
                    self._why, pause = in_words(exc), min(2 * pause, _LONGEST_PAUSE_SECONDS)
                if is_over and self._why:
                    return
                if is_over and self._is_done(sending):
                    sending.is_whole()
                    return
                self._closing.wait(0.0 if sending.unsent else pause)
        finally:
            if sink:
                with suppress(Exception):
                    sink.close()

    def _is_done(self, sending: SinkDelivery) -> bool:
        sending.read(is_over=True)
        return not sending.unsent

    def _send_earlier(self) -> None:
        while self._earlier:
            send_the_rest(self._earlier[0], self._kind, self._artifacts)
            del self._earlier[0]


def followers(state: State, run_path: Path, run_id: str, environ: Mapping[str, str]) -> Iterator[Follower]:
    """Yield a follower of a run for each sink that is asked for.

    Args:
        run_id: the same for all commands of a flow run.
    """
    for kind in kinds().values():
        if kind.is_asked(environ):
            before = [path for path in state.runs() if path < run_path][-_LOOKED_AT:]
            begun = [path for path in before if _sent_path(path, kind).exists()]
            yield Follower(kind, run_path, Artifacts(state.target_path), run_id, begun)


def _sent_path(run_path: Path, kind: Kind) -> Path:
    return run_path / f"{kind.name}.sent"


def in_words(exc: Exception) -> str:
    """Say in a clause why a sink took nothing."""
    # An address may have a name and a password in it.
    said = re.sub(r"//[^/@\s]*@", "//", str(exc) or type(exc).__name__)
    return one_line(said, 200).rstrip(".")
