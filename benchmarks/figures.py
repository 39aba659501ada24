"""Figures that several benchmarks print."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def median_and_p95(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile; zeros where nothing was measured."""
    if len(seconds) < 2:
        return (seconds[0], seconds[0]) if seconds else (0.0, 0.0)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49], cuts[94]
