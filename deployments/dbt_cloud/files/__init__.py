"""The files that jobs are written in, `.tfvars` and YAML. Door: `config`."""
