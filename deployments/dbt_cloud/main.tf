# A team's production jobs. Branches are deployed through the API (`python -m deployments.dbt_cloud deploy`): thousands
# of them would fight over one state.

terraform {
  required_version = ">= 1.9"

  required_providers {
    dbtcloud = {
      source = "dbt-labs/dbtcloud"
      # Before 1.11 its retries never fired (its CHANGELOG).
      version = "~> 1.12"
    }
  }

  # One state per environment: terraform init -backend-config=address=… (the pipeline says it all).
  backend "http" {}
}

# The token comes from DBT_CLOUD_TOKEN, the host from DBT_CLOUD_HOST_URL: neither is ever in a file.
provider "dbtcloud" {
  account_id = var.account_id
}

resource "dbtcloud_job" "this" {
  for_each = local.job_objects

  name                       = each.value.name
  project_id                 = each.value.project_id
  environment_id             = each.value.environment_id
  description                = each.value.description
  execute_steps              = each.value.execute_steps
  dbt_version                = each.value.dbt_version
  num_threads                = each.value.num_threads
  target_name                = each.value.target_name
  generate_docs              = each.value.generate_docs
  run_generate_sources       = each.value.run_generate_sources
  run_lint                   = each.value.run_lint
  errors_on_lint_failure     = each.value.errors_on_lint_failure
  run_compare_changes        = each.value.run_compare_changes
  compare_changes_flags      = each.value.compare_changes_flags
  triggers_on_draft_pr       = each.value.triggers_on_draft_pr
  cost_optimization_features = each.value.cost_optimization_features
  deferring_environment_id   = each.value.deferring_environment_id
  deferring_job_id           = each.value.deferring_job_id
  self_deferring             = each.value.self_deferring
  job_type                   = each.value.job_type
  schedule_type              = each.value.schedule_type
  schedule_cron              = each.value.schedule_cron
  schedule_days              = each.value.schedule_days
  schedule_hours             = each.value.schedule_hours
  schedule_interval          = each.value.schedule_interval
  triggers                   = each.value.triggers

  execution = {
    timeout_seconds = each.value.timeout_seconds
  }

  lifecycle {
    # Set below: a job of this file has no id before it is created.
    ignore_changes = [job_completion_trigger_condition]
  }
}

resource "dbtcloud_job_completion_trigger" "this" {
  for_each = local.completion_triggers

  job_id         = dbtcloud_job.this[each.key].id
  trigger_job_id = each.value.is_here ? dbtcloud_job.this[each.value.upstream].id : tonumber(each.value.upstream)
  project_id     = each.value.project_id
  statuses       = each.value.statuses
}

resource "dbtcloud_environment_variable_job_override" "this" {
  for_each = local.overrides

  name              = each.value.name
  project_id        = each.value.project_id
  job_definition_id = dbtcloud_job.this[each.value.job].id
  # env:NAME stands for a value that is in no file.
  raw_value = startswith(each.value.value, "env:") ? var.secrets[trimprefix(each.value.value, "env:")] : each.value.value
}

output "job_ids" {
  description = "Ids of the jobs in dbt Cloud, by name in the file."
  value       = { for name, job in dbtcloud_job.this : name => job.id }
}
