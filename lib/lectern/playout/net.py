"""TCP and TLS connections that never block."""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from lectern.playout.rtmp import Target
from lectern.playout.sentences import Sentence, cleaned, sentence
from lectern.playout.timetable import may_reach

TRY_S, NEXT_S = 5.0, 2.0
"""Seconds allowed to the last address of a name, and to each before it, with the TLS handshake."""
USER_TIMEOUT_S = 10.0
"""Seconds without an acknowledgement, or with a closed window, after which the kernel gives a connection up."""
MIN_BUFFER_BYTES, MAX_BUFFER_BYTES = 64 * 1024, 4 * 1024 * 1024

_WANTS = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


async def connect(
    target: Target, buffer_bytes: int, trusted: ssl.SSLContext | None, networks: Sequence[str] | None = None
) -> socket.socket:
    """A connection to *target*, with TLS if *trusted* is given; raises OSError (also ssl.SSLError).

    The kernel queues about *buffer_bytes*: with a longer queue, media would look sent before the receiver has them.
    The error is that of the first address that is allowed: those come last that this machine can hardly reach.
    """
    addresses = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    if not addresses:
        raise OSError(sentence("{host} has no address", host=target.host))
    allowed = [found for found in addresses[:8] if may_reach(str(found[4][0]), networks)]
    if not allowed:
        its = {"host": target.host, "address": addresses[0][4][0]}
        raise OSError(sentence("{host}: {address} is no allowed push host; see ALLOWED_PUSH_HOSTS", **its))
    problems: list[OSError] = []
    for number, (family, kind, protocol, _, address) in enumerate(allowed, 1):
        try_s = TRY_S if number == len(allowed) else NEXT_S
        try:
            async with asyncio.timeout(try_s):
                connection = await _connected(socket.socket(family, kind, protocol), address, buffer_bytes)
                return await _secured(connection, target, trusted) if trusted is not None else connection
        except TimeoutError:
            problems.append(OSError(sentence("no answer within {try_s:g} s", try_s=try_s)))
        except OSError as error:
            problems.append(error)
    raise problems[0]


async def _connected(connection: socket.socket, address: tuple[Any, ...], buffer_bytes: int) -> socket.socket:
    with ExitStack() as failed:
        failed.callback(connection.close)
        connection.settimeout(0)
        queue_bytes = max(MIN_BUFFER_BYTES, min(buffer_bytes, MAX_BUFFER_BYTES))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, queue_bytes)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(USER_TIMEOUT_S * 1000))
        await asyncio.get_running_loop().sock_connect(connection, address)
        failed.pop_all()
    return connection


def send(connection: socket.socket, data: memoryview) -> int:
    """Send what the kernel takes without blocking; returns the number of bytes."""
    with suppress(*_WANTS):
        return connection.send(data)
    return 0


def receive(connection: socket.socket, size: int, flags: int = 0) -> bytes | None:
    """The bytes that have arrived, at most *size*; None if there are none yet, empty at the end of the stream."""
    with suppress(*_WANTS):
        return connection.recv(size, flags)
    return None


def words(error: Exception) -> str:
    """The reason of a connection's failure, for people; what a server or its certificate says in it is cleaned."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return sentence("the server's certificate is not trusted: {why}", why=cleaned(error.verify_message))
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return sentence("the server closed the connection")
    if isinstance(error, ssl.SSLError):  # its number is one of OpenSSL, not of the system
        why = (error.reason or str(error)).replace("_", " ").lower()
        return sentence("TLS with the server fails: {why}", why=cleaned(why))
    if isinstance(error, socket.gaierror):
        return sentence("the name of the server cannot be resolved: {why}", why=cleaned(str(error.strerror)))
    if isinstance(error, OSError) and error.errno:
        return cleaned(os.strerror(error.errno) if error.errno > 0 else str(error.strerror))
    said = str(error) or type(error).__name__
    return said if isinstance(said, Sentence) else cleaned(said)


async def _secured(connection: socket.socket, target: Target, trusted: ssl.SSLContext) -> ssl.SSLSocket:
    secured = trusted.wrap_socket(connection, server_hostname=target.host, do_handshake_on_connect=False)
    with ExitStack() as failed:
        failed.callback(secured.close)
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await until_ready(secured)
            except ssl.SSLWantWriteError:
                await until_ready(secured, writable=True)
            else:
                failed.pop_all()
                return secured


async def until_ready(connection: socket.socket, *, writable: bool = False) -> None:
    """Wait until the connection is readable, or with *writable* until it can send."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    watch, leave = (loop.add_writer, loop.remove_writer) if writable else (loop.add_reader, loop.remove_reader)
    watch(connection, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        leave(connection)
