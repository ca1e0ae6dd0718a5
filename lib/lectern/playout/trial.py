"""Tries a push URL up to RTMP's connect, without publishing: whether the server will let a class in."""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence

from lectern.playout import link
from lectern.playout.rtmp import NotRtmp
from lectern.playout.rtmp.login import LoginWanted
from lectern.playout.rtmp.publish import HANDSHAKE_BYTES, Publisher
from lectern.playout.rtmp.url import Target
from lectern.playout.session import PORTION_BYTES, Intake

BUFFER_BYTES = 64 * 1024


async def refusal(target: Target, trusted: ssl.SSLContext | None, networks: Sequence[str] | None = None) -> str | None:
    """Why the server refuses a connection to the application of *target*; None if it accepts."""
    query = ""
    while True:
        try:
            connection = await link.connect(target, BUFFER_BYTES, trusted, networks)
        except (OSError, ValueError) as error:
            return link.words(error)
        try:
            await _connected(Publisher(target, os.urandom(HANDSHAKE_BYTES - 8), query), connection)
        except LoginWanted as error:
            query = error.query  # of which a server can want two, and no more
        except (OSError, NotRtmp) as error:
            return link.words(error)
        else:
            return None
        finally:
            connection.close()


async def _connected(publisher: Publisher, connection: socket.socket) -> None:
    intake = Intake()
    while not publisher.is_connected:
        owed = memoryview(publisher.take())
        while owed:
            await link.until_ready(connection, writable=True)
            owed = owed[link.send(connection, owed) :]
        data = link.receive(connection, PORTION_BYTES)
        if data is None:
            await link.until_ready(connection)
            continue
        if not data:
            raise NotRtmp("the server closes the connection")
        intake.take(publisher, data)
        await asyncio.sleep(0)  # the classes on air have their turn
