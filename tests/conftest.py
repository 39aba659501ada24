"""What every test may use: a Prefect server, a PostgreSQL database, and folders that are not the user's own."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import certifi
import pytest

from benchmarks.databases import database_of_its_own
from benchmarks.engines import NAMES, PLACE_VARIABLE, default_place
from tests.support.forks import COLD_POPEN
from tests.support.postgres import some_postgres
from tests.support.prefect_api import SetUpTarget
from tests.support.prefect_server import prefect_server_running
from tests.support.processes import free_port, wait_until
from tests.support.stores import STATE_VARIABLE, STORES, put_state
from tests.support.warm_children import warm_children

if TYPE_CHECKING:
    from tests.support.airbyte.server import AirbyteServer

# Settings of the person who runs the tests, which would send a test to their server or change what dbt does.
_THEIR_OWN = ("PREFECT_", "DBT_", "TRIBUTARY_", "OPENLINEAGE_", "OTEL_")
_FOR_TESTS = "TRIBUTARY_TEST_"
# Each has a Prefect server of its own, and what children are forked from: several hundred MB.
_MOST_PROCESSES = 4
_END_OF_CERTIFICATE = "-----END CERTIFICATE-----"

_sandbox = pytest.StashKey[Path]()
_cache = pytest.StashKey[Path]()
_patch = pytest.StashKey[pytest.MonkeyPatch]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep this process and its children from the user's home, server and state, before any test is imported."""
    folder = Path(tempfile.mkdtemp(prefix="tributary-tests-"))
    patch = pytest.MonkeyPatch()
    # What is dear to make and the same each time is made once on a machine.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tributary"
    # The other versions of dbt stay where they are, too: each is made once on a machine.
    engines = default_place(os.environ)
    for name in [name for name in os.environ if name.startswith(_THEIR_OWN) and not name.startswith(_FOR_TESTS)]:
        patch.delenv(name)
    home = folder / "home"
    home.mkdir()
    # What uv has downloaded stays where it is: an environment that a test makes is then made in a second.
    if "UV_CACHE_DIR" not in os.environ and (uv_cache := Path.home() / ".cache" / "uv").is_dir():
        patch.setenv("UV_CACHE_DIR", str(uv_cache))
    # Where Python is told to keep no bytecode, each of the hundreds of children would compile all that it imports,
    # which doubles what dbt and a server take to start: it is kept, once, in the user's cache.
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        patch.delenv("PYTHONDONTWRITEBYTECODE")
        patch.setenv("PYTHONPYCACHEPREFIX", str(cache / "bytecode"))
    patch.setenv(PLACE_VARIABLE, str(engines))
    patch.setenv("HOME", str(home))
    patch.setenv("PREFECT_HOME", str(home / ".prefect"))
    patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # Not the server that somebody runs on the usual port of this machine.
    patch.setenv("PREFECT_SERVER_API_PORT", str(free_port()))
    # Prefect's clients read the certificates that they trust each time one is made, which took a fifth of what tests of
    # flows take. No server of the tests has one: a single certificate is read in no time.
    first_of_all = Path(certifi.where()).read_text(encoding="utf-8").partition(_END_OF_CERTIFICATE)[:2]
    (folder / "certificates.pem").write_text("".join(first_of_all) + "\n")
    patch.setenv("PREFECT_API_SSL_CERT_FILE", str(folder / "certificates.pem"))
    # Not the settings that a pyproject.toml or a .env in the working directory might hold.
    patch.setenv("PREFECT_PROFILES_PATH", str(home / ".prefect" / "profiles.toml"))
    put_state(patch, folder / "state")
    patch.setenv("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
    # A block that a test has saved must not make the failures of other tests known to somebody.
    (folder / "routes.yml").write_text("destinations: {}\nroutes: []\n")
    patch.setenv("TRIBUTARY_ALERT_ROUTES", str(folder / "routes.yml"))
    config.stash[_sandbox], config.stash[_cache], config.stash[_patch] = folder, cache, patch


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the stores, give the environment back and remove the folder."""
    STORES.stop()
    # DuckDB's library calls whatever is left at the end a leak.
    gc.unfreeze()
    config.stash[_patch].undo()
    shutil.rmtree(config.stash[_sandbox], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what takes a minute by itself, unless it is asked for."""
    if os.environ.get(f"{_FOR_TESTS}SLOW"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason=f"takes a minute: {_FOR_TESTS}SLOW=1 uv run pytest -m slow"))


def pytest_collection_finish() -> None:
    """Look for garbage seldom, and not in what was imported and collected: it took a seventh of the processor."""
    gc.freeze()
    gc.set_threshold(50_000)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have one process more than the machine has cores, as most wait; of whole systems, no more than it can carry."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores if os.environ.get(f"{_FOR_TESTS}SLOW") else cores + 1, _MOST_PROCESSES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep what shares what is dear on one process: a file, the builds of the models, dbt in a process.

    `--dist loadgroup` would do it with marks, but xdist 3.8 writes them where pytest 9.2 does not look any more.
    """
    from xdist.scheduler import LoadScopeScheduling

    @cache
    def scope_of(file: str) -> str:
        if file.startswith("tests/models/"):
            return "tests/models"
        # To import dbt and to parse its own macros takes 8 s of a processor in each process that does it.
        is_dbt_inside = "tests.support.in_process" in (config.rootpath / file).read_text(encoding="utf-8")
        return "dbt in this process" if is_dbt_inside else file

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            scope = scope_of(file)
            # What each dbt 1 of another environment does takes a minute or two.
            others = set(re.split(r"[][-]", test)) & {*NAMES} - {"2"}
            return f"{file} with dbt {others.pop()}" if others and scope == file else scope

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def sandbox(pytestconfig: pytest.Config) -> Path:
    """Return the folder that stands in for the user's home and state, and make sure that it does."""
    folder = pytestconfig.stash[_sandbox]
    for name in ("HOME", "PREFECT_HOME", "TRIBUTARY_STATE_COPY" if STATE_VARIABLE in os.environ else "TRIBUTARY_STATE"):
        assert Path(os.environ[name]).is_relative_to(folder)
    return folder


@pytest.fixture(scope="session")
def user_cache(pytestconfig: pytest.Config) -> Path:
    """Return the folder of what is made once on a machine."""
    return pytestconfig.stash[_cache]


@pytest.fixture(scope="session", autouse=True)
def forked_children(sandbox: Path) -> Iterator[None]:
    """Fork the children of this process from what has imported what they import."""
    with warm_children():
        yield


@pytest.fixture(scope="session")
def bucket() -> str:
    """Return the address of state in a bucket, on a server of this process's own: S3, or the one that is asked for."""
    kind = os.environ.get(STATE_VARIABLE, "folder")
    return STORES.address("s3" if kind == "folder" else kind)


@pytest.fixture
def cold_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the children of a test as a run does, for what is about their start."""
    monkeypatch.setattr(subprocess, "Popen", COLD_POPEN)


@pytest.fixture(scope="session")
def prefect_server(user_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Prefect server and point this process and its children at it; yields the address of its API."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    home = tmp_path_factory.mktemp("prefect-home")
    with (
        prefect_server_running(home, user_cache) as url,
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: url}),
    ):
        patch.setenv("PREFECT_API_URL", url)
        patch.setenv("PREFECT_HOME", str(home))
        yield url


@pytest.fixture(scope="session")
def postgres_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Make a database for the session: host, port, user, password and dbname; skip where there is no PostgreSQL."""
    pytest.importorskip("psycopg2", reason="needs the postgres extra: uv sync --extra postgres")
    with some_postgres() as address, database_of_its_own(address) as database:
        yield database


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a Redis whose keys tests may add to; skip where there is none."""
    from redis import Redis, RedisError

    def answers(url: str) -> bool:
        with closing(Redis.from_url(url, socket_connect_timeout=2)) as redis, suppress(RedisError):
            return bool(redis.ping())
        return False

    named = os.environ.get("TRIBUTARY_TEST_REDIS_URL")
    url = named or "redis://127.0.0.1:6379/15"
    if answers(url):
        yield url
        return
    if named:
        # It was asked for, so its absence is no reason to look elsewhere or to pass the tests over.
        pytest.fail("TRIBUTARY_TEST_REDIS_URL names a Redis that does not answer")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs Redis: set TRIBUTARY_TEST_REDIS_URL, start one on 127.0.0.1:6379, or install redis-server")
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(f"redis://127.0.0.1:{port}/0"), "the Redis of this session answers")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def airbyte() -> Iterator[AirbyteServer]:
    """Start a stand-in for Airbyte; at the end, nothing may have been asked that Airbyte would not understand."""
    from tests.support.airbyte.server import airbyte_running

    with airbyte_running() as server:
        yield server
    assert server.mistakes == []


@pytest.fixture
def fresh() -> str:
    """Return a name that no other test uses on the server."""
    return f"t{uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def set_up_target(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> SetUpTarget:
    """Return a function that sets a target up on the server as setup does, and returns its name.

    By default on a DuckDB file of its own; `environ` holds the secrets that its settings name.
    """
    import yaml

    from infrastructure.registration import apply, declare, plan
    from infrastructure.server.client import connect
    from infrastructure.targets.target_file import load_targets

    def set_up(settings: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> str:
        folder = tmp_path_factory.mktemp("target")
        name = f"t{uuid4().hex[:10]}"
        embedded = {"warehouse": "duckdb", "path": str(folder / "warehouse.duckdb"), "schema": "main", "threads": 2}
        # Most look at every node in Prefect; None leaves it to the default.
        given = {"task_runs": "all", **(settings or embedded)}
        settings = {key: value for key, value in given.items() if value is not None}
        document = {"default": name, "targets": {name: settings}}
        (folder / "targets.yml").write_text(yaml.safe_dump(document))
        with connect() as server:
            apply(server, plan(server, declare(load_targets(folder / "targets.yml", environ), environ or {}, [name])))
        return name

    return set_up
