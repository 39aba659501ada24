"""Play generated histories of generated projects, and count in how many of them the product was wrong.

`python -m benchmarks.truth --projects 2000` ends in `wrong: 0 of 2000`. A history is a few commands, with failures,
kills, Ctrl-C, and edits of code, data and environment between them. After each command every table and view is held
against what the command had to leave, which `rows.py` works out from the project; its exit code against whether
anything in the history made it fail; and after the last one the warehouse against a plain `dbt build` from nothing.
Each is known by its seed: `--seed 7.13` plays that one again, with `--keep FOLDER` to look at what is left.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks.engines import EngineMissing, have
from benchmarks.server import prefect_server, set_up_targets
from benchmarks.truth.cases import Case, Outcome, case_of, for_the_program, play, removed, shortest
from benchmarks.truth.doors import Place, through_the_engine, through_the_program
from benchmarks.truth.forks import warm_up
from infrastructure.console import EntryCommand
from infrastructure.errors import ConfigError

# In memory where there is such a place: a history writes some thousand small files.
_MEMORY = Path("/dev/shm")
# Of a hundred projects, so many are built by dbt 2 where nothing else is asked for.
_OF_DBT_2 = 40
# Of two hundred, these are built as a user does it, which costs ten times as much: one by each dbt.
_AS_A_USER = (39, 199)
OWN = "own"


@dataclass
class Lane:
    """A process that plays one history."""

    pid: int
    seed: str
    engine: str
    is_as_a_user: bool
    answer: Path


@dataclass
class Tally:
    """What came of all of them."""

    # By the dbt, and whether it was `flows run`.
    played: Counter[tuple[str, bool]] = field(default_factory=Counter[tuple[str, bool]])
    wrong: list[str] = field(default_factory=list[str])
    commands: int = 0
    cuts: int = 0
    red: int = 0
    compared: int = 0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Means:
    """What histories are played with.

    Attributes:
        places: program and variables of each dbt by name; OWN is that of this environment.
        api_url: of the Prefect server on which those run that are run as a user does; None where none is.
    """

    places: dict[str, tuple[str | None, dict[str, str]]]
    folder: Path
    keep: Path | None
    shrink: bool
    api_url: str | None = None

    def engine(self, seed: str) -> str:
        """Return which dbt builds a project."""
        names = [*self.places]
        return names[0] if len(names) == 1 or number_of(seed) % 100 >= _OF_DBT_2 else names[1]

    def version(self, seed: str) -> str:
        """Return the version of that dbt."""
        engine = self.engine(seed)
        return version("dbt-core") if engine == OWN else engine

    def is_as_a_user(self, seed: str) -> bool:
        """Say whether its commands are programs that a user would start."""
        return self.api_url is not None and number_of(seed) % 200 in _AS_A_USER

    def place(self, seed: str) -> Place:
        """Return where it is played."""
        program, environment = self.places[self.engine(seed)]
        folder = (self.keep or self.folder) / seed
        if not self.is_as_a_user(seed):
            return Place(folder, program, environment)
        return Place(folder, program, {**environment, "PREFECT_API_URL": self.api_url or ""}, _target_of(seed))


def number_of(seed: str) -> int:
    """Return which one of its row a history is."""
    return int(seed.rpartition(".")[2])


def _target_of(seed: str) -> str:
    return f"truth-{seed.replace('.', '-')}"


@click.command(cls=EntryCommand, help="Play generated histories of generated projects, and count the wrong ones.")
@click.option("--projects", default=200, show_default=True)
@click.option("--seed", default="1", show_default=True, help="Of all; or of one, as it is printed: 1.17.")
@click.option("--engine", default="mixed", show_default=True, help="own, 2, 1.12, or mixed: own and dbt 2.")
@click.option("--at-once", default=2, show_default=True, help="Histories at a time.")
@click.option("--minutes", type=float, help="Begin no further history after so long.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave the folders of the wrong ones here.")
@click.option("--shrink/--no-shrink", default=True, help="Look for the shortest history that is still wrong.")
@click.option("--as-a-user/--through-the-engine", default=True, help="Whether one in a hundred is `flows run` itself.")
def main(  # noqa: PLR0913  (a parameter per option)
    projects: int, seed: str, engine: str, at_once: int, minutes: float | None, keep: Path | None, shrink: bool,
    as_a_user: bool,
) -> None:  # fmt: skip
    """Play, compare, count."""
    until = None if minutes is None else time.monotonic() + minutes * 60
    began = time.monotonic()
    places = _places(engine)
    tally = Tally()
    seeds = [seed] if "." in seed else [f"{seed}.{number}" for number in range(projects)]
    with ExitStack() as stack:
        memory = _MEMORY if _MEMORY.is_dir() else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="truth-", dir=memory)))
        _settle(folder)
        means = Means(places, folder, keep and keep.absolute(), shrink)
        users = [each for each in seeds if number_of(each) % 200 in _AS_A_USER]
        if as_a_user and users:
            environment = dict(os.environ)
            environment["PREFECT_API_URL"] = stack.enter_context(prefect_server(environment))
            means = replace(means, api_url=environment["PREFECT_API_URL"])
            files = {_target_of(each): str(means.place(each).warehouse) for each in users}
            settings = {"warehouse": "duckdb", "schema": "main", "threads": 2}
            set_up_targets(environment, folder, {name: {**settings, "path": path} for name, path in files.items()})
        warm_up()
        waiting, lanes = iter(seeds), list[Lane]()
        while True:
            is_over = until is not None and time.monotonic() > until
            while len(lanes) < at_once and not is_over and (next_seed := next(waiting, None)):
                lanes.append(_begin(next_seed, means))
            if not lanes:
                break
            for lane in _ended(lanes):
                _count(lane, tally)
                if tally.played.total() % 100 == 0:
                    click.echo(f"{tally.played.total()} of {len(seeds)} played, {len(tally.wrong)} wrong", err=True)
    _print(tally, time.monotonic() - began)
    sys.stdout.flush()
    # DuckDB prints a page about what dbt has left of it when Python ends.
    os._exit(1 if tally.wrong else 0)


def _places(asked: str) -> dict[str, tuple[str | None, dict[str, str]]]:
    found: dict[str, tuple[str | None, dict[str, str]]] = {}
    for name in (OWN, "2") if asked == "mixed" else (asked,):
        if name == OWN:
            found[OWN] = (None, {})
            continue
        try:
            engine = have(name)
        except (EngineMissing, KeyError) as exc:
            raise ConfigError(f"dbt {name} can't be had here: {exc}. Choose another with --engine.") from exc
        found[name] = (engine.program, dict(engine.environment))
    return found


def _settle(folder: Path) -> None:
    """Keep what is played from this machine's settings, server and state."""
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "DBT_", "TRIBUTARY_"))]:
        del os.environ[name]
    os.environ |= {"PREFECT_HOME": str(folder / "prefect"), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    os.environ["PREFECT_PROFILES_PATH"] = str(folder / "prefect" / "profiles.toml")


def _begin(seed: str, means: Means) -> Lane:
    lane = Lane(0, seed, means.engine(seed), means.is_as_a_user(seed), means.folder / f"{seed}.answer")
    lane.pid = os.fork()
    if lane.pid == 0:
        try:
            lane.answer.write_bytes(pickle.dumps(_play(seed, means)))
        except BaseException:  # noqa: BLE001  (a fork must not go on as its parent)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return lane


def _play(seed: str, means: Means) -> tuple[Outcome, list[str]]:
    """Play a case; where it is wrong, find the shortest that is so too, and return what it tells."""
    place, case = means.place(seed), case_of(seed, means.version(seed))
    door = through_the_program if means.is_as_a_user(seed) else through_the_engine
    if means.is_as_a_user(seed):
        case = for_the_program(case)
    removed(place.folder)
    outcome = play(case, place, door)
    if outcome.wrong and means.shrink:

        def fails(candidate: Case) -> bool:
            removed(place.folder)
            return bool(play(candidate, place, door).wrong)

        case = shortest(case, fails)
        removed(place.folder)
        smaller = play(case, place, door)
        if smaller.wrong:
            outcome.wrong, outcome.told = smaller.wrong, smaller.told
    if not (means.keep and outcome.wrong):
        removed(place.folder)
    nodes = [
        f"{relation}: {node.kind} {node.shape} on {', '.join(node.parents) or 'nothing'}"
        for relation, node in case.world.nodes.items()
    ]
    return outcome, nodes


def _ended(lanes: list[Lane]) -> Iterator[Lane]:
    pid, _ = os.wait()
    for lane in [lane for lane in lanes if lane.pid == pid]:
        lanes.remove(lane)
        yield lane


def _count(lane: Lane, tally: Tally) -> None:
    tally.played[lane.engine, lane.is_as_a_user] += 1
    if not lane.answer.exists():
        tally.wrong.append(lane.seed)
        click.echo(f"{lane.seed} ({lane.engine}): the benchmark itself failed", err=True)
        return
    outcome, nodes = pickle.loads(lane.answer.read_bytes())
    lane.answer.unlink()
    tally.commands += outcome.commands
    tally.cuts += outcome.cuts
    tally.red += outcome.red
    tally.compared += outcome.is_compared
    tally.cpu_seconds += outcome.cpu_seconds
    if outcome.wrong:
        tally.wrong.append(lane.seed)
        click.echo(f"\n{lane.seed} ({lane.engine}) is wrong:", err=True)
        for line in (*nodes, *(f"  {told}" for told in outcome.told), *(f"! {wrong}" for wrong in outcome.wrong)):
            click.echo(f"    {line}", err=True)


def _print(tally: Tally, seconds: float) -> None:
    played = sum(tally.played.values())
    click.echo(f"{played} projects, {tally.commands} commands, {os.cpu_count()} cores, {seconds / 60:.0f} min")
    click.echo(f"{'commands that had to fail, and did':<58}{tally.red:6d}")
    click.echo(f"{'commands that were killed or stopped on their way':<58}{tally.cuts:6d}")
    click.echo(f"{'histories held against a plain build from nothing':<58}{tally.compared:6d}")
    for (engine, is_as_a_user), count in sorted(tally.played.items()):
        name = f"dbt {version('dbt-core')} of this environment" if engine == OWN else f"dbt {engine}"
        how = "as `python -m flows run`" if is_as_a_user else "through the engine"
        click.echo(f"{f'{name}, {how}':<58}{count:6d}")
    click.echo(f"processor seconds a project: {tally.cpu_seconds / max(1, played):.1f}")
    if tally.wrong:
        click.echo(f"seeds of the wrong ones: {', '.join(tally.wrong)}")
    click.echo(f"wrong: {len(tally.wrong)} of {played}")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
