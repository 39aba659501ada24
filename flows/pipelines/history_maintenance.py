"""Keep the history small: one file per target and month in place of one per run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from prefect import flow

from flows.alerts.hooks import with_alerts
from flows.history.store import KEPT_DAYS, SEPARATE_HOURS, Compacted, history_store


@dataclass(frozen=True)
class Maintained:
    """Where the history is, and what was done to its files."""

    url: str
    files: Compacted


@with_alerts
@flow
def maintain_history(keep_days: int = KEPT_DAYS, separate_hours: int = SEPARATE_HOURS) -> Maintained:
    """Merge the files of the history and delete what is too old; run it once a day or a week.

    Args:
        keep_days: runs are kept for at least so long, and are deleted with their month.
        separate_hours: younger runs keep their own files.

    Raises:
        ConfigError: the history's address can't be written to.
        UpstreamUnavailable: the bucket did not answer.
    """
    store = history_store(os.environ)
    return Maintained(store.url, store.compact(keep_days, separate_hours))
