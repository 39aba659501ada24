"""The dashboard cache, in a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import pytest
from redis import Redis

from flows.services.redis_cache import RedisCache, open_cache
from infrastructure.errors import ConfigError, UpstreamUnavailable
from tests.support.processes import free_port


@pytest.fixture
def cache(redis_url: str) -> Iterator[RedisCache]:
    with open_cache(redis_url, f"t{uuid4().hex[:8]}") as opened:
        yield opened


def test_a_document_is_there_for_its_time_and_for_its_target(cache: RedisCache, redis_url: str) -> None:
    cache.replace({"daily": {"rows": [{"day": "2026-11-21", "spend": 5.5}]}}, hours=6)
    assert cache.read("daily") == {"rows": [{"day": "2026-11-21", "spend": 5.5}]}
    assert cache.read("weekly") is None
    with open_cache(redis_url, "another") as another:
        assert another.read("daily") is None
    with closing(Redis.from_url(redis_url)) as redis:
        assert 6 * 3600 - 60 < redis.ttl(cache.key("daily")) <= 6 * 3600


def test_readers_never_see_some_old_and_some_new_documents(cache: RedisCache, redis_url: str) -> None:
    """Two documents that belong together are replaced over and over while somebody reads both."""
    cache.replace({"one": {"version": 0}, "two": {"version": 0}}, hours=1)
    seen: set[tuple[bytes | None, ...]] = set()
    done = threading.Event()

    def read() -> None:
        with closing(Redis.from_url(redis_url)) as redis:
            while not done.is_set():
                seen.add(tuple(redis.mget(cache.key("one"), cache.key("two"))))

    reader = threading.Thread(target=read)
    reader.start()
    for version in range(1, 300):
        cache.replace({"one": {"version": version}, "two": {"version": version}}, hours=1)
    done.set()
    reader.join()
    assert len(seen) > 1
    assert [pair for pair in seen if pair[0] != pair[1] or None in pair] == []


def test_a_redis_that_is_away_is_an_upstream_failure() -> None:
    with (
        open_cache(f"redis://:a-secret@127.0.0.1:{free_port()}/0", "prod") as cache,
        pytest.raises(UpstreamUnavailable, match=r"cache can't be read or written \(ConnectionError\)") as raised,
    ):
        cache.read("daily")
    assert "a-secret" not in str(raised.value)


def test_an_address_that_is_none_is_a_setting_to_mend_and_is_not_repeated() -> None:
    with (
        pytest.raises(ConfigError, match=r"has no valid Redis address") as raised,
        open_cache("host:a-secret", "prod"),
    ):
        pass
    assert "a-secret" not in str(raised.value)
