"""The files of deployments/docker: what they hold, and every command of compose.yaml run for real, without a container.

What a container adds (file systems, networks, users) is not tried here: there is no daemon where the tests run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from infrastructure.workspace import ROOT
from tests.deployments.docker.compose import Compose
from tests.support.postgres import own_postgres, postgres_programs
from tests.support.prefect_api import look
from tests.support.processes import free_port, wait_until

pytestmark = pytest.mark.slow

DOCKER = ROOT / "deployments" / "docker"
COMPOSE = DOCKER / "compose.yaml"
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """Return the instructions of the Dockerfile, one line each."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_image_runs_as_nobody_special_and_holds_what_it_needs_and_no_more(steps: list[str]) -> None:
    users = [step.split()[1] for step in steps if step.startswith("USER")]
    assert users
    assert int(users[-1].partition(":")[0]) > 0
    assert any(step.startswith("HEALTHCHECK") for step in steps)
    for step in steps:
        if step.startswith("COPY") and "--from" not in step:
            for source in step.split()[1:-1]:
                assert (ROOT / source).exists(), step
        # A variable of the build can be read from the image's history.
        assert not re.match(r"(ARG|ENV).*(PASSWORD|SECRET|TOKEN|KEY)", step), step
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = [step.split()[1:-1] for step in steps if step.startswith("COPY") and "--from" not in step]
    assert {source.removeprefix("./") for sources in copied for source in sources} == allowed
    assert {"**/.env", "dbt/profiles.yml"} <= set(ignored)


def test_the_packages_of_the_image_are_those_that_a_worker_needs(steps: list[str], tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    if (ROOT / "uv.lock").exists():
        shutil.copy(ROOT / "uv.lock", tmp_path)
    (extras,) = [shlex.split(step.removeprefix("ARG EXTRAS="))[0] for step in steps if step.startswith("ARG EXTRAS")]
    (command,) = [step.partition("uv sync")[2] for step in steps if "uv sync" in step]
    words = shlex.split(command.replace("${EXTRAS}", extras))
    done = subprocess.run(
        [uv, "sync", *words, "--dry-run"],
        cwd=tmp_path,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(tmp_path / "environment"), "UV_PYTHON_DOWNLOADS": "never"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "onnect" in done.stderr + done.stdout:
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    packages = set(re.findall(r"^ \+ ([\w-]+)==", done.stderr, flags=re.MULTILINE))
    assert {"prefect", "dbt-postgres", "dbt-duckdb", "redis", "uvicorn"} <= packages
    assert not {"pytest", "hypothesis", "ruff", "basedpyright", "dbt-snowflake"} & packages


def test_nothing_is_published_beyond_this_machine_and_no_secret_is_written_down() -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    for service in document["services"].values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN", name):
                assert str(value).startswith("${"), f"{name} is to come from .env"
    named = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    given = {line.partition("=")[0] for line in (DOCKER / ".env.example").read_text().splitlines() if "=" in line}
    assert named <= given
    ignored = subprocess.run(["git", "check-ignore", "-q", str(DOCKER / ".env")], cwd=ROOT, check=False).returncode
    assert ignored in (0, 128), ".env would be committed"


def test_what_the_containers_leave_is_on_one_volume_that_outlives_them() -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    ours = [service for service in document["services"].values() if service["image"].startswith("tributary:")]
    assert len(ours) == 3
    for service in ours:
        assert "tributary:/var/lib/tributary" in service["volumes"]
        assert service["environment"]["TRIBUTARY_STATE"] == "${TRIBUTARY_STATE:-/var/lib/tributary/state}"
    assert "tributary" in document["volumes"]


def test_a_workspace_of_ones_own_is_given_to_every_container_of_ours() -> None:
    base, own = (yaml.safe_load(path.read_text()) for path in (COMPOSE, DOCKER / "compose.workspace.yaml"))
    ours = {name for name, service in base["services"].items() if service["image"].startswith("tributary:")}
    assert own["services"].keys() == ours
    for service in own["services"].values():
        (volume,) = service["volumes"]
        assert volume.endswith(f"}}:{service['environment']['TRIBUTARY_WORKSPACE']}")
        # Sample data and the example's targets are no part of it.
        assert "postgres" not in str(service)


@pytest.fixture
def prefect_redis(tmp_path: Path) -> Path:
    """Return a folder with what the image of Prefect's server holds beside Prefect."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv")
    folder = tmp_path / "prefect-redis"
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["fleet"]
    install = [uv, "pip", "install", "--quiet", "--target", str(folder), "--no-deps", *wanted]
    done = subprocess.run(install, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the package prefect-redis: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make a git repository of one commit."""
    folder = tmp_path / "repository"
    git = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / "README").write_text("x")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "first"], check=True)
    return folder


@pytest.fixture
def system(tmp_path: Path, prefect_redis: Path, repository: Path) -> Iterator[Compose]:
    """Start every service of compose.yaml as its conditions allow, and stop them at the end."""
    import psycopg2

    if shutil.which("redis-server") is None:
        pytest.skip("needs the program redis-server")
    ports = {port: str(free_port()) for port in ("4200", "6379", "8080", "8085")}
    with own_postgres() as address:
        ports["5432"] = str(address["port"])
        state = {"PREFECT_HOME": str(tmp_path / "prefect"), "TRIBUTARY_STATE": str(tmp_path / "state")}
        image = {**state, "PREFECT_WORKER_WEBSERVER_PORT": ports["8080"], "PREFECT_WORKER_QUERY_SECONDS": "1"}
        server = {**state, "PYTHONPATH": str(prefect_redis)}
        names = {"postgres:5432": f"127.0.0.1:{ports['5432']}", "redis:6379": f"127.0.0.1:{ports['6379']}"}
        names |= {"server:4200": f"127.0.0.1:{ports['4200']}", "0.0.0.0": "127.0.0.1", "/repository": str(repository)}
        compose = Compose(
            COMPOSE,
            {"POSTGRES_PASSWORD": "secret1", "TRIBUTARY_WEBHOOK_SECRET": "s" * 32, "SAMPLE_ROWS": "500", **state},
            {**names, **ports},
            tmp_path,
            os.pathsep.join([str(PROGRAMS), str(postgres_programs()), os.environ["PATH"]]),
            {
                **dict.fromkeys(("setup", "worker", "webhook"), image),
                **dict.fromkeys(("migrate", "server", "services"), server),
            },
        )
        for service in compose.services.values():
            for name in ("POSTGRES_HOST", "PREFECT_REDIS_MESSAGING_HOST"):
                if name in service.get("environment", {}):
                    service["environment"][name] = "127.0.0.1"
        # What the image of PostgreSQL does with its environment and its folder of scripts.
        wanted = compose.services["postgres"]["environment"]
        with closing(psycopg2.connect(**address)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(f"create role {wanted['POSTGRES_USER']} superuser login password 'secret1'")
            cursor.execute(f"create database {wanted['POSTGRES_DB']} owner {wanted['POSTGRES_USER']}")
            cursor.execute((DOCKER / "databases.sql").read_text())
        try:
            for name in compose.order():
                # The image's own command: it runs already.
                compose.start(name, ["sleep", "3600"] if name == "postgres" else None)
            yield compose
        finally:
            codes = compose.stop()
        assert codes.keys() >= {"redis", "server", "services", "worker", "webhook"}
        # Uvicorn ends by the signal that stopped it, once it has answered what it had. Prefect's worker can take longer
        # than anybody waits; Docker kills it then, too, and it has nothing to lose.
        codes.pop("worker")
        assert all(code in (0, -signal.SIGTERM) for code in codes.values()), codes


def test_every_service_runs_and_the_nightly_deployment_ends_well_on_the_worker(system: Compose) -> None:
    for name in ("worker", "webhook"):
        check = system.services[name].setdefault("healthcheck", {})
        if "test" not in check:
            # The image's own.
            line = next(line for line in (DOCKER / "Dockerfile").read_text().splitlines() if "CMD [" in line)
            check["test"] = ["CMD", *yaml.safe_load(line.strip().removeprefix("CMD "))]
        wait_until(lambda name=name: system.is_healthy(name), f"{name} is healthy")
    api = system.environment("worker")["PREFECT_API_URL"]
    started = subprocess.run(
        # A small project: the repository's own is built on PostgreSQL by tests/models.
        [
            *("prefect", "deployment", "run", "full-dbt-refresh/nightly"),
            *("--param", "target=postgres", "--param", f'project_dir="{ROOT / "tests" / "projects" / "shop"}"'),
        ],
        env=system.environment("worker"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    (run_id,) = re.findall(r"UUID: ([0-9a-f-]{36})", started.stdout)

    def state() -> str:
        return look(f"{api}/flow_runs/{run_id}")["state"]["type"]

    wait_until(lambda: state() in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), "the nightly run ends", 600)
    assert state() == "COMPLETED", system.log("worker")
