# Each job in the words of the provider's resource: values alone, so that it can be looked at without the provider.

locals {
  spellings = {
    daily       = "every_day"
    weekly      = "days_of_week"
    custom_days = "days_of_week"
    cron        = "custom_cron"
    interval    = "interval_cron"
    none        = "manual"
  }

  # As dbt Cloud calls them; "custom" is a cron line where there is one, else chosen days.
  schedule_types = {
    for job in var.jobs : job.name => (
      job.schedule_type == "custom" ? (job.schedule_cron != null ? "custom_cron" : "days_of_week") :
      lookup(local.spellings, job.schedule_type, job.schedule_type)
    )
  }

  # Sunday is 0 in dbt Cloud and 7 in many files.
  schedule_days = {
    for job in var.jobs : job.name => job.schedule_days == null ? null : [
      for day in sort(distinct([for day in job.schedule_days : tostring(day % 7)])) : tonumber(day)
    ]
  }

  has_clock = { for job in var.jobs : job.name => job.schedule_tz != null && local.schedule_types[job.name] != "manual" }

  job_objects = {
    for job in var.jobs : job.name => {
      name                       = "${var.team_name}-${job.name}"
      project_id                 = coalesce(job.project_id, var.project_id)
      environment_id             = coalesce(job.environment_id, var.environment_id)
      description                = job.description
      execute_steps              = job.execute_steps
      dbt_version                = job.dbt_version
      num_threads                = job.threads
      target_name                = job.target_name
      timeout_seconds            = job.timeout_seconds
      generate_docs              = job.generate_docs
      run_generate_sources       = job.run_generate_sources
      run_lint                   = job.run_lint
      errors_on_lint_failure     = job.errors_on_lint_failure
      run_compare_changes        = job.run_compare_changes
      compare_changes_flags      = job.compare_changes_flags
      triggers_on_draft_pr       = job.triggers_on_draft_pr
      cost_optimization_features = length(job.cost_optimization_features) > 0 ? job.cost_optimization_features : null
      deferring_environment_id   = job.deferring_environment_id
      deferring_job_id           = job.deferring_job_id
      self_deferring             = job.self_deferring ? true : null
      # "daily" and the like are words for people; dbt Cloud works the type out from the triggers.
      job_type = contains(["ci", "scheduled", "other", "merge", "exposure_sync", "adaptive", "hybrid"], coalesce(job.job_type, "-")) ? job.job_type : null

      triggers = {
        github_webhook       = job.github_webhook
        git_provider_webhook = job.git_provider_webhook
        schedule             = local.schedule_types[job.name] != "manual"
        on_merge             = job.on_merge
      }

      schedule_type = local.has_clock[job.name] || local.schedule_types[job.name] == "manual" ? "custom_cron" : local.schedule_types[job.name]
      schedule_cron = (
        local.schedule_types[job.name] == "manual" ? "0 0 1 1 *" :
        # Without an entry the plan fails here: at a wrong hour the job must not run.
        local.has_clock[job.name] ? var.utc_schedules[job.name] :
        local.schedule_types[job.name] == "custom_cron" ? job.schedule_cron : null
      )
      schedule_days  = local.has_clock[job.name] || contains(["manual", "custom_cron"], local.schedule_types[job.name]) ? null : local.schedule_days[job.name]
      schedule_hours = local.has_clock[job.name] || contains(["manual", "custom_cron"], local.schedule_types[job.name]) || length(coalesce(job.schedule_hours, [])) == 0 ? null : job.schedule_hours
      schedule_interval = (
        local.has_clock[job.name] || contains(["manual", "custom_cron"], local.schedule_types[job.name]) || length(coalesce(job.schedule_hours, [])) > 0
        ? null : coalesce(job.schedule_interval, 1)
      )
    }
  }

  # A job that starts when another one ends. The other is of this file, by name, or any, by id.
  completion_triggers = {
    for job in var.jobs : job.name => {
      upstream   = job.run_after.job
      is_here    = contains([for other in var.jobs : other.name], job.run_after.job)
      project_id = coalesce(job.run_after.project_id, job.project_id, var.project_id)
      statuses   = [for status in job.run_after.statuses : status == "cancelled" ? "canceled" : status]
    } if job.run_after != null
  }

  overrides = merge([
    for job in var.jobs : {
      for name, value in job.environment_variables : "${job.name}/${name}" => {
        job        = job.name
        project_id = coalesce(job.project_id, var.project_id)
        name       = name
        value      = value
      }
    }
  ]...)
}
