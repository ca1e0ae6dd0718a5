"""The control socket: a JSON object a line, requests in, answers and events out; docs/playout.md is its contract."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from lectern.playout.kernel import Isolated
from lectern.playout.timetable import BadRequest

MAX_LINE_BYTES = 64 * 1024
MAX_WAITING_BYTES = 1024 * 1024
"""Unread bytes above which a client is disconnected, not counting one answer: a long status takes a while to read."""
MAX_CLIENTS = 64
AT_ONCE = 32
"""Number of requests that one client may have at work at once: a lease waits for no other request."""


class Lines(list[str]):
    """A list in an answer whose items are JSON already, because thousands at once would hold up the sending loop."""


Do = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Control:
    """Serves clients on a listening socket; *does* has what is done for each `do`."""

    def __init__(self, listener: socket.socket, does: dict[str, Do]) -> None:
        self._listener, self._does = listener, does
        self._hearing: set[asyncio.StreamWriter] = set()
        self._longest: dict[asyncio.StreamWriter, int] = {}  # bytes of the longest answer that may be unread
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to serve clients."""
        self._server = await asyncio.start_unix_server(self._serve, sock=self._listener, limit=MAX_LINE_BYTES)

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to all who asked for events."""
        line = _line(event)
        for client in list(self._hearing):
            self._write(client, line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) <= MAX_CLIENTS:
                await self._converse(reader, writer)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass  # the client has gone, or its line was too long: only its own connection ends
        finally:
            self._clients.discard(task)
            self._hearing.discard(writer)
            self._longest.pop(writer, None)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin the requests in their order, each up to its first wait, and answer in the same order."""
        places, last = asyncio.Semaphore(AT_ONCE), None
        try:
            while line := await reader.readline():
                await places.acquire()
                last = asyncio.create_task(self._request(line, last, writer))
                last.add_done_callback(lambda _: places.release())
        finally:  # a client that has gone gets no answers, but its requests are finished
            if last is not None:
                await asyncio.wait({last})

    async def _request(self, line: bytes, before: asyncio.Task[None] | None, writer: asyncio.StreamWriter) -> None:
        """Do one request, and send its answer after that of the request before."""
        answer = await self._answer(line)
        if before is not None:
            await asyncio.wait({before})
        if answer.pop("hears", False):
            self._hearing.add(writer)
        line = _line(answer)
        self._write(writer, line)
        unread = writer.transport.get_write_buffer_size() > len(line)
        self._longest[writer] = max(len(line), self._longest.get(writer, 0) if unread else 0)

    async def _answer(self, line: bytes) -> dict[str, Any]:
        number: dict[str, Any] = {}
        answer: dict[str, Any] = {"ok": False}
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise BadRequest("a request is a JSON object")
            number = {"id": request["id"]} if "id" in request else {}
            do = self._does.get(str(request.get("do")))
            if do is None:
                raise BadRequest(f"do: one of {', '.join(sorted(self._does))} is needed")
            hears = {"hears": True} if request.get("do") == "hello" and request.get("events") else {}
            with Isolated(BadRequest, ValueError, RecursionError) as isolated:
                answer = {"ok": True, **await do(request), **hears}
            if isolated.fault:  # one odd request must not end a connection that others wait on
                answer = {"ok": False, "why": isolated.fault}
        except BadRequest as error:
            answer = {"ok": False, "why": str(error)}
        except (ValueError, RecursionError):
            answer = {"ok": False, "why": "a request is a JSON object"}
        return {**number, **answer}

    def _write(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        transport = writer.transport
        if transport.is_closing():
            self._hearing.discard(writer)  # the client has gone: asyncio warns of each further write
            return
        if transport.get_write_buffer_size() > MAX_WAITING_BYTES + self._longest.get(writer, 0):
            self._hearing.discard(writer)
            transport.abort()
            return
        with suppress(OSError):
            writer.write(line)


def _line(fields: dict[str, Any]) -> bytes:
    lists = {name: value for name, value in fields.items() if isinstance(value, Lines)}
    plain = json.dumps({name: value for name, value in fields.items() if name not in lists})
    more = "".join(f', "{name}": [{", ".join(value)}]' for name, value in lists.items())
    return f"{plain[:-1]}{more}}}\n".encode()
