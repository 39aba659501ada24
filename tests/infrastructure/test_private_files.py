"""Who may read what we write: this user, and nobody else."""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrastructure.private_files import opener, private_folder, write_whole

ROOT = Path(__file__).parents[2]
# Calls that make a file or a folder with the mode that the shell happens to ask for.
MAKERS = {"mkdir", "makedirs", "touch", "write_text", "write_bytes", "copyfile", "copytree"}
# Why a file may make something that others can read, or needs no help to keep them out.
ALLOWED = {
    "infrastructure/private_files.py": "is the place that makes what is private",
    "infrastructure/blocks/block_types.py": "a file of the repository",
    "infrastructure/profiles.py": "in a temporary folder, which Python makes for this user alone",
    "infrastructure/setup_profiles.py": "profiles.yml, which holds no secret and which other programs read",
    "infrastructure/connection_check/check.py": "a temporary folder, which Python makes for this user alone",
    "infrastructure/console.py": "a temporary file, which Python makes for this user alone",
    "deployments/schemas.py": "files of the repository",
    "deployments/snowflake/__main__.py": "a file of SQL that somebody asks for",
    "deployments/dbt_cloud/__main__.py": "plans and files of jobs that somebody asks for",
    "flows/cli/init.py": "files of a workspace, which its user edits and commits, and which name secrets and hold none",
    "flows/engine/context/shared/bucket.py": "a folder of a store that fsspec reaches as files, the store's to shut",
    "flows/engine/process/child.py": "it shuts out others from all that dbt makes",
    "flows/engine/process/relay.py": "under a umask of 077, as child.py",
    "flows/runbook/payroll/export.py": "files in a private folder, which it shuts before the folder has its name",
}


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Let others read what is made, as most systems do, however this machine is set up."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def makers_in(path: Path) -> set[int]:
    """Return the lines on which a file or folder is made in a way that does not say for whom."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        writes = name == "open" and any(text and text[0] in "wax" and len(text) < 4 for text in texts)
        if name in MAKERS or (writes and not any(keyword.arg == "opener" for keyword in node.keywords)):
            found.add(node.lineno)
    return found


def test_only_what_is_meant_for_others_is_made_in_a_way_that_lets_them_read_it() -> None:
    made = {
        str(path.relative_to(ROOT)): lines
        for folder in ("flows", "infrastructure", "deployments")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := makers_in(path))
    }
    assert made.keys() == ALLOWED.keys(), (
        "make it with infrastructure.private_files, or say here why others may read it: "
        f"{ {name: lines for name, lines in made.items() if name not in ALLOWED} }; "
        f"no longer needed here: {ALLOWED.keys() - made.keys()}"
    )


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("path.write_text('a')", True),
        ("open(path, 'ab')", True),
        ("path.open('w')", True),
        ("open(path, 'ab', opener=opener)", False),
        ("open(path)", False),
        ("path.open('rb')", False),
    ],
)
def test_the_search_finds_what_makes_files(tmp_path: Path, text: str, is_found: bool) -> None:
    (tmp_path / "code.py").write_text(text)
    assert bool(makers_in(tmp_path / "code.py")) == is_found


def test_a_folder_and_what_was_missing_above_it_are_private_and_folders_of_others_are_left_alone(
    tmp_path: Path,
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(0o755)
    private_folder(shared / "a" / "b")
    assert [mode(path) for path in (shared, shared / "a", shared / "a" / "b")] == [0o755, 0o700, 0o700]


def test_folders_of_ours_that_an_older_version_left_open_are_shut(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    private_folder(root / "a" / "b", within=root)
    assert [mode(path) for path in (root, root / "a", root / "a" / "b")] == [0o755, 0o700, 0o700]


def test_a_file_is_private_also_where_one_that_was_open_to_others_was_before(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    path.write_text("old")
    assert mode(path) == 0o644
    write_whole(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
    with open(tmp_path / "log", "ab", opener=opener) as file:
        file.write(b"line\n")
    assert mode(tmp_path / "log") == 0o600
    assert sorted(found.name for found in tmp_path.iterdir()) == ["book.json", "log"]


def test_a_report_that_somebody_has_opened_to_others_stays_open_to_them(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_whole(path, b"first", keeps_mode=True)
    assert mode(path) == 0o600
    path.chmod(0o644)
    write_whole(path, b"second", keeps_mode=True)
    assert (path.read_bytes(), mode(path)) == (b"second", 0o644)


def test_what_can_not_be_written_whole_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", b"content")
    assert [found.name for found in tmp_path.iterdir()] == ["taken"]
