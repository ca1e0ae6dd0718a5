"""Whether a server listens where a class is to be pushed."""

import asyncio
from contextlib import suppress

from lectern import urls


async def unreachable(push_url: str, *, timeout_s: float) -> str | None:
    """Why no connection to the host of *push_url* comes about within *timeout_s*; None where it does.

    Nothing is sent: a stream key may be used once only.
    """
    try:
        url = urls.push(push_url)
    except ValueError as error:
        return f"the push URL {error}"
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(url.host, url.port)
    except TimeoutError:
        return f"{url.host}:{url.port} does not answer within {timeout_s:g} s"
    except OSError as error:
        return f"{url.host}:{url.port}: {error.strerror or error}"
    except ValueError as error:  # of what resolves the name
        return f"{url.host}:{url.port}: {error}"
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return None
