"""Production by Terraform: the same files, and the same jobs, as through the API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deployments.dbt_cloud.files.reading import load_config
from deployments.dbt_cloud.model.job_object import compared, job_object
from deployments.dbt_cloud.model.names import Owner
from deployments.dbt_cloud.model.time_zones import utc_cron
from infrastructure.errors import ConfigError
from tests.support.cloud.jobs import ENVIRONMENT, PROJECT
from tests.support.cloud.server import ACCOUNT

FOLDER = Path(__file__).parents[3] / "deployments" / "dbt_cloud"
ENV_FILES = sorted((FOLDER / "env_file").glob("*.tfvars"))
needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="needs the terraform program")

# Every spelling, each kind of schedule, text with escapes, values that Terraform converts.
EVERYTHING = Path(__file__).with_name("everything.tfvars")


def rendered(folder: Path, file: Path, **variables: Any) -> dict[str, Any]:
    """What Terraform makes of a file: its plan of variables.tf and jobs.tf, which need no provider."""
    for name in ("variables.tf", "jobs.tf"):
        shutil.copy(FOLDER / name, folder)
    names = ("job_objects", "completion_triggers", "overrides")
    (folder / "outputs.tf").write_text("".join(f'output "{name}" {{\n  value = local.{name}\n}}\n' for name in names))
    settings = folder / "cli.tfrc"
    settings.write_text("disable_checkpoint = true\n")
    environment = {
        **os.environ,
        "TF_CLI_CONFIG_FILE": str(settings),
        "CHECKPOINT_DISABLE": "1",
        "TF_IN_AUTOMATION": "1",
    }
    environment |= {f"TF_VAR_{name}": json.dumps(value) for name, value in variables.items()}

    def terraform(*arguments: str) -> str:
        done = subprocess.run(["terraform", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ConfigError(" ".join(done.stderr.replace("│", " ").split()))
        return done.stdout

    terraform("init", "-input=false", "-no-color")
    terraform("plan", "-input=false", "-no-color", "-lock=false", f"-var-file={file}", "-out=plan")
    outputs = json.loads(terraform("show", "-json", "plan"))["planned_values"]["outputs"]
    return {name: outputs[name].get("value", {}) for name in names}


def as_sent(job: dict[str, Any]) -> dict[str, Any]:
    """The job that the provider sends for its resource (its documentation, and its mapping of schedules)."""
    kind, hours = job["schedule_type"], job.get("schedule_hours")
    date: dict[str, Any] = {"type": kind}
    time = (
        {"type": "at_exact_hours", "hours": hours}
        if hours
        else {"type": "every_hour", "interval": job.get("schedule_interval") or 1}
    )
    if kind == "days_of_week":
        date["days"] = job["schedule_days"]
    elif kind == "custom_cron":
        date["cron"] = job["schedule_cron"]
    elif kind == "interval_cron":
        days = ",".join(str(day) for day in job.get("schedule_days") or range(7))
        date["cron"] = f"4 */{job['schedule_interval']} * * {days}"
    return {
        **job,
        "settings": {"threads": job["num_threads"], "target_name": job["target_name"]},
        "execution": {"timeout_seconds": job["timeout_seconds"]},
        "schedule": {"date": date, "time": time},
        "deferring_job_definition_id": "self" if job.get("self_deferring") else job.get("deferring_job_id"),
    }


def through_the_api(file: Path, now: datetime) -> dict[str, dict[str, Any]]:
    """The jobs that the API is sent for a file."""
    owner, config = Owner("analytics-team"), load_config([str(file)])
    jobs: dict[str, dict[str, Any]] = {}
    for job in config.jobs:
        places = (
            job.project_id or config.project_id or PROJECT,
            job.environment_id or config.environment_id or ENVIRONMENT,
        )
        document = job_object(job, owner.job_name(job.name), ACCOUNT, *places, now)
        if job.self_deferring:
            document["deferring_job_definition_id"] = "self"
        jobs[job.name] = compared(document)
    return jobs


def utc_schedules(file: Path, now: datetime) -> dict[str, str]:
    jobs = load_config([str(file)]).jobs
    return {job.name: utc_cron(job.local_cron, job.schedule_tz or "UTC", now) for job in jobs if job.local_cron}


@needs_terraform
def test_terraform_and_the_api_make_the_same_jobs_of_a_file(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    for number, file in enumerate([EVERYTHING, *ENV_FILES]):
        folder = tmp_path / str(number)
        folder.mkdir()
        outputs = rendered(
            folder, file, project_id=PROJECT, environment_id=ENVIRONMENT, utc_schedules=utc_schedules(file, now)
        )
        ours = through_the_api(file, now)
        assert {name: compared(as_sent(job)) for name, job in outputs["job_objects"].items()} == ours


@needs_terraform
def test_variables_and_triggers_are_the_same_too(tmp_path: Path) -> None:
    outputs = rendered(tmp_path, EVERYTHING, utc_schedules={"local": "0 16 * * 0"})
    job = next(it for it in load_config([str(EVERYTHING)]).jobs if it.name == "after")
    assert {it["name"]: it["value"] for it in outputs["overrides"].values()} == job.environment_variables
    assert outputs["completion_triggers"]["after"] == {
        "upstream": "plain",
        "is_here": True,
        "project_id": 12,
        "statuses": ["error", "canceled"],
    }


@needs_terraform
@pytest.mark.parametrize(
    ("job", "message"),
    [
        ('schedule_type = "weekly"', "A weekly job needs schedule_days"),
        ('schedule_type = "fortnightly"', "schedule_type is one of"),
        ("schedule_hours = [24]", "schedule_hours are 0 to 23"),
        ('environment_variables = { region = "eu" }', "Names of environment variables"),
        ('schedule_hours = [6]\nschedule_tz = "Asia/Tokyo"', "does not identify an element"),
    ],
)
def test_what_we_refuse_terraform_refuses(tmp_path: Path, job: str, message: str) -> None:
    file = tmp_path / "wrong.tfvars"
    file.write_text(f'jobs = [{{\nname = "a"\nexecute_steps = ["dbt build"]\n{job}\n}}]')
    with pytest.raises(ConfigError, match=message):
        rendered(tmp_path, file, project_id=1, environment_id=2)
    if "tz" not in job:
        with pytest.raises(ConfigError, match=r"jobs\[a\]"):
            load_config([str(file)])


@needs_terraform
def test_files_are_formatted_as_terraform_formats_them() -> None:
    done = subprocess.run(["terraform", "fmt", "-check", "-diff", "-recursive", FOLDER], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# What the provider's documentation (1.12) lists. Without the provider itself, which needs its registry, this is the
# check that no attribute is misspelt.
ATTRIBUTES = {
    "dbtcloud_job": """
        compare_changes_flags cost_optimization_features dbt_version deferring_environment_id deferring_job_id
        description environment_id errors_on_lint_failure execute_steps execution generate_docs is_active job_type name
        num_threads project_id run_compare_changes run_generate_sources run_lint schedule_cron schedule_days
        schedule_hours schedule_interval schedule_type self_deferring target_name triggers triggers_on_draft_pr
        validate_execute_steps
    """,
    "dbtcloud_job_completion_trigger": "job_id trigger_job_id project_id statuses",
    "dbtcloud_environment_variable_job_override": "name project_id job_definition_id raw_value",
}


def test_resources_have_the_attributes_that_the_provider_documents() -> None:
    import hcl2

    document = hcl2.loads((FOLDER / "main.tf").read_text())
    for block in document["resource"]:
        ((kind, named),) = ((name.strip('"'), it) for name, it in block.items() if not name.startswith("__"))
        (body,) = (it for name, it in named.items() if not name.startswith("__"))
        used = {name for name in body if not name.startswith("__")} - {"for_each", "lifecycle"}
        assert used <= set(ATTRIBUTES[kind].split()), f"{kind}: {sorted(used)}"
