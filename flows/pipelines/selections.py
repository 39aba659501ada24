"""dbt selections of what depends on a source: from the DAG and from tags, never from names of models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flows.engine.artifacts.manifest_file import CRITICAL, CRITICAL_WORDS

# What `is_critical` of a manifest says, in dbt's words, which tell `true` from `True` and know no "all but no": a mark
# that is none of these words is critical as well, and can't be selected.
_CRITICAL = (*(f"config.meta.{CRITICAL}:{word}" for word in CRITICAL_WORDS), f"tag:{CRITICAL}")
# Their failure stops what is downstream of the tested model; other tests only cause an alert. Exclude it with
# `--indirect-selection empty` alone: otherwise a model that is critical takes all its tests with it.
CRITICAL_NODES = " ".join(_CRITICAL)
# What dashboards read first.
DASHBOARD = "tag:dashboard"
UNIT_TESTS = "resource_type:unit_test"

_BUILT = ("model", "seed", "snapshot")


def downstream(sources: Iterable[str]) -> list[str]:
    """Return the selection of everything that depends on these sources, one word per source.

    Args:
        sources: names of sources, or of their tables as in google_ads.campaigns.
    """
    return [f"source:{source}+" for source in sorted(set(sources))]


def built_and_critical(words: Sequence[str]) -> str:
    """Narrow a selection to what is built and to critical tests; of the whole project when there are no words.

    It is meant for `--indirect-selection empty`: otherwise dbt adds every test of the models it selects.
    """
    methods = [*(f"resource_type:{kind}" for kind in _BUILT), *_CRITICAL]
    return " ".join(f"{word},{method}" if word else method for word in words or [""] for method in methods)


def towards_dashboards(sources: Iterable[str]) -> list[str]:
    """Return the selection of what lies between these sources and the dashboards' models, which are included.

    The dashboards' models alone would not be enough: they would read old tables.
    """
    return [f"{word},+{DASHBOARD}" for word in downstream(sources)]
