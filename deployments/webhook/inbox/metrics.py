"""The receiver's metrics for Prometheus. No label names a person, a connection or a secret."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deployments.webhook.inbox.spool import Backlog

_ACCEPT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_START_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)


class Metrics:
    """The counters of one receiver, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("tributary_webhook_requests", "Deliveries, by answer.", ["outcome"], registry=registry)
        self.ended = Counter(
            "tributary_webhook_events",
            "Processed events, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.runs = Counter("tributary_webhook_runs_started", "Started flow runs.", registry=registry)
        self.failures = Counter(
            "tributary_webhook_upstream_failures", "Failed attempts, by service.", ["upstream"], registry=registry
        )
        self.accept_seconds = Histogram(
            "tributary_webhook_accept_seconds",
            "Time from the arrival of a stored delivery to its answer.",
            buckets=_ACCEPT_BUCKETS,
            registry=registry,
        )
        self.start_seconds = Histogram(
            "tributary_webhook_start_seconds",
            "Time from a delivery to its flow run.",
            buckets=_START_BUCKETS,
            registry=registry,
        )
        self.prefect_up = Gauge(
            "tributary_webhook_prefect_up", "Whether the last call to Prefect succeeded.", registry=registry
        )
        self._waiting = Gauge("tributary_webhook_waiting_events", "Waiting events.", registry=registry)
        self._oldest = Gauge(
            "tributary_webhook_oldest_waiting_seconds", "Age of the oldest waiting event.", registry=registry
        )

    def show(self, backlog: Backlog, clock: Callable[[], float] = time.time) -> bytes:
        """Return the metrics in Prometheus' text format."""
        self._waiting.set(backlog.waiting)
        self._oldest.set(clock() - backlog.oldest_received_at if backlog.oldest_received_at else 0.0)
        return generate_latest(self._registry)
