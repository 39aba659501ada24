"""Run a pipeline where Prefect's block classes are installed, and print which of their libraries were imported.

Reads {"target": …, "project": …} from standard input.
"""

from __future__ import annotations

import json
import sys

from tests.support.block_libraries import READY

LIBRARIES = ("prefect_dbt", "prefect_gcp", "prefect_snowflake", "prefect_sqlalchemy", "prefect_shell")

print(READY, flush=True)


def main() -> None:
    """Answer the request on standard input."""
    from importlib.util import find_spec

    from flows.pipelines.full import dbt_full_pipeline

    asked = json.load(sys.stdin)
    dbt_full_pipeline(target=asked["target"], project_dir=asked["project"])
    there = [name for name in LIBRARIES if find_spec(name)]
    print(json.dumps({"installed": there, "imported": [name for name in there if name in sys.modules]}))


if __name__ == "__main__":
    main()
