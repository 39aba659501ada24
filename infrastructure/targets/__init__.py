"""The environments of `infrastructure/targets.yml`: typed models, and each target as dbt wants it.

Door: `target_file`.
"""
