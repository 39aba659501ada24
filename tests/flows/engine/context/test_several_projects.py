"""A workspace with several dbt projects: each is had by its name, from a folder or from a git repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows.engine.context.project import project_folder, read_project
from flows.engine.context.reporting import reporting_to
from infrastructure.errors import ConfigError
from tests.support.git_server import git_server
from tests.support.notes import Notes


@pytest.fixture
def own(tmp_path: Path, settled_git: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workspace with project shop in a folder, and finance in a folder of a repository."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "dbt_project.yml").write_text("name: jaffle_shop\n")
    repository = tmp_path / "finance"
    (repository / "dbt").mkdir(parents=True)
    (repository / "dbt" / "dbt_project.yml").write_text("name: finance\nprofile: warehouse\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for arguments in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-qm", "one"), ("tag", "v1")):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    folder = tmp_path / "ours"
    folder.mkdir()
    (folder / "tributary.yml").write_text(
        "projects:\n"
        "  shop: {folder: ../shop}\n"
        "  finance: {git: ../finance, ref: v1, folder: dbt, dbt: /opt/dbt}\n"
        "  secret: {git: 'https://example.com/x.git', token_env: NOT_SET_ANYWHERE}\n"
    )
    monkeypatch.setenv("TRIBUTARY_WORKSPACE", str(folder))
    return folder


def test_a_project_is_found_by_its_name_wherever_it_is(own: Path) -> None:
    notes = Notes()
    with reporting_to(notes):
        shop, finance = read_project("shop"), read_project("finance")
        assert project_folder("finance") == finance.folder

    assert (shop.name, shop.folder, shop.dbt) == ("jaffle_shop", own.parent / "shop", None)
    assert (finance.name, finance.profile, finance.dbt) == ("finance", "warehouse", "/opt/dbt")
    assert finance.folder.is_relative_to(own.parent / "cache" / "tributary" / "projects")
    (said,) = notes.said
    assert said == f"Project finance is commit {finance.folder.parent.name} of v1.", "said once, not at each question"


def test_a_folder_is_still_a_folder_and_a_slip_is_answered(own: Path) -> None:
    assert read_project(own.parent / "shop").name == "jaffle_shop"
    with pytest.raises(ConfigError, match=r"The projects of this workspace are shop, finance and secret; did you mean"):
        read_project("finanse")
    with pytest.raises(ConfigError, match=r"several dbt projects: shop, finance, secret\. Name one with --project"):
        read_project()
    with pytest.raises(ConfigError, match="signs in with NOT_SET_ANYWHERE, which is not set"):
        read_project("secret")


def test_a_repository_is_signed_in_to_with_a_block_and_the_project_knows_its_commit(
    own: Path, fresh: str, prefect_server: str
) -> None:
    from infrastructure.blocks.documents import BlockChange, BlockDocument
    from infrastructure.server.client import connect

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=own.parent / "finance", capture_output=True, text=True)
    with git_server(own.parent, sign_in="x-access-token:geheim-4711") as git:
        where = f"git: '{git.address}/finance/.git', folder: dbt, credentials_block: secret/{fresh}"
        (own / "tributary.yml").write_text(f"projects: {{finance: {{{where}}}}}\n")
        with pytest.raises(ConfigError, match=rf"finance signs in with block secret/{fresh}, which is not on the"):
            read_project()
        document = BlockDocument("secret", fresh, {"value": "geheim-4711"})
        with connect() as server:
            server.save_block(BlockChange(document.slug, "create", document=document))
        found = read_project()

    assert (found.name, found.commit) == ("finance", commit.stdout.strip())
    assert read_project(own.parent / "shop").commit is None
