"""The command line: what it says, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.cloud.jobs import BRANCH, ENVIRONMENT, PROJECT, Cloud
from tests.support.cloud.server import ACCOUNT

YAML = f"""
jobs:
  nightly:
    account_id: {ACCOUNT}
    project_id: {PROJECT}
    environment_id: {ENVIRONMENT}
    name: "{{{{ prefix }}}}Nightly"
    settings: {{threads: 4, target_name: prod}}
    execution: {{timeout_seconds: 0}}
    run_generate_sources: false
    execute_steps: [dbt build]
    generate_docs: false
    schedule: {{cron: "0 6 * * *"}}
    triggers: {{github_webhook: false, git_provider_webhook: false, schedule: true, on_merge: false}}
    custom_environment_variables:
      - DBT_REGION: eu
"""


def test_a_branch_is_planned_deployed_listed_and_left_alone(cloud: Cloud, tfvars: Path) -> None:
    config = ("--config", str(tfvars))
    assert (
        "2 jobs: no mistakes, and dbt Cloud has what they need" in cloud.command("validate", *config, "--online").output
    )
    assert "2 to create" in cloud.command("plan", *config, code=3).output
    assert "2 to create" in cloud.command("deploy", *config, "--dry-run").output
    assert cloud.jobs == {}
    assert "2 created, 0 changed, 0 deleted" in cloud.command("deploy", *config).output
    assert cloud.jobs.keys() == {BRANCH.job_name("core-daily-refresh"), BRANCH.job_name("customer-analytics")}
    assert "nothing to do, 2 as they should be" in cloud.command("plan", *config).output
    cloud.stranger("somebody else's")
    listed = json.loads(cloud.command("list", "--json").output)["jobs"]
    assert [(row["kind"], row["branch"], row["user"]) for row in listed] == [("branch", BRANCH.branch, BRANCH.user)] * 2
    assert "dbt deps && dbt run --select tag:core" in cloud.command("list", "--details").output
    assert "3 jobs in the account" in cloud.command("list", "--all").output


def test_a_plan_is_kept_and_only_that_is_done(cloud: Cloud, tfvars: Path, tmp_path: Path) -> None:
    config, plan = ("--config", str(tfvars)), str(tmp_path / "plan.json")
    document = json.loads(cloud.command("plan", *config, "--out", plan, "--json", code=3).output)
    assert document["counts"]["create"] == 2
    tfvars.write_text(tfvars.read_text().replace("[6, 18]", "[7]").replace("core-daily-refresh", "core-refresh"))
    assert "Plan again" in cloud.command("deploy", *config, "--plan", plan, code=3).output
    assert cloud.jobs == {}


def test_production_and_branches_live_side_by_side(cloud: Cloud, tfvars: Path) -> None:
    config = ("--config", str(tfvars))
    cloud.command("deploy", *config)
    cloud.command("deploy", *config, "--production")
    assert len(cloud.jobs) == 4
    assert "analytics-team-core-daily-refresh" in cloud.jobs
    cloud.command("cleanup", "--older-than", "0")
    assert cloud.jobs.keys() == {"analytics-team-core-daily-refresh", "analytics-team-customer-analytics"}


def test_a_job_blocked_by_a_change_by_hand_ends_with_1(cloud: Cloud, tfvars: Path) -> None:
    cloud.command("deploy", "--config", str(tfvars))
    cloud.jobs[BRANCH.job_name("core-daily-refresh")]["generate_docs"] = True
    assert "1 blocked" in cloud.command("deploy", "--config", str(tfvars), code=1).output
    assert cloud.jobs[BRANCH.job_name("core-daily-refresh")]["generate_docs"] is True
    document = json.loads(cloud.command("deploy", "--config", str(tfvars), "--json", code=1).output)
    assert document["blocked"][0]["fields"] == {"generate_docs": [True, False]}


def test_files_of_dbt_jobs_as_code_go_on_where_that_tool_stopped(cloud: Cloud, tmp_path: Path) -> None:
    path, values = tmp_path / "jobs.yml", tmp_path / "vars.yml"
    path.write_text(YAML)
    values.write_text('prefix: ""\n')
    config = ("--config", str(path), "--vars-yml", str(values))
    # As that tool has left it: a name with its identifier, a description of somebody's, no stamp.
    there = cloud.stranger("Nightly [[nightly]]", settings={"threads": 4, "target_name": "prod"})
    there["schedule"] = {"cron": "0 6 * * *", "date": {"type": "custom_cron", "cron": "0 6 * * *"}, "time": {}}
    there["description"] = ""
    cloud.account.variables[there["id"]] = {"DBT_REGION": {"id": 1, "value": "eu"}}
    gone, kept = cloud.stranger("Old [[old]]"), cloud.stranger("By hand")
    output = cloud.command("plan", *config, code=3).output
    assert "delete     Old [[old]]" in output
    assert "1 to delete, 1 as they should be" in output
    cloud.command("deploy", *config)
    assert {it["id"] for it in cloud.jobs.values()} == {there["id"], kept["id"]}
    assert gone["state"] == 2
    # A branch of the same file, by the same names as those of .tfvars files.
    cloud.command("deploy", *config, "--branch", "feature/x", "--user", "jane")
    assert "analytics-team-feature-x-jane-nightly" in cloud.jobs


def test_what_is_imported_is_what_is_there(cloud: Cloud, tmp_path: Path) -> None:
    there = cloud.stranger("Nightly run", settings={"threads": 7, "target_name": "prod"}, generate_docs=True)
    cloud.account.variables[there["id"]] = {"DBT_ENV_SECRET_KEY": {"id": 1, "value": "**********"}}
    tfvars, yaml = tmp_path / "jobs.tfvars", tmp_path / "jobs.yml"
    cloud.command("import", "--out", str(tfvars), "--filter", "nightly")
    assert 'DBT_ENV_SECRET_KEY = "env:DBT_ENV_SECRET_KEY"' in tfvars.read_text()
    cloud.command("validate", "--config", str(tfvars))
    cloud.command("import", "--out", str(yaml), "--format", "yaml", "--linked")
    output = cloud.command("plan", "--config", str(yaml), code=3).output
    # The job is taken over, with its identifier in the name, and its secret is left as it is.
    assert f"update     Nightly run [[nightly-run]] ({there['id']})" in output
    cloud.command("deploy", "--config", str(yaml))
    assert cloud.jobs["Nightly run [[nightly-run]]"]["id"] == there["id"]
    assert "nothing to do, 1 as they should be" in cloud.command("plan", "--config", str(yaml)).output


def test_wrong_use_and_wrong_settings_are_said_and_end_with_1(cloud: Cloud, tfvars: Path) -> None:
    config = ("--config", str(tfvars))
    assert "No such option" in cloud.command("plan", "--bogus", code=2).output
    assert "DBTCLOUD_TOKEN is not set" in cloud.command("plan", *config, code=2, DBTCLOUD_TOKEN="").output
    assert "does not know the token" in cloud.command("plan", *config, code=2, DBTCLOUD_TOKEN="wrong").output
    said = cloud.command("plan", *config, code=2, CI_COMMIT_REF_NAME="", GITLAB_USER_LOGIN="").output
    assert "the branch (--branch" in said
    assert "the user (--user" in said
    assert "has no environment: set PROJECT_ID" in cloud.command("plan", *config, code=2, ENVIRONMENT_ID="").output
    assert "no environment 23" in cloud.command("validate", *config, "--online", code=2, ENVIRONMENT_ID="23").output
    assert "There is no file nowhere.tfvars" in cloud.command("plan", "--config", "nowhere.tfvars", code=2).output
    said = cloud.command("plan", *config, code=2, DBTCLOUD_HOST_URL="http://cloud.example.org").output
    assert "the token would cross the network unencrypted" in said
    error = json.loads(cloud.command("plan", *config, "--json", code=2, DBTCLOUD_TOKEN="").output)
    assert error["kind"] == "ConfigError"


def test_schedules_with_a_time_zone_are_written_for_terraform(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "jobs.tfvars"
    path.write_text(
        'jobs = [{ name = "a", execute_steps = ["dbt build"], schedule_hours = [6], schedule_tz = "Asia/Tokyo" }]'
    )
    out = tmp_path / "utc.auto.tfvars.json"
    cloud.command("schedules", "--config", str(path), "--out", str(out))
    assert json.loads(out.read_text()) == {"utc_schedules": {"a": "0 21 * * *"}}
