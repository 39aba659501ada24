"""How a command of a history is run: through the engine, in a process that is forked, or as a user does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.truth.forks import fork_for_dbt
from benchmarks.truth.history import Cut, Run
from benchmarks.truth.rows import Ending

# The server holds the target of a run that was killed for two minutes.
_PATIENCE_SECONDS = 300.0
_ROOT = Path(__file__).parents[2]
_CUT = "was-cut"


@dataclass(frozen=True)
class Place:
    """Where a history is played.

    Attributes:
        dbt: the program that builds; None for dbt of this environment.
        environment: what that program needs, and the way to a Prefect server.
    """

    folder: Path
    dbt: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    target: str = "dev"

    @property
    def project(self) -> Path:
        """Return the folder of the project."""
        return self.folder / "project"

    @property
    def warehouse(self) -> Path:
        """Return the DuckDB file."""
        return self.folder / "warehouse.duckdb"

    @property
    def state(self) -> Path:
        """Return the product's folder of state."""
        return self.folder / "state"


class Hanging(Exception):
    """A command did not end within five minutes."""


def through_the_engine(run: Run, place: Place, environ: Mapping[str, str]) -> Ending:
    """Run a command as `flows.pipelines.full` does, without Prefect: in a flow process that is a fork of this one."""
    said, cut = place.folder / "said", place.folder / _CUT
    for path in (said, cut):
        path.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _become_the_flow(run, place, environ, said, cut)
    code = _wait(pid)
    _wait_until_free(place)
    return Ending(code, said.read_text() if said.exists() else "", cut.exists())


def through_the_program(run: Run, place: Place, environ: Mapping[str, str]) -> Ending:
    """Run a command as `python -m flows run` on a target that is set up at a Prefect server."""
    argv = [sys.executable, "-m", "flows", *run.words(), "--target", place.target, "--project-dir", str(place.project)]
    argv += ["--dbt", place.dbt] if place.dbt else []
    environment = {**os.environ, "TRIBUTARY_STATE": str(place.state), **place.environment, **environ}
    was_cut = False
    earlier = set(place.state.rglob("runs/*"))
    with (place.folder / "said").open("w+") as said:
        process = subprocess.Popen(argv, env=environment, cwd=_ROOT, stdout=said, stderr=said, start_new_session=True)
        until = time.monotonic() + _PATIENCE_SECONDS
        while process.poll() is None:
            if time.monotonic() > until:
                os.killpg(process.pid, signal.SIGKILL)
                raise Hanging
            if run.cut and not was_cut and _ended(place, earlier) >= run.cut.number:
                was_cut = True
                _strike(run.cut, process.pid)
            time.sleep(0.01)
        said.seek(0)
        text = said.read()[-4000:]
    _wait_until_free(place)
    return Ending(process.returncode, text, was_cut)


def _ended(place: Place, earlier: set[Path]) -> int:
    """Return how many nodes the runs have ended that began since."""
    ledgers = [path / "ledger.jsonl" for path in set(place.state.rglob("runs/*")) - earlier]
    lines = [line for path in ledgers if path.exists() for line in path.read_bytes().splitlines()]
    return sum(b'"attempt":1' in line and b'"status":"started"' not in line for line in lines)


def _strike(cut: Cut, flow: int) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(flow).children(recursive=True)
        for child in children if cut.victim in ("dbt", "both") else ():
            child.kill()
        if cut.victim != "dbt":
            os.kill(flow, signal.SIGINT if cut.victim == "stop" else signal.SIGKILL)


def _wait(pid: int) -> int:
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise Hanging


def _wait_until_free(place: Place) -> None:
    """Wait for a dbt that has outlived its flow process: it keeps the target locked until it has ended."""
    from flows.engine.target.file_lock import locked_file

    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        file = locked_file(place.state / "locks" / f"{place.target}.lock")
        if file is not None:
            os.close(file)
            return
        time.sleep(0.01)
    raise Hanging


def _become_the_flow(run: Run, place: Place, environ: Mapping[str, str], said: Path, cut: Path) -> NoReturn:
    code = 70
    try:
        os.environ.update({"TRIBUTARY_STATE": str(place.state), **place.environment, **environ})
        os.chdir(place.folder)
        # Ctrl-C of the one who runs the benchmark is not for the forks of their own group.
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code, sentence = _run(run, place, cut)
        said.write_text(sentence)
    except BaseException:  # noqa: BLE001  (a fork must not go on as its parent)
        said.write_text(traceback.format_exc()[-4000:])
    finally:
        os._exit(code)


def _run(run: Run, place: Place, cut: Path) -> tuple[int, str]:
    from flows.engine.changed.freshness import sources_to_check
    from flows.engine.context.command import DbtCommand
    from flows.engine.context.options import RunOptions
    from flows.engine.context.project import read_project
    from flows.engine.context.reporting import reporting_to
    from flows.engine.context.run_context import RunContext
    from flows.engine.ledger.retries import Retries
    from flows.engine.run import run_dbt
    from flows.engine.target.file_lock import one_writer
    from infrastructure.errors import TributaryError
    from infrastructure.profiles import Profile

    notes = _Notes()
    if run.cut:
        _watch_for(run.cut, cut)
    if not place.dbt:
        fork_for_dbt()
    waits = 0

    def wait(_: float) -> None:
        nonlocal waits
        waits += 1
        if run.heals_after and waits >= run.heals_after:
            for name in [name for name, value in os.environ.items() if name.startswith("TRIP_") and value == "pass"]:
                del os.environ[name]

    try:
        options = RunOptions(**run.options)
        output = {"type": "duckdb", "path": str(place.warehouse), "schema": "main", "threads": 2}
        context = RunContext(read_project(place.project), Profile(place.target, "shop", output, {}, dbt=place.dbt))
        command = options.command(run.verb)
        with reporting_to(notes), one_writer(place.target, holder="a history"):
            sources = sources_to_check(command, context.project, context.profile) if run.verb == "build" else ()
            if sources != ():
                look = DbtCommand("source freshness", select=" ".join(sources or ()) or None, vars=options.vars)
                run_dbt(look, context, RunOptions(allow_nothing=True))
            run_dbt(command, context, options, retries=Retries(options.retries, sleep=wait))
    except TributaryError as exc:
        return int(exc.exit_code), "\n".join([*notes.said, str(exc)])
    except KeyboardInterrupt:
        return 130, "\n".join([*notes.said, "stopped"])
    return 0, "\n".join(notes.said)


class _Notes:
    """What a person would have been told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        """Nobody looks."""

    def event(self, event: object) -> None:
        """Nobody looks."""

    def note(self, text: str) -> None:
        """Keep it, for a history that goes wrong."""
        self.said.append(text)


def _watch_for(cut: Cut, mark: Path) -> None:
    """Have this flow process, or its dbt, be ended at a moment of its own."""
    from flows.engine.changed.run_memory import RunMemory
    from flows.engine.context.events import STARTED, NodeEvent
    from flows.engine.ledger.ledger import TAKEN_OVER, Ledger
    from flows.engine.process.process import DbtProcess

    left = cut.number
    child = 0
    begin, write, keep = DbtProcess.__init__, Ledger.node, RunMemory.keep

    def begun(self: DbtProcess, *arguments: Any) -> None:  # noqa: ANN401
        nonlocal child
        begin(self, *arguments)
        child = self.pid

    def strike() -> None:
        nonlocal left
        left -= 1
        if left != 0:
            return
        mark.touch()
        if cut.victim in ("dbt", "both") and child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        if cut.victim in ("flow", "both"):
            os.kill(os.getpid(), signal.SIGKILL)
        if cut.victim == "stop":
            signal.raise_signal(signal.SIGINT)

    def written(self: Ledger, event: NodeEvent, attempt: int) -> None:
        is_own = attempt != TAKEN_OVER
        is_end = event.status != STARTED
        if is_own and is_end and cut.point == "unwritten":
            strike()
        write(self, event, attempt)
        if is_own and cut.point == ("written" if is_end else "begun"):
            strike()

    def kept(self: RunMemory, *arguments: Any) -> None:  # noqa: ANN401
        is_build = self.command.verb != "source freshness"
        if is_build and cut.point == "keeping":
            strike()
        keep(self, *arguments)
        if is_build and cut.point == "kept":
            strike()

    DbtProcess.__init__, Ledger.node, RunMemory.keep = begun, written, kept  # type: ignore[method-assign]


def plain_build(place: Place, folder: Path, environ: Mapping[str, str], variables: Mapping[str, int]) -> str:
    """Build the project with nothing but dbt into a warehouse of its own; return what it said when it failed."""
    output = f"{{type: duckdb, path: '{folder / place.warehouse.name}', schema: main, threads: 2}}"
    (folder / "profiles.yml").write_text(f"shop: {{target: plain, outputs: {{plain: {output}}}}}\n")
    # Everything, whatever a default selector leaves out: an earlier command may have asked for that.
    arguments = ["build", "--select", "fqn:*", "--project-dir", str(place.project), "--profiles-dir", str(folder)]
    arguments += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
    if variables:
        arguments += ["--vars", str(dict(variables))]
    environment = {**os.environ, **place.environment, **environ}
    if place.dbt:
        done = subprocess.run([place.dbt, *arguments], env=environment, cwd=folder, capture_output=True, text=True)
        return "" if done.returncode == 0 else (done.stdout + done.stderr)[-3000:]
    log = folder / "said"
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            from dbt.adapters.duckdb.connections import DuckDBConnectionManager
            from dbt.cli.main import dbtRunner

            os.environ.update(environment)
            os.chdir(folder)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600), 1)
            is_good = dbtRunner().invoke(arguments).success
            DuckDBConnectionManager.close_all_connections()
            sys.stdout.flush()
            os._exit(0 if is_good else 1)
        os._exit(9)
    return "" if _wait(pid) == 0 else log.read_text()[-3000:]
