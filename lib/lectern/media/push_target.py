"""Checks whether a server listens at the push URL of a class."""

import asyncio
from contextlib import suppress

from lectern import urls
from lectern.allowlist import Address, Allowlist
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.storage import origin
from lectern.urls import plain


async def unreachable(push_url: str, *, timeout_s: float, allowed: Allowlist) -> str | None:
    """Why the host of *push_url* cannot be connected to within *timeout_s*; None if it can.

    Sends nothing, because a stream key may be valid only once. Connects to *allowed* places only.
    """
    try:
        url = urls.push(push_url)
    except ValueError as error:
        return Text("the push URL {error}", error=error)
    try:
        async with asyncio.timeout(timeout_s):
            addresses = await asyncio.to_thread(origin.addresses, url.host, url.port)
            forbidden = allowed.forbidden(url.host, url.port, addresses)
            if forbidden is not None:
                return Text(
                    "{host}: {forbidden} is no allowed push host; see ALLOWED_PUSH_HOSTS",
                    host=url.host,
                    forbidden=forbidden,
                )
            writer = await _connected(addresses, url.port)
    except TimeoutError:
        return Text(
            "{host}:{port} does not answer within {timeout_s:g} s", host=url.host, port=url.port, timeout_s=timeout_s
        )
    except OSError as error:
        return Text("{host}:{port}: {error}", host=url.host, port=url.port, error=plain(error))
    except TryAgain as error:
        return error.message
    except ValueError as error:  # raised by the name's lookup
        return Text("{host}:{port}: {error}", host=url.host, port=url.port, error=error)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return None


async def _connected(addresses: list[Address], port: int) -> asyncio.StreamWriter:
    """A connection to the first of *addresses* that takes one."""
    refused = OSError(Text("its host has no address"))
    for address in addresses:
        try:
            return (await asyncio.open_connection(str(address), port))[1]
        except OSError as error:
            refused = error
    raise refused
