"""Have each dbt that Tributary runs with, in an environment of its own: what benchmarks and tests compare.

`python -m benchmarks.engines` makes those that are not there yet, from the package registries and by package name,
and prints each one's program and the variables that it needs. `--json` prints the same for programs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import click

from infrastructure.console import EntryCommand, json_option

PLACE_VARIABLE = "TRIBUTARY_ENGINES"
# Nothing newer is considered, so that an environment made tomorrow is the one that was measured today.
_NEWEST = "2026-11-01T00:00:00Z"
_MADE = "engine.json"
_SECONDS = 600

# dbt-core 1.12 requires the program of dbt 2 for one flag, --use-v2-parser. Its newer releases download that program
# from its maker's own host while they are installed; without it everything but that flag works.
_WITHOUT_DBT_2 = 'dbt-core-experimental-parser ; sys_platform == "never"'
# The DuckDB of Tributary's own environment: an older one can't read the files that it writes.
_DUCKDB = f"duckdb=={version('duckdb')}"

_RECIPES: Mapping[str, tuple[str, ...]] = {
    # The oldest line that has unit tests, and adapters that are released apart from dbt.
    "1.8": ("dbt-core==1.8.10", "dbt-duckdb==1.8.4", "dbt-postgres==1.8.2", _DUCKDB),
    # The last line before dbt warned of what dbt 2 refuses.
    "1.10": ("dbt-core==1.10.23", "dbt-duckdb==1.10.1", "dbt-postgres==1.10.2", _DUCKDB),
    "1.11": ("dbt-core==1.11.16", "dbt-duckdb==1.11.1", "dbt-postgres==1.11.0", _DUCKDB),
    # dbt-duckdb and dbt-postgres have no line 1.12: these are what goes with it.
    "1.12": ("dbt-core==1.12.6", "dbt-duckdb==1.11.1", "dbt-postgres==1.11.0", _DUCKDB),
    # The newest dbt 2 whose program is inside its package; later ones download it while they are installed.
    "2": (
        "dbt-core-experimental-parser==2.0.0a4",
        # Carries the library through which dbt 2 speaks to PostgreSQL; dbt would download one of its own.
        "adbc-driver-postgresql==1.13.0",
        _DUCKDB,
    ),
    # An adapter that has no class of its own in targets.yml, and needs no server.
    "sqlite": ("dbt-core==1.11.16", "dbt-sqlite==1.10.0"),
    # One that speaks to a server over the network, with that server: Spark's own Thrift server is in pyspark. 480 MB.
    "spark": ("dbt-core==1.12.6", "dbt-spark[PyHive]==1.11.0", "pyspark==4.3.0"),
}
ADAPTERS = ("sqlite", "spark")
NAMES = tuple(name for name in _RECIPES if name not in ADAPTERS)

# DuckDB's library as a package, for a Python that has no shared library of its own; nothing newer is there.
_DUCKDB_PACKAGE = "@duckdb/node-bindings-{platform}@1.5.6-r.1"
# Where dbt 2.0.0a4 looks for the driver that it would have downloaded, and under which name.
_POSTGRES_DRIVER = "com.getdbt/adbc/x86_64-manylinux_2_17-linux-gnu/libadbc_driver_postgresql-0.21.0+dbt0.21.0.so"


class EngineMissing(Exception):
    """An engine can't be had on this machine; its text is a sentence that says why."""


@dataclass(frozen=True)
class Engine:
    """A dbt of its own.

    Attributes:
        name: one of NAMES or ADAPTERS.
        program: what is run in place of `dbt`.
        environment: variables that it needs beside those of its caller.
        without: the warehouses that it can't speak to here, with the reason.
    """

    name: str
    program: str
    environment: Mapping[str, str]
    without: Mapping[str, str]


def default_place(environ: Mapping[str, str]) -> Path:
    """Return the folder of the environments: TRIBUTARY_ENGINES, or one in the user's cache."""
    if named := environ.get(PLACE_VARIABLE):
        return Path(named).expanduser().absolute()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tributary" / "engines"


def have(name: str, place: Path | None = None) -> Engine:
    """Return an engine, after making its environment where it is not there yet.

    Raises:
        EngineMissing: it can't be had here.
    """
    packages = _RECIPES[name]
    # Another pin or another Python is another environment.
    recipe = hashlib.sha256(repr((packages, _NEWEST, sys.version_info[:2], _WITHOUT_DBT_2)).encode()).hexdigest()
    folder = (place or default_place(os.environ)) / f"dbt-{name}-{recipe[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_suffix(".lock")):
            made = folder / _MADE
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                engine = _make(name, packages, folder)
                if engine.without:
                    # What was missing may be there the next time.
                    return engine
                made.write_text(json.dumps(asdict(engine)))
            return Engine(**json.loads(made.read_text()))
    except OSError as exc:
        raise EngineMissing(f"dbt {name} can't be kept in {folder}: {exc.strerror}. Set {PLACE_VARIABLE}.") from exc


def _make(name: str, packages: Sequence[str], folder: Path) -> Engine:
    uv = shutil.which("uv")
    if uv is None:
        raise EngineMissing(f"dbt {name} is not here: it is installed with uv, which is not on the PATH.")
    folder.mkdir()
    overrides = folder / "overrides.txt"
    overrides.write_text(_WITHOUT_DBT_2 if name != "2" else "")
    python = _bin(folder) / "python"
    _run(name, [uv, "venv", "--quiet", "--python", sys.executable, str(folder / "env")], folder)
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--exclude-newer", _NEWEST]
    _run(name, [*install, "--overrides", str(overrides), *packages], folder)
    if name != "2":
        return Engine(name, str(_bin(folder) / "dbt"), {}, {})
    environment = {"DBT_ALLOW_EXPERIMENTAL_ADAPTERS": "true"}
    without: dict[str, str] = {}
    for warehouse, give in (("duckdb", _give_duckdb), ("postgres", _give_postgres)):
        try:
            environment |= give(folder)
        except EngineMissing as exc:
            without[warehouse] = str(exc)
    return Engine(name, str(_bin(folder) / "dbt-core-experimental-parser"), environment, without)


def _bin(folder: Path) -> Path:
    return folder / "env" / "bin"


def _library(folder: Path, pattern: str) -> Path:
    found = sorted((folder / "env").glob(f"lib/python*/site-packages/{pattern}"))
    if not found:
        raise EngineMissing(f"No package of dbt 2 here has {pattern}, which it loads.")
    return found[0]


def _give_duckdb(folder: Path) -> dict[str, str]:
    """Have dbt 2 find DuckDB: the one of Tributary, or an older one where this Python can't be loaded by another."""
    drivers = folder / "drivers"
    drivers.mkdir()
    if python := _shared_python():
        # DuckDB's Python package holds the whole of DuckDB, and wants Python's symbols to be there.
        library, environment = _library(folder, "_duckdb*.so"), {"LD_PRELOAD": str(python)}
    else:
        library, environment = _duckdb_of_npm(folder), {}
    (drivers / "duckdb.toml").write_text(f'[Driver]\nshared = "{library}"\nentrypoint = "duckdb_adbc_init"\n')
    return {**environment, "ADBC_DRIVER_PATH": str(drivers)}


def _shared_python() -> Path | None:
    name, place = (sysconfig.get_config_var(key) for key in ("INSTSONAME", "LIBDIR"))
    library = Path(place or "/", name or "-")
    return library if sys.platform == "linux" and ".so" in library.name and library.exists() else None


def _duckdb_of_npm(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise EngineMissing("dbt 2 has no DuckDB here: this Python has no shared library and npm is not on the PATH.")
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    package = _DUCKDB_PACKAGE.format(platform=f"{sys.platform}-{machine}")
    _run("2", [npm, "pack", "--silent", package], folder)
    for archive in folder.glob("*.tgz"):
        with tarfile.open(archive) as files:
            files.extractall(folder / "npm", filter="data")
    found = [path for path in (folder / "npm").rglob("libduckdb.*") if path.suffix in (".so", ".dylib")]
    if not found:
        raise EngineMissing(f"dbt 2 has no DuckDB here: the package {package} holds no library.")
    return found[0]


def _give_postgres(folder: Path) -> dict[str, str]:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EngineMissing("dbt 2 has no PostgreSQL here: where its driver belongs is known for Linux on x86_64 only.")
    cache = folder / "cache"
    driver = cache / _POSTGRES_DRIVER
    driver.parent.mkdir(parents=True)
    shutil.copy(_library(folder, "adbc_driver_postgresql/libadbc_driver_postgresql.so"), driver)
    return {"XDG_CACHE_HOME": str(cache)}


def _run(name: str, argv: Sequence[str], folder: Path) -> None:
    # In the environment's own folder, so that no project's settings are taken for those of this installation.
    try:
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise EngineMissing(f"dbt {name} can't be had here: {argv[0]} did not end within {_SECONDS} s.") from exc
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        what = " ".join([Path(argv[0]).name, *argv[1:3]])
        raise EngineMissing(f"dbt {name} can't be had here, is there a network? {what} said: {said[-300:]}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time make an environment."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@click.command(cls=EntryCommand, help="Have each dbt in an environment of its own; by default all of them.")
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@json_option
def main(names: tuple[str, ...], as_json: bool) -> None:
    """Make what is not there, print what is, and exit with 1 if something is missing."""
    engines: dict[str, Engine] = {}
    missing: list[str] = []
    for name in names or NAMES:
        try:
            engines[name] = have(name)
            missing += engines[name].without.values()
        except EngineMissing as exc:
            missing.append(str(exc))
    if as_json:
        click.echo(json.dumps({name: asdict(engine) for name, engine in engines.items()}, indent=2))
    for name, engine in {} if as_json else engines.items():
        click.echo(f"dbt {name:5} {engine.program}")
        for variable, value in engine.environment.items():
            click.echo(f"          {variable}={value}")
    for sentence in missing:
        click.echo(f"Missing: {sentence}", err=True)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
