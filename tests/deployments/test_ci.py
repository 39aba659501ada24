"""The pipelines of deployments/ci: what they run exists, and a pull request builds where it may be dropped."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.pipelines.ci_schemas import own_schema
from infrastructure.profiles import Profile
from infrastructure.targets.target_file import load_targets
from infrastructure.workspace import ROOT
from tests.support.documents import accept, after_uv_run

GITHUB, GITLAB = ROOT / "deployments" / "ci" / "github.yml", ROOT / "deployments" / "ci" / "gitlab.yml"


def scripts(path: Path) -> Iterator[tuple[str, str]]:
    """Return the lines that each job runs."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    if "jobs" in document:
        for name, job in document["jobs"].items():
            for step in job["steps"]:
                yield from ((name, line) for line in step.get("run", "").splitlines())
        return
    for name, job in document.items():
        if isinstance(job, dict):
            for part in ("script", "after_script"):
                yield from ((name, line) for line in job.get(part, []))


COMMANDS = [
    (path.name, job, line.partition(" | ")[0])
    for path in (GITHUB, GITLAB)
    for job, line in scripts(path)
    if line.startswith(("uv ", "make "))
]


@pytest.mark.parametrize(("file", "job", "line"), COMMANDS)
def test_every_command_is_one_that_the_program_takes(file: str, job: str, line: str) -> None:
    words = tuple(shlex.split(line))
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[:2] == ("uv", "sync"):
        after_uv_run(("uv", "run", *words[2:], "python"))
    else:
        program, *arguments = after_uv_run(words)
        assert program == "tributary"
        accept("flows", arguments, is_whole=True)


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_both_plan_build_drop_and_apply(path: Path) -> None:
    by_job: dict[str, list[str]] = {}
    for job, line in scripts(path):
        by_job.setdefault(job, []).append(line)
    assert any("tributary deploy plan" in line for line in by_job["plan"])
    assert [line for line in by_job["build"] if " tributary " in line][-1].endswith("drop-schema --target ci")
    apply = [line for line in by_job["apply"] if "tributary deploy " in line]
    assert [line.split("tributary deploy ")[1] for line in apply] == ["apply --prune", "plan --prune --exit-code"]


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_a_pull_request_builds_in_a_schema_that_may_be_dropped(path: Path) -> None:
    (written,) = re.findall(r"TRIBUTARY_CI_SCHEMA: (\S+?)(?:\$.*)?\n", path.read_text())
    environ = {"TRIBUTARY_CI_SCHEMA": f"{written}42", "GCP_PROJECT": "p"}
    target = load_targets(environ=environ).find("ci")
    profile = Profile("ci", "tributary", {"type": "bigquery", "schema": target.schema_name}, {})
    assert own_schema(profile) == f"{written}42"
