"""What every statement of a run says of itself, so that a warehouse's bill can be shared out: run, target, node."""

from __future__ import annotations

import json
import re

from flows.engine.process.child import COMMENT_VARIABLE, QUERY_TAG_VARIABLE

# dbt's own default, which cost reports of others read, with the flow run added.
_COMMENT = """
{%- set said = {} -%}
{%- do said.update(app='dbt', dbt_version=dbt_version, profile_name=target.get('profile_name')) -%}
{%- do said.update(target_name=target.get('target_name'), flow_run_id='RUN_ID') -%}
{%- if node is not none -%}
  {%- do said.update(node_id=node.unique_id) -%}
{%- else -%}
  {%- do said.update(connection_name=connection_name) -%}
{%- endif -%}
{{ return(tojson(said)) }}
"""


def tag_variables(run_id: str, target: str, warehouse: str) -> dict[str, str]:
    """Return the variables that tell the child how to tag its statements.

    The comment is on every statement of every warehouse, and on BigQuery a job label as well. Snowflake's sessions
    carry a query tag besides. None of it is part of the profile: dbt would parse the project again for every run.
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "_", run_id)
    variables = {COMMENT_VARIABLE: _COMMENT.replace("RUN_ID", name)}
    if warehouse == "snowflake":
        tag = {"app": "dbt", "flow_run_id": name, "target": target}
        variables[QUERY_TAG_VARIABLE] = json.dumps(tag)
    return variables
