"""Looks at the health of another host over HTTP."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

MOST_BYTES = 64 * 1024


async def of(address: str, timeout_s: float) -> Mapping[str, Any] | None:
    """The health report of the host at *address* (``host:port``); None if it does not answer in time, or not in JSON.

    A host that is not ready answers, too.
    """
    try:
        async with asyncio.timeout(timeout_s), httpx.AsyncClient(trust_env=False, timeout=timeout_s) as client:
            async with client.stream("GET", f"http://{address}/health") as answer:
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        return None
            found = httpx.Response(200, content=body).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError, TimeoutError, OSError):
        return None
    return found if isinstance(found, dict) else None


def own_address(url: str) -> str | None:
    """This host's address on the way to the server of *url*, for a URL; None if no way is known. Sends nothing.

    If *url* names several sentinels, the first that has an address decides.
    """
    places = url.partition("://")[2].partition("/")[0].rpartition("@")[2].split(",")
    return next((found for one in places if (found := _towards(one)) is not None), None)


def _towards(place: str) -> str | None:
    try:
        parts = urlsplit(f"//{place}")
        family, _, _, _, there = socket.getaddrinfo(parts.hostname, parts.port or 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect(there)
            found = str(way.getsockname()[0])
    except (OSError, ValueError):
        return None
    return f"[{found}]" if ":" in found else found
