"""dbt Cloud jobs as code, per branch and for production.

dbt imports every top-level `dbt_*` on the path as a plugin. This package is `deployments.dbt_cloud` and so not
top-level; and if `deployments/` itself is on the path, dbt imports nothing but this file.
"""
