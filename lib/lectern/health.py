"""Asks other hosts: over HTTP for health, new settings or anything small; a push host whether it takes connections."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx

from lectern import urls
from lectern.allowlist import Allowlist
from lectern.errors import Misuse, TryAgain
from lectern.i18n import Text, unpacked
from lectern.playout import net, rtmp

MOST_BYTES = 64 * 1024
RELOAD_S = 30.0


async def of(address: str, timeout_s: float) -> Mapping[str, Any] | None:
    """The health report of the host at *address* (``host:port``), ready or not; None if no JSON comes in time."""
    try:
        answer = await fetched(f"http://{address}/health", timeout_s, MOST_BYTES)
        found = None if answer is None else answer.json()
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


async def fetched(
    url: str, timeout_s: float, most_bytes: int, headers: Mapping[str, str] | None = None
) -> httpx.Response | None:
    """The answer of another host to a GET; None if it does not come in time, or is larger than *most_bytes*."""
    try:
        async with asyncio.timeout(timeout_s), httpx.AsyncClient(trust_env=False, timeout=timeout_s) as client:
            async with client.stream("GET", url, headers=headers) as answer:
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > most_bytes:
                        return None
            return httpx.Response(answer.status_code, content=body)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError, OSError):
        return None


def reloaded(base: str, program: str) -> dict[str, Any]:
    """The answer of this host's process at *base* (``http://host:port``), which has read its settings anew.

    Raises Misuse if it refuses them, and so has changed nothing, and TryAgain if it does not answer.
    """
    try:
        answer = httpx.post(f"{base}/reload", timeout=RELOAD_S, trust_env=False)
        found: dict[str, Any] = answer.json()
        refused = found.get("error")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        raise TryAgain(
            "{url}/reload does not answer: {error}. Does {program} run? If you have just changed this address, "
            "restart it.",
            url=base,
            error=error,
            program=program,
        ) from error
    if refused or not answer.is_success:
        why = str(refused or answer.status_code).removesuffix(".")
        raise Misuse("{why}. Nothing is changed.", why=why)
    return found


def sentences(answer: Mapping[str, Any]) -> list[str]:
    """What an answer of `reloaded` says in words: with their ids, or from an older release in English alone."""
    return [unpacked(one) for one in answer.get("sentences", answer["said"])]


def own_address(url: str, family: int) -> str | None:
    """This host's address of *family* on the way to the server of *url*, for a URL; None if no way is known.

    Sends nothing. If *url* names several sentinels, the first that has an address decides.
    """
    for place in url.partition("://")[2].partition("/")[0].rpartition("@")[2].split(","):
        with suppress(OSError, ValueError):
            parts = urlsplit(f"//{place}")
            *_, there = socket.getaddrinfo(parts.hostname, parts.port or 1, family, socket.SOCK_DGRAM)[0]
            with socket.socket(family, socket.SOCK_DGRAM) as way:
                way.connect(there)
                found = str(way.getsockname()[0])
            return f"[{found}]" if ":" in found else found
    return None


async def unreachable(push_url: str, *, timeout_s: float, allowed: Allowlist) -> str | None:
    """Why the host of *push_url* cannot be connected to within *timeout_s*; None if it can.

    Sends nothing, because a stream key may be valid only once. Connects to *allowed* places only.
    """
    try:
        url = urls.push(push_url)
    except ValueError as error:
        return Text("the push URL {error}", error=error)
    place = {"host": url.host, "port": url.port}
    try:
        async with asyncio.timeout(timeout_s):
            networks = allowed.of_server(url.host, url.port)
            connection = await net.connect(rtmp.target(url.text), net.MIN_BUFFER_BYTES, None, networks)
    except TimeoutError:
        return Text("{host}:{port} does not answer within {timeout_s:g} s", timeout_s=timeout_s, **place)
    except (OSError, ValueError) as error:  # the latter is raised by the name's lookup
        why = net.words(error)
        return why if why.startswith(f"{url.host}: ") else Text("{host}:{port}: {error}", error=why, **place)
    connection.close()
    return None
