"""Files of jobs: `.tfvars` as Terraform reads them, and YAML of dbt-jobs-as-code as its users have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.dbt_cloud.files.config import Config
from deployments.dbt_cloud.files.job_yaml import read_variables
from deployments.dbt_cloud.files.reading import load_config
from deployments.dbt_cloud.files.tfvars import write_tfvars
from infrastructure.errors import ConfigError
from tests.support.cloud.jobs import TFVARS

# The features of that tool's own examples: anchors, a templated file, keys that it says are of no use.
JOBS_AS_CODE = """
anchors:
  ids: &ids
    account_id: 43
    environment_id: "{{ environment_id }}"
    project_id: "{{ project_id }}"
jobs:
  nightly: &nightly
    <<: *ids
    dbt_version: null
    deactivated: false
    deferring_job_definition_id: null
    deferring_environment_id: null
    execute_steps:
      - "dbt run --select model1+"
      - "dbt compile"
    execution:
      timeout_seconds: 0
    generate_docs: false
    generate_sources: true
    name: "My nightly job"
    run_generate_sources: true
    schedule:
      cron: "0 */2 * * *"
      date: {cron: "0 */2 * * *", type: custom_cron}
      time: {type: every_hour, interval: 1}
    settings: {target_name: production, threads: 8}
    state: 1
    triggers: {git_provider_webhook: false, github_webhook: false, schedule: "{{ env_type == 'prod' }}"}
    custom_environment_variables: []
  checks:
    <<: *nightly
    name: CI run
    job_type: ci
    triggers: {git_provider_webhook: false, github_webhook: true, schedule: false}
    deferring_environment_id: "{{ deferring }}"
    custom_environment_variables:
      - DBT_ENV1: My val
      - DBT_ENV2: 2
  after:
    <<: *nightly
    job_completion_trigger_condition:
      condition: {job_id: 5, project_id: "{{ project_id }}", statuses: [10, 30]}
"""


def read(tmp_path: Path, text: str, name: str = "jobs.tfvars") -> Config:
    path = tmp_path / name
    path.write_text(text)
    return load_config([str(path)])


def test_the_documents_file_is_read(tmp_path: Path) -> None:
    daily, weekly = read(tmp_path, TFVARS).jobs
    assert (daily.name, daily.schedule_type, daily.schedule_hours, daily.job_type) == (
        "core-daily-refresh",
        "every_day",
        [6],
        None,
    )
    # Days are Monday to Sunday, 1 to 7, in the document; dbt Cloud counts from Sunday, 0.
    assert (weekly.schedule_type, weekly.schedule_days) == ("days_of_week", [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('schedule_type = "custom"\nschedule_days = [6]', ("days_of_week", [6], None)),
        ('schedule_type = "custom"\nschedule_cron = "5 4 * * *"', ("custom_cron", None, "5 4 * * *")),
        ('schedule_type = "manual"', ("manual", None, None)),
        ('schedule_type = "days_of_week"\nschedule_days = [0]', ("days_of_week", [0], None)),
    ],
)
def test_every_spelling_of_a_schedule_is_taken(
    tmp_path: Path, written: str, expected: tuple[str, list[int] | None, str | None]
) -> None:
    (job,) = read(tmp_path, f'jobs = [{{\nname = "a"\nexecute_steps = ["dbt build"]\n{written}\n}}]').jobs
    assert (job.schedule_type, job.schedule_days, job.schedule_cron) == expected


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = """
    jobs = [
      { name = "a", execute_steps = ["dbt biuld"], schedule_houers = [6] },
      { name = "b", execute_steps = ["dbt build"], schedule_type = "weekly" },
      { name = "c", execute_steps = ["dbt build"], schedule_hours = [24] },
      { name = "d", execute_steps = ["dbt build"], environment_variables = { region = "eu" } },
      { name = "e" },
    ]
    """
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "jobs[a].schedule_houers: no such setting, did you mean schedule_hours?" in message
    assert "jobs[b]: schedule_days is missing: days are 1 (Monday) to 7 (Sunday)" in message
    assert "jobs[c].schedule_hours[0]: Input should be less than or equal to 23, not 24" in message
    assert "jobs[d]: 'region' can't be overridden" in message
    assert "jobs[e].execute_steps: is missing" in message
    with pytest.raises(ConfigError, match="'dbt biuld' is not a dbt command"):
        read(tmp_path, 'jobs = [{ name = "a", execute_steps = ["dbt biuld"] }]')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobs = [", "is not valid HCL"),
        ('jobs = [{ name = "a-${var.team}", execute_steps = ["dbt build"] }]', "is an expression"),
        ('jobs = [{ name = local.name, execute_steps = ["dbt build"] }]', "is an expression"),
        ('team = "x"\njobs = []', "sets team, which is unknown"),
        ('project_id = "x"\njobs = []', "project_id has to be a number"),
        ("project_id = 1", "has no list `jobs`"),
    ],
)
def test_a_file_that_terraform_would_not_take_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_jobs_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    line = '{{ name = "{}", execute_steps = ["dbt build"], run_after = {{ job = "{}" }} }}'
    with pytest.raises(ConfigError, match="run_after goes in a circle: a, b"):
        read(tmp_path, f"jobs = [{line.format('a', 'b')}, {line.format('b', 'a')}]")
    with pytest.raises(ConfigError, match="'Core' is there twice, the other time as 'core'"):
        read(tmp_path, f"jobs = [{line.format('core', '5')}, {line.format('Core', '5')}]")


def test_text_with_escapes_is_what_terraform_makes_of_it(tmp_path: Path) -> None:
    text = (
        r'jobs = [{ name = "a", execute_steps = ["dbt run --vars '
        + r"'{\"x\": \"$${y}\"}'"
        + r'"], description = "ü\tA" }]'
    )
    (job,) = read(tmp_path, text).jobs
    assert job.execute_steps == ["""dbt run --vars '{"x": "${y}"}'"""]
    assert job.description == "ü\tA"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    text = """
    jobs = [
      {
        name                  = "all \\"of\\" it"
        description           = "costs $${x} 100 %"
        execute_steps         = ["dbt build --vars '{a: 1}'"]
        schedule_type         = "custom_cron"
        schedule_cron         = "0 6 * * 1-5"
        schedule_tz           = "Europe/London"
        threads               = 8
        run_after             = { job = "5", statuses = ["error"] }
        environment_variables = { DBT_REGION = "eu", DBT_ENV_SECRET_KEY = "env:KEY" }
      },
    ]
    """
    config = read(tmp_path, text)
    assert read(tmp_path, write_tfvars(config.jobs)).jobs == config.jobs


def test_files_of_dbt_jobs_as_code_are_read_unchanged(tmp_path: Path) -> None:
    path, values = tmp_path / "jobs.yml", tmp_path / "vars.yml"
    path.write_text(JOBS_AS_CODE)
    values.write_text("env_type: prod\nproject_id: 176941\nenvironment_id: 134459\ndeferring: null\n")
    config = load_config([str(path)], read_variables([str(values)]))
    nightly, checks, after = config.jobs
    assert config.account_id == 43
    assert (nightly.key, nightly.name, nightly.project_id, nightly.environment_id) == (
        "nightly",
        "My nightly job",
        176941,
        134459,
    )
    assert (nightly.schedule_type, nightly.schedule_cron, nightly.threads) == ("custom_cron", "0 */2 * * *", 8)
    assert (checks.schedule_type, checks.job_type, checks.github_webhook) == ("manual", "ci", True)
    assert checks.deferring_environment_id is None
    assert checks.environment_variables == {"DBT_ENV1": "My val", "DBT_ENV2": "2"}
    assert after.run_after
    assert (after.run_after.job, after.run_after.statuses) == ("5", ["success", "canceled"])


def test_a_template_without_its_values_says_which_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "jobs.yml"
    path.write_text(JOBS_AS_CODE)
    with pytest.raises(ConfigError, match=r"'environment_id' is undefined\. Give its values with --vars-yml"):
        load_config([str(path)])
    one, other = tmp_path / "one.yml", tmp_path / "other.yml"
    one.write_text("project_id: 1\n")
    other.write_text("project_id: 2\n")
    with pytest.raises(ConfigError, match="project_id is set twice"):
        read_variables([str(one), str(other)])


def test_secrets_are_not_shown_in_mistakes(tmp_path: Path) -> None:
    secret = 'environment_variables = { DBT_ENV_SECRET_X = ["hunter2"] }'
    text = f'jobs = [{{ name = "a", execute_steps = ["dbt build"], {secret} }}]'
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert "hunter2" not in str(caught.value)
