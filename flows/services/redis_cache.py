"""The cache that dashboards read: the rows of a table as one JSON document in Redis, with a time to live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import orjson

from infrastructure.blocks.documents import CACHE_BLOCK
from infrastructure.errors import ConfigError, UpstreamUnavailable

if TYPE_CHECKING:
    from redis import Redis

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0


class RedisCache:
    """Read and replace the documents of one target."""

    def __init__(self, redis: Redis, target: str) -> None:
        self._redis = redis
        self._target = target

    def key(self, name: str) -> str:
        """Return the Redis key of a document, which readers in other languages use too."""
        return f"tributary:{self._target}:dashboard:{name}"

    def replace(self, documents: Mapping[str, Mapping[str, Any]], hours: float) -> None:
        """Replace the documents of these names: all of them at once, or none.

        A reader finds the old ones or the new ones, never some of each. A document that is not replaced within these
        hours expires, so that a dashboard queries the warehouse rather than show old figures for ever.

        Raises:
            UpstreamUnavailable: Redis does not answer.
        """
        with _in_words():
            pipeline = self._redis.pipeline(transaction=True)
            for name, document in documents.items():
                pipeline.set(self.key(name), orjson.dumps(document), ex=timedelta(hours=hours))
            pipeline.execute()

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a document; None when there is none or it has expired.

        Raises:
            UpstreamUnavailable: Redis does not answer.
        """
        with _in_words():
            content = cast(bytes | None, self._redis.get(self.key(name)))
        return cast(dict[str, Any], orjson.loads(content)) if content else None


@contextmanager
def open_cache(url: str, target: str) -> Iterator[RedisCache]:
    """Connect to the cache of a target, and close the connection at the end.

    Args:
        url: as in redis://:password@host:6379/0, or rediss:// for TLS.

    Raises:
        ConfigError: the address is not valid, or the client is not installed.
    """
    try:
        from redis import Redis
    except ImportError as exc:
        raise ConfigError("The dashboard cache needs the Redis client. Install it with: uv sync --extra redis") from exc
    try:
        client = Redis.from_url(url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_ANSWER_SECONDS)
    except ValueError:
        # Not chained: the library's text can hold the address, and the address a password.
        raise ConfigError(
            f"The block secret/{CACHE_BLOCK} has no valid Redis address. Write it like redis://host:6379/0."
        ) from None
    try:
        yield RedisCache(client, target)
    finally:
        client.close()


def find_cache_url() -> str | None:
    """Return the address of the cache that is set up on the Prefect server; None where there is none.

    Raises:
        UpstreamUnavailable: the Prefect server does not answer.
    """
    from infrastructure.server.client import connect

    with connect() as server:
        block = server.read_block("secret", CACHE_BLOCK)
    return str(block.data["value"]) if block else None


@contextmanager
def _in_words() -> Iterator[None]:
    from redis import RedisError

    try:
        yield
    except RedisError as exc:
        raise UpstreamUnavailable(
            f"The dashboard cache can't be read or written ({type(exc).__name__}): dashboards show what they have "
            f"until it expires. Check that the Redis of block secret/{CACHE_BLOCK} is up."
        ) from exc
