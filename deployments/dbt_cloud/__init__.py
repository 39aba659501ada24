"""dbt Cloud jobs as code, per branch and for production.

dbt imports every top-level `dbt_*` on the path as a plugin. This package is `deployments.dbt_cloud` and so not
top-level; and where somebody puts `deployments/` itself on the path, this file is all that dbt gets to run.
"""
