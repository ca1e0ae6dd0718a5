"""Whether a server listens where a class is to be pushed."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

PORTS = {"rtmp": 1935, "rtmps": 443}


async def unreachable(push_url: str, *, timeout_s: float) -> str | None:
    """Why no connection to the host of *push_url* comes about within *timeout_s*; None where it does.

    Nothing is sent: a stream key may be used once only.
    """
    parts = urlsplit(push_url)
    port = parts.port or PORTS.get(parts.scheme, 1935)
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except TimeoutError:
        return f"{parts.hostname}:{port} does not answer within {timeout_s:g} s"
    except OSError as error:
        return f"{parts.hostname}:{port}: {error.strerror or error}"
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return None
