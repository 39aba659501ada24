"""What a source's new data makes stale, as dbt selections: from the DAG and from tags, never from names of models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Tests whose failure stops what stands on the tested model; every other test is told of, and stops nothing.
CRITICAL = "config.meta.critical:true"
# What dashboards read first.
DASHBOARD = "tag:dashboard"
UNIT_TESTS = "resource_type:unit_test"

_BUILT = ("model", "seed", "snapshot")


def downstream(sources: Iterable[str]) -> list[str]:
    """Return the selection of all that stands on these sources, a word each.

    Args:
        sources: names of sources, or of tables of theirs as in google_ads.campaigns.
    """
    return [f"source:{source}+" for source in sorted(set(sources))]


def built_and_critical(words: Sequence[str]) -> str:
    """Narrow a selection to what is built and to critical tests; of the whole project when there are no words.

    It is meant for `--indirect-selection empty`: otherwise dbt adds every test of the models it selects.
    """
    methods = [*(f"resource_type:{kind}" for kind in _BUILT), CRITICAL]
    return " ".join(f"{word},{method}" if word else method for word in words or [""] for method in methods)


def towards_dashboards(sources: Iterable[str]) -> list[str]:
    """Return the selection of what lies between these sources and dashboards, dashboards included.

    The dashboards' models alone would not do: they read tables that would be as old as before.
    """
    return [f"{word},+{DASHBOARD}" for word in downstream(sources)]
