# Every spelling, each kind of schedule, text with escapes, values that Terraform converts.

project_id     = "11"
environment_id = 22
jobs = [
  { name = "plain", execute_steps = ["dbt build"] },
  { name = "every 3 h", execute_steps = ["dbt build"], schedule_interval = "3", threads = "8" },
  { name = "hours", execute_steps = ["dbt run --vars '{\"x\": \"$${y}\"}'"], schedule_hours = [18, 6], description = "ü \"A\"" },
  { name = "weekly", execute_steps = ["dbt build"], schedule_type = "weekly", schedule_days = [7, 1, 3], schedule_hours = [6] },
  { name = "chosen", execute_steps = ["dbt build"], schedule_type = "custom", schedule_days = [0, 6] },
  { name = "cron", execute_steps = ["dbt build"], schedule_type = "custom", schedule_cron = "5 4 * * 1-5" },
  { name = "interval", execute_steps = ["dbt build"], schedule_type = "interval_cron", schedule_interval = 4, schedule_days = [5, 1] },
  { name = "manual", execute_steps = ["dbt build"], schedule_type = "manual", job_type = "monthly", dbt_version = "latest" },
  { name = "local", execute_steps = ["dbt build"], schedule_type = "weekly", schedule_days = [1], schedule_hours = [1], schedule_tz = "Asia/Tokyo" },
  { name = "ci", execute_steps = ["dbt build"], schedule_type = "manual", github_webhook = true, job_type = "ci",
  run_compare_changes = true, deferring_environment_id = 33, triggers_on_draft_pr = true, timeout_seconds = 60 },
  { name = "merge", execute_steps = ["dbt build"], schedule_type = "manual", on_merge = "true", self_deferring = true },
  { name      = "after", execute_steps = ["dbt test"], schedule_type = "manual", project_id = 12, environment_id = 23,
    run_after = { job = "plain", statuses = ["error", "cancelled"] }, dbt_version = null,
  environment_variables = { DBT_REGION = "eu", DBT_COUNT = 3, DBT_ON = true, DBT_ENV_SECRET_KEY = "env:KEY" } },
]
