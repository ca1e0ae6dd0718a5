"""Which hosts classes may be pushed to: asked before a class is taken, and before a connection is tried."""

import asyncio
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

from flows.host import StreamerHost, log
from lectern import urls
from lectern.allowlist import PUBLIC, Address, Allowlist
from lectern.db import airings
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.storage import origin

SETTING = "ALLOWED_PUSH_HOSTS"
LOOK_UP_S = 1.0
"""Seconds that a class waits for a name server; if the server does not answer, the class is not refused."""

_KEPT_S = 60.0
_KEPT = 1_000
_AT_ONCE = 4

Server = tuple[str, int]

# Threads of their own: a name server that hangs is not to keep the threads that write the database.
_lookups = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="push-hosts")
_known: dict[Server, tuple[float, list[Address]]] = {}
_before: WeakKeyDictionary[Engine, frozenset[Server]] = WeakKeyDictionary()
_told: set[Server] = set()


async def allowed(host: StreamerHost) -> Allowlist:
    """The hosts that the setting lists. If it lists none, servers that classes were pushed to before stay allowed."""
    listed = Allowlist.listed(host.settings.allowed_push_hosts, SETTING)
    return listed if host.settings.allowed_push_hosts else listed.and_also(await _taken_before(host))


async def forbidden(host: StreamerHost, push_urls: Collection[str]) -> dict[str, str]:
    """Why some of *push_urls* are forbidden, and which setting would allow them; shows no secret of a URL."""
    listed = Allowlist.listed(host.settings.allowed_push_hosts, SETTING)
    servers = {url: _server(url) for url in push_urls}
    addresses = await _looked_up({server for server in servers.values() if server is not None})
    bad = {
        server: where
        for server, where in ((server, listed.forbidden(*server, addresses[server])) for server in addresses)
        if where
    }
    old = await _taken_before(host) if bad and not host.settings.allowed_push_hosts else frozenset()
    for server in bad.keys() & old - _told:
        _told.add(server)
        text = f"{SETTING}={_with(host, server)}"
        log.warning(
            "%s: is no public host, and taken because classes were pushed to it before: set %s", server[0], text
        )
    return {
        url: Text(
            "{host}: {address} is no allowed push host; to push there, set {setting}={value}",
            host=server[0],
            address=bad[server],
            setting=SETTING,
            value=_with(host, server),
        )
        for url, server in servers.items()
        if server in bad and server not in old
    }


def _with(host: StreamerHost, server: Server) -> str:
    return f"{host.settings.allowed_push_hosts or PUBLIC},{server[0]}"


def _server(push_url: str) -> Server | None:
    try:
        url = urls.push(push_url)
    except ValueError:
        return None  # refused elsewhere, in words of its own
    return url.host, url.port


async def _looked_up(servers: Collection[Server]) -> dict[Server, list[Address]]:
    """The addresses of those servers that could be looked up in time; each is remembered for a minute."""
    now, loop = time.monotonic(), asyncio.get_running_loop()
    fresh = {
        server: known[1] for server in servers if (known := _known.get(server)) is not None and now - known[0] < _KEPT_S
    }
    asked = {server: loop.run_in_executor(_lookups, _addresses, *server) for server in servers if server not in fresh}
    if asked:
        await asyncio.wait(asked.values(), timeout=LOOK_UP_S)
    if len(_known) > _KEPT:
        _known.clear()
    for server, answer in asked.items():
        if answer.done() and (addresses := answer.result()):
            fresh[server] = addresses
            _known[server] = (now, addresses)
    return fresh


def _addresses(host: str, port: int) -> list[Address]:
    """The addresses of a host; none if its name cannot be looked up, which the connection will report."""
    try:
        return origin.addresses(host, port)
    except (origin.NoSuchHost, TryAgain):
        return []


async def _taken_before(host: StreamerHost) -> frozenset[Server]:
    """The servers of the classes that were taken before this process began; read once."""
    if host.engine not in _before:
        push_urls = await host.read_tx(airings.push_urls)
        _before[host.engine] = frozenset(server for url in push_urls if (server := _server(url)) is not None)
    return _before[host.engine]
