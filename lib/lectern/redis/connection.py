"""Opens Redis by its URL, one server or the master of sentinels; and says what a call of it raises."""

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import redis as blocking
import redis.asyncio as redis
from redis import sentinel as blocking_sentinel
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError

from lectern.errors import Misuse, TryAgain
from lectern.i18n import Text
from lectern.urls import plain

SENTINELS = ("redis+sentinel", "rediss+sentinel")
FORM = "redis+sentinel://host:26379,host:26379/mymaster/0"
SENTINEL_S = 1.0
"""Seconds after which a silent sentinel is skipped, because it may have died with the master's host."""

NO_CLUSTER = Text(
    "REDIS_URL names a Redis Cluster, which spreads over several servers what lectern does in one step. "
    "Name one server, or the sentinels of one that has replicas: {form}",
    form=FORM,
)


TRIED_KEY = "lectern:tried"
TRY_WRITE = "redis.call('set', KEYS[1], '') return redis.call('del', KEYS[1])"
"""Writes TRIED_KEY and leaves nothing, to see whether Redis takes writes: one that is a copy still answers."""


@asynccontextmanager
async def asking(within_s: float | None = None) -> AsyncIterator[None]:
    """A context, or a decorator, for calls of Redis and nothing else: raises TryAgain for any of their errors.

    Also if they take longer than *within_s*. The cause of the TryAgain tells whether Redis is away, or refuses.
    """
    try:
        async with asyncio.timeout(within_s):
            yield
    except (RedisError, OSError) as error:
        raise away(error) from error


def away(error: Exception) -> TryAgain:
    """What is raised for *error* of Redis' client."""
    return TryAgain("Redis: {error}", error=plain(error))


def opened(url: str, options: Mapping[str, Any], *, is_blocking: bool = False) -> Any:  # noqa: ANN401 (of either kind)
    """A client with *options*, not connected yet, for asyncio or blocking; raises Misuse if *url* names no Redis."""
    server, sentinel = (blocking.Redis, blocking_sentinel.Sentinel) if is_blocking else (redis.Redis, Sentinel)
    scheme = url.partition(":")[0]
    if scheme in SENTINELS:
        return _of_sentinels(urlsplit(url), options, sentinel)
    if scheme.endswith("+cluster"):
        raise Misuse(NO_CLUSTER)
    try:
        return server.from_url(url, **options)
    except ValueError as error:
        raise Misuse(Text("REDIS_URL is no Redis URL. Write for example redis://127.0.0.1:6379/0")) from error


def _of_sentinels(parts: SplitResult, options: Mapping[str, Any], kind: Any) -> Any:  # noqa: ANN401 (as above)
    login, _, places = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not (database or "0").isdecimal():
        raise Misuse("REDIS_URL names no service of its sentinels. Write for example {form}", form=FORM)
    sentinels = [_place(one) for one in places.split(",")]
    user, _, password = login.partition(":")
    try:
        asked: dict[str, Any] = dict(parse_url(f"redis:?{parts.query}"))
    except ValueError as error:
        raise Misuse("REDIS_URL: {error}", error=error) from error
    own = {"password": asked.pop("sentinel_password")} if "sentinel_password" in asked else {}
    secure = {"ssl": True} if parts.scheme == SENTINELS[1] else {}
    secure |= {name: value for name, value in asked.items() if name.startswith("ssl_")}
    waits = {name: value for name, value in options.items() if name.startswith("socket_")}
    waits |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), SENTINEL_S)
    own_options = {**waits, "retry": None, **secure, **own}
    found = kind(sentinels, sentinel_kwargs=own_options, **{**options, **asked, **secure})
    login_as = {"username": unquote(user) or None, "password": unquote(password) or None}
    return found.master_for(service, db=int(database or 0), **login_as)


def command(url: str, words: str) -> str:
    """What a person types to ask the Redis of *url*: ``redis-cli -u redis://10.0.0.1:6379/0 ping``.

    A URL with a password, or that redis-cli does not know, such as that of sentinels, is left to the reader.
    """
    place = shlex.quote(url) if re.fullmatch(r"rediss?://[^@?]+", url) else "REDIS_URL"
    return f"redis-cli -u {place} {words}"


async def close(client: "redis.Redis") -> None:
    """Close the connections of *client*, those to its sentinels too."""
    pool = client.connection_pool
    await client.aclose()
    if isinstance(pool, SentinelConnectionPool):
        for one in pool.sentinel_manager.sentinels:
            await one.aclose()


def _place(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = port, "26379"
    if not host or not port.isdecimal():
        raise Misuse("REDIS_URL names a sentinel that has no address. Write for example {form}", form=FORM)
    return host.strip("[]"), int(port)
