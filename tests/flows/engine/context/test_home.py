"""State belongs to a project at a place: two of one name have one each, and a move is noticed."""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.engine.artifacts.results import DbtResult
from flows.engine.context.command import DbtCommand
from flows.engine.context.home import PLACE, home_of, place_of
from flows.engine.context.options import RunOptions
from flows.engine.context.project import read_project
from flows.engine.context.run_context import RunContext
from flows.engine.run import run_dbt
from infrastructure.errors import DbtRunFailed
from infrastructure.profiles import Profile


def project(folder: Path, models: dict[str, str] | None = None) -> Path:
    """Make a project named shop."""
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(
        "name: shop\nversion: '1.0'\nprofile: shop\nflags: {send_anonymous_usage_stats: false}\n"
    )
    for name, sql in (models or {}).items():
        (folder / "models" / f"{name}.sql").write_text(sql)
    return folder


def git(*arguments: str | Path) -> None:
    subprocess.run(["git", *map(str, arguments)], check=True, capture_output=True)


def repository(folder: Path, origin: str = "", path: str = "dbt") -> Path:
    """Make a repository with a project in it, and return the project's folder."""
    git("init", folder)
    if origin:
        git("-C", folder, "remote", "add", "origin", origin)
    return project(folder / path)


def build(folder: Path, warehouse: Path, resume: bool = False) -> DbtResult:
    output = {"type": "duckdb", "path": str(warehouse), "schema": "main", "threads": 1}
    run = RunContext(read_project(folder), Profile("dev", "shop", output, {}))
    return run_dbt(DbtCommand("build"), run, RunOptions(resume=resume))


def test_a_resume_takes_nothing_from_another_project_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path / "state"))
    bad = "select * from {{ ref('first') }}, no_such_table"
    one = project(tmp_path / "one", {"first": "select 1 as id", "second": bad})
    other = project(tmp_path / "other", {"first": "select 2 as id", "second": "select * from {{ ref('first') }}"})
    with pytest.raises(DbtRunFailed, match="second"):
        build(one, tmp_path / "one.duckdb")

    resumed = build(other, tmp_path / "other.duckdb", resume=True)

    assert {node.name: node.outcome for node in resumed.nodes} == {"first": "succeeded", "second": "succeeded"}
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"shop", "shop@2"}
    # And the first goes on with what is its own.
    (one / "models" / "second.sql").write_text("select * from {{ ref('first') }}")
    assert [node.name for node in build(one, tmp_path / "one.duckdb", resume=True).nodes] == ["first", "second"]
    assert len(read_runs(tmp_path / "state" / "shop")) == 2


def read_runs(home: Path) -> list[Path]:
    return list((home / "dev" / "runs").iterdir())


def test_each_of_three_projects_of_one_name_keeps_its_folder(tmp_path: Path) -> None:
    root = tmp_path / "state"
    folders = [project(tmp_path / name) for name in ("a", "b", "c")]
    homes = [home_of(root, "shop", folder) for folder in folders]
    assert [home.name for home, _ in homes] == ["shop", "shop@2", "shop@3"]
    assert homes[0][1] == ""
    assert homes[2][1] == (
        f"{root / 'shop'} holds the state of another project shop, at {folders[0]}: that of this one, at {folders[2]}, "
        f"is kept in {root / 'shop@3'}."
    )
    assert [home_of(root, "shop", folder) for folder in folders] == [(home, "") for home, _ in homes]
    # Somebody throws one away: the others stay where they are.
    shutil.rmtree(root / "shop@2")
    assert home_of(root, "shop", folders[2]) == (root / "shop@3", "")
    assert home_of(root, "shop", folders[1])[0] == root / "shop@2"


def test_projects_that_begin_at_once_do_not_take_the_same_folder(tmp_path: Path) -> None:
    folders = [project(tmp_path / f"p{number}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        homes = list(pool.map(lambda folder: home_of(tmp_path / "state", "shop", folder)[0], folders))
    assert len(set(homes)) == 12
    assert {path.name for path in (tmp_path / "state").iterdir()} == {home.name for home in homes}


def test_a_folder_that_was_moved_takes_its_state_along_and_says_so_once(tmp_path: Path) -> None:
    root = tmp_path / "state"
    old, new = project(tmp_path / "old"), tmp_path / "new"
    home_of(root, "shop", old)
    old.rename(new)
    said = f"Project shop has moved from {old} to {new}: it goes on with its state in {root / 'shop'}."
    assert home_of(root, "shop", new) == (root / "shop", said)
    assert home_of(root, "shop", new) == (root / "shop", "")


def test_a_symlink_to_a_project_is_that_project(tmp_path: Path) -> None:
    real = project(tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    assert place_of(tmp_path / "link") == place_of(real)


@pytest.mark.parametrize(
    "other",
    [
        "https://a-user:a-password@Git.example.com/team/shop.git",
        "git@git.example.com:team/shop",
        "ssh://git@git.example.com:22/team/shop.git/",
    ],
)
def test_a_worker_that_clones_anew_each_time_keeps_its_state(tmp_path: Path, other: str) -> None:
    root = tmp_path / "state"
    for number, origin in enumerate(("https://git.example.com/team/shop.git", other)):
        clone = repository(tmp_path / f"clone{number}", origin)
        assert home_of(root, "shop", clone)[0] == root / "shop"
        if number:
            shutil.rmtree(tmp_path / "clone0")
    written = (root / "shop" / PLACE).read_text()
    assert json.loads(written)["repository"] == "git.example.com/team/shop"
    assert "a-password" not in written
    # A project of another repository does not take it over, though that clone is gone now.
    shutil.rmtree(tmp_path / "clone1")
    elsewhere = repository(tmp_path / "clone2", "https://git.example.com/team/other.git")
    assert home_of(root, "shop", elsewhere)[0] == root / "shop@2"


def test_a_worktree_is_the_project_and_another_folder_of_the_repository_is_not(tmp_path: Path) -> None:
    main = repository(tmp_path / "main", "https://git.example.com/team/shop.git")
    git("-C", tmp_path / "main", "add", ".")
    git("-C", tmp_path / "main", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-m", "1")
    git("-C", tmp_path / "main", "worktree", "add", tmp_path / "branch")
    root = tmp_path / "state"
    assert home_of(root, "shop", main) == (root / "shop", "")
    home, said = home_of(root, "shop", tmp_path / "branch" / "dbt")
    assert home == root / "shop"
    assert said.startswith("Project shop has moved from ")
    second = project(tmp_path / "main" / "second")
    assert home_of(root, "shop", second)[0] == root / "shop@2"
    # A folder that is renamed in the repository is no other project.
    (tmp_path / "main" / "dbt").rename(tmp_path / "main" / "transform")
    assert home_of(root, "shop", tmp_path / "main" / "transform")[0] == root / "shop"


def test_a_repository_without_origin_is_known_by_its_folder(tmp_path: Path) -> None:
    folder = repository(tmp_path / "own")
    assert place_of(folder) == place_of(folder)
    assert place_of(folder).repository == ""
    home_of(tmp_path / "state", "shop", folder)
    git("-C", tmp_path / "own", "remote", "add", "origin", "https://git.example.com/team/shop.git")
    assert home_of(tmp_path / "state", "shop", folder) == (tmp_path / "state" / "shop", "")


def test_state_of_an_older_version_stays_with_the_project_that_made_it(tmp_path: Path) -> None:
    root = tmp_path / "state"
    mine, other = project(tmp_path / "mine"), project(tmp_path / "other")
    target = root / "shop" / "dev" / "target"
    target.mkdir(parents=True)
    (target / "run_results.json").write_text(json.dumps({"args": {"project_dir": str(other)}, "results": []}))
    assert home_of(root, "shop", mine)[0] == root / "shop@2"
    assert home_of(root, "shop", other) == (root / "shop", "")
    assert json.loads((root / "shop" / PLACE).read_text())["folder"] == str(other)


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"format": 1}'])
def test_a_folder_that_does_not_say_whose_it_is_is_taken(tmp_path: Path, broken: str) -> None:
    root = tmp_path / "state"
    (root / "shop" / "dev" / "runs").mkdir(parents=True)
    if broken:
        (root / "shop" / PLACE).write_text(broken)
    folder = project(tmp_path / "mine")
    assert home_of(root, "shop", folder) == (root / "shop", "")
    assert home_of(root, "shop", project(tmp_path / "other"))[0] == root / "shop@2"
