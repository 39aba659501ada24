"""The GitLab pipeline: GitLab would take it, and every command in it is one that we have."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.dbt_cloud.__main__ import main

FILE = Path(__file__).parents[3] / "deployments" / "dbt_cloud" / ".gitlab-ci.yml"
GLOBAL = {"stages", "variables", "workflow", "default", "include"}


class Loader(yaml.SafeLoader):
    """YAML with GitLab's `!reference`."""


Loader.add_constructor("!reference", lambda loader, node: ("reference", *loader.construct_sequence(node)))


def pipeline() -> dict[str, Any]:
    return yaml.load(FILE.read_text(), Loader=Loader)


def jobs() -> dict[str, dict[str, Any]]:
    return {name: job for name, job in pipeline().items() if name not in GLOBAL}


def test_gitlab_takes_the_file() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    if not program.exists():
        pytest.skip("needs check-jsonschema: uv sync --group lint")
    schema = ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    done = subprocess.run([program, *schema, FILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_stages_and_jobs_are_those_of_the_document() -> None:
    assert pipeline()["stages"] == ["validate", "deploy-branch", "deploy-production", "cleanup"]
    assert jobs().keys() >= {
        "deploy-branch-jobs",
        "deploy-production-terraform",
        "cleanup-old-branch-jobs",
        "emergency-cleanup",
        "list-team-jobs",
        "show-help",
    }


def test_what_jobs_refer_to_is_there() -> None:
    """Which the schema does not see."""
    every, stages = jobs(), pipeline()["stages"]
    for name, job in every.items():
        assert job.get("extends", name) in every, name
        assert set(job.get("needs", ())) <= every.keys(), name
        assert name.startswith(".") or job["stage"] in stages, name
        for rule in job.get("rules", ()):
            assert not isinstance(rule, tuple) or rule[1] in every, name


@pytest.mark.parametrize("name", ["deploy-branch-jobs", "deploy-production-terraform", "cleanup-old-branch-jobs"])
def test_what_writes_waits_for_a_person_or_a_schedule(name: str) -> None:
    rules = jobs()[name]["rules"]
    last = rules[-1]
    assert last["when"] == "manual"
    # A manual job that is not optional would block every pipeline.
    assert last["allow_failure"] is True
    assert jobs()[name]["resource_group"]


def test_every_command_and_option_is_ours() -> None:
    found = 0
    for job in jobs().values():
        script = "\n".join(map(str, job.get("script", ()))).replace("\\\n", " ")
        for line in re.findall(r"deployments\.dbt_cloud (.*)", script):
            command, *words = [word for word in shlex.split(line) if word]
            found += 1
            if command == "--help":
                continue
            known = {option for it in main.commands[command].params for option in it.opts}
            assert {word for word in words if word.startswith("--")} <= known, line
    assert found >= 8
