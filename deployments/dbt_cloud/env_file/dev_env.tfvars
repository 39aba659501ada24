# Jobs of the dev environment; read by `python -m deployments.dbt_cloud` and by Terraform alike.
# PROJECT_ID and ENVIRONMENT_ID (for Terraform TF_VAR_project_id, TF_VAR_environment_id) say where they go.

jobs = [
  {
    name        = "core-daily-refresh"
    description = "Daily refresh of core foundational models"
    execute_steps = [
      "dbt deps",
      "dbt run --select tag:core",
      "dbt test --select tag:core",
    ]
    schedule_type  = "every_day"
    schedule_hours = [6]
    job_type       = "daily"
    threads        = 2
  },
  {
    name           = "customer-analytics"
    description    = "Customer marts, once the core is there"
    execute_steps  = ["dbt build --select tag:customers"]
    schedule_type  = "manual"
    threads        = 2
    run_after      = { job = "core-daily-refresh" }
    self_deferring = true
  },
  {
    name                 = "weekly-full-refresh"
    description          = "Everything from nothing, when nobody is looking"
    execute_steps        = ["dbt build --full-refresh"]
    schedule_type        = "weekly"
    schedule_days        = [7] # Sunday
    schedule_hours       = [2]
    job_type             = "weekly"
    threads              = 2
    generate_docs        = true
    run_generate_sources = true
  },
]
