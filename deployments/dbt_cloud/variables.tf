# The variables of env_file/*.tfvars, as `python -m deployments.dbt_cloud validate` knows them too.

variable "account_id" {
  type        = number
  default     = null
  description = "dbt Cloud account; DBT_CLOUD_ACCOUNT_ID when left out."
}

variable "project_id" {
  type        = number
  description = "dbt Cloud project of jobs that name none themselves."
}

variable "environment_id" {
  type        = number
  description = "dbt Cloud environment of jobs that name none themselves."
}

variable "team_name" {
  type        = string
  default     = "analytics-team"
  description = "Stands in front of every job's name."

  validation {
    condition     = can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", var.team_name)) && length(var.team_name) <= 40
    error_message = "team_name may hold small letters, digits and single hyphens, 40 at most."
  }
}

variable "utc_schedules" {
  type        = map(string)
  default     = {}
  description = "UTC cron lines of jobs with schedule_tz: python -m deployments.dbt_cloud schedules --out utc.auto.tfvars.json"
}

variable "secrets" {
  type        = map(string)
  default     = {}
  sensitive   = true
  description = "Values of environment variables that a file names as env:NAME, by NAME. Set it as TF_VAR_secrets."
}

variable "jobs" {
  description = "The jobs; docs/dbt-cloud-jobs.md says what each setting means."

  type = list(object({
    name                       = string
    execute_steps              = list(string)
    description                = optional(string, "")
    project_id                 = optional(number)
    environment_id             = optional(number)
    schedule_type              = optional(string, "every_day")
    schedule_hours             = optional(list(number))
    schedule_days              = optional(list(number))
    schedule_interval          = optional(number)
    schedule_cron              = optional(string)
    schedule_tz                = optional(string)
    github_webhook             = optional(bool, false)
    git_provider_webhook       = optional(bool, false)
    on_merge                   = optional(bool, false)
    job_type                   = optional(string)
    threads                    = optional(number, 4)
    target_name                = optional(string, "default")
    timeout_seconds            = optional(number, 0)
    generate_docs              = optional(bool, false)
    run_generate_sources       = optional(bool, false)
    dbt_version                = optional(string)
    run_lint                   = optional(bool, false)
    errors_on_lint_failure     = optional(bool, true)
    run_compare_changes        = optional(bool, false)
    compare_changes_flags      = optional(string, "--select state:modified")
    triggers_on_draft_pr       = optional(bool, false)
    cost_optimization_features = optional(list(string), [])
    deferring_environment_id   = optional(number)
    deferring_job_id           = optional(number)
    self_deferring             = optional(bool, false)
    run_after = optional(object({
      job        = string
      project_id = optional(number)
      statuses   = optional(list(string), ["success"])
    }))
    environment_variables = optional(map(string), {})
  }))

  validation {
    condition     = length(distinct([for job in var.jobs : lower(job.name)])) == length(var.jobs)
    error_message = "Every job needs a name of its own, upper and lower case aside."
  }

  validation {
    condition     = alltrue([for job in var.jobs : length(job.execute_steps) > 0 && alltrue([for step in job.execute_steps : startswith(step, "dbt ")])])
    error_message = "Every job needs steps, and every step is a dbt command."
  }

  validation {
    condition = alltrue([for job in var.jobs : contains([
      "every_day", "daily", "days_of_week", "weekly", "custom_days", "custom",
      "custom_cron", "cron", "interval_cron", "interval", "manual", "none",
    ], job.schedule_type)])
    error_message = "schedule_type is one of every_day, weekly, custom, custom_cron, interval_cron, manual."
  }

  validation {
    condition = alltrue(flatten([for job in var.jobs : [
      for hour in coalesce(job.schedule_hours, []) : hour >= 0 && hour <= 23 && floor(hour) == hour
    ]]))
    error_message = "schedule_hours are 0 to 23."
  }

  validation {
    condition = alltrue(flatten([for job in var.jobs : [
      for day in coalesce(job.schedule_days, []) : day >= 0 && day <= 7 && floor(day) == day
    ]]))
    error_message = "schedule_days are 1 (Monday) to 7 (Sunday); 0 is Sunday too."
  }

  validation {
    condition = alltrue([for job in var.jobs : (
      contains(["weekly", "days_of_week", "custom_days"], job.schedule_type) || (job.schedule_type == "custom" && job.schedule_cron == null)
      ? length(coalesce(job.schedule_days, [])) > 0 : true
    )])
    error_message = "A weekly job needs schedule_days."
  }

  validation {
    condition = alltrue([for job in var.jobs : (
      contains(["custom_cron", "cron"], job.schedule_type) ? job.schedule_cron != null : true
    )])
    error_message = "schedule_type custom_cron needs schedule_cron."
  }

  validation {
    condition     = alltrue([for job in var.jobs : job.schedule_hours == null || job.schedule_interval == null])
    error_message = "schedule_hours and schedule_interval exclude each other."
  }

  validation {
    condition     = alltrue(flatten([for job in var.jobs : [for name in keys(job.environment_variables) : can(regex("^DBT_[A-Z0-9_]+$", name))]]))
    error_message = "Names of environment variables are DBT_ and capital letters, digits and underscores."
  }
}
