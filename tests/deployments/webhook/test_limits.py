"""How much is taken from whom."""

from __future__ import annotations

from deployments.webhook.limits import RateLimit


def test_a_burst_is_taken_and_then_what_the_rate_allows() -> None:
    now = [0.0]
    limit = RateLimit(per_second=2, burst=3, clock=lambda: now[0])
    assert [limit.retry_after("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.retry_after("b") == 0, "one peer does not use up another's"
    now[0] += 0.5
    assert limit.retry_after("a") == 0
    assert limit.retry_after("a") > 0
    now[0] += 3600
    assert [limit.retry_after("a") for _ in range(4)] == [0, 0, 0, 0.5], "no more than a burst is saved up"


def test_peers_without_number_do_not_fill_the_memory() -> None:
    limit = RateLimit(per_second=1, burst=1, clock=lambda: 0.0)
    for number in range(10_500):
        limit.retry_after(f"peer {number}")
    assert limit.retry_after("peer 10499") > 0
    assert limit.retry_after("peer 0") == 0, "who was quiet longest is forgotten first"
