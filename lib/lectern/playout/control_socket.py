"""Both ends of the control socket: a JSON object a line, requests in, answers and events out. See docs/playout.md."""

import asyncio
import hashlib
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

from lectern.playout.kernel import replace
from lectern.playout.sentences import Isolated, Sentence, sentence
from lectern.playout.timetable import BadRequest

MAX_REQUEST_BYTES = 64 * 1024
MAX_WAITING_BYTES = 1024 * 1024
"""Unread bytes above which a client is disconnected, not counting one answer: a long status takes a while to read."""
MAX_CLIENTS = 64
AT_ONCE = 32
"""Number of requests that one client may have at work at once; it sends no more before it has an answer."""


class Lines(list[str]):
    """A list in an answer whose items are JSON already, because thousands at once would hold up the sending loop."""


Do = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Control:
    """Serves clients on a listening socket; *does* has what is done for each `do`."""

    def __init__(self, listener: socket.socket, does: dict[str, Do]) -> None:
        self._listener, self._does = listener, does
        self._hearing: set[asyncio.StreamWriter] = set()
        self._clients: dict[asyncio.StreamWriter, int] = {}  # bytes of the longest answer that may be unread
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to serve clients."""
        self._server = await asyncio.start_unix_server(self._serve, sock=self._listener, limit=MAX_REQUEST_BYTES)

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to all who asked for events."""
        line = _line(event)
        for client in self._hearing:
            self._write(client, line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients[writer] = 0
        try:
            if len(self._clients) <= MAX_CLIENTS:
                await self._converse(reader, writer)
        except (OSError, ValueError):
            pass  # the client has gone, or its line was too long: only its own connection ends
        finally:
            self._hearing.discard(writer)
            del self._clients[writer]
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
        self._clients[writer] = max(len(line), self._clients[writer] if unread else 0)

    async def _answer(self, line: bytes) -> dict[str, Any]:
        request: Any = None
        with suppress(ValueError, RecursionError):
            request = json.loads(line)
        if not isinstance(request, dict):
            return {"ok": False, "why": "a request is a JSON object"}
        number = {"id": request["id"]} if "id" in request else {}
        do = self._does.get(str(request.get("do")))
        if do is None:
            return {**number, "ok": False, "why": f"do: one of {', '.join(sorted(self._does))} is needed"}
        hears = {"hears": True} if request.get("do") == "hello" and request.get("events") else {}
        with Isolated() as isolated:  # one odd request must not end a connection that others wait on
            return {**number, "ok": True, **await do(request), **hears}
        why = str(isolated.error) if isinstance(isolated.error, BadRequest) else isolated.fault
        return {**number, "ok": False, "why": why}

    def _write(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        transport = writer.transport
        if transport.is_closing():
            return  # the client has gone: asyncio warns of each further write
        if transport.get_write_buffer_size() > MAX_WAITING_BYTES + self._clients[writer]:
            transport.abort()
        else:
            writer.write(line)


def _line(fields: dict[str, Any]) -> bytes:
    """The *fields* as JSON, with the id and values of the sentence among them, so that it can be translated."""
    pair = next((value.pair() for value in fields.values() if isinstance(value, Sentence)), None)
    fields = fields if pair is None else {**fields, "sentence": pair}
    lists = {name: value for name, value in fields.items() if isinstance(value, Lines)}
    plain = json.dumps({name: value for name, value in fields.items() if name not in lists})
    more = "".join(f', "{name}": [{", ".join(value)}]' for name, value in lists.items())
    return f"{plain[:-1]}{more}}}\n".encode()


PROTOCOL = 2
"""Version of the protocol on the socket; a worker of another one is not asked for anything but an upgrade."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A status of thousands of classes is one line."""
ANSWER_S = 10.0
UPGRADE_S = 60.0
"""Seconds to wait for an upgrade: a new worker has half a minute to load."""
MAX_EVENTS = 10_000


class PlayoutUnreachable(Exception):
    """No playout listens, it does not answer, or it ended before its answer."""


class RequestRefused(Exception):
    """The playout answered that it cannot; the text is its reason."""


def version_of(lines: Sequence[str]) -> str:
    """The version of a timetable that has these *lines*: the hash of its content."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def write_timetable(path: Path, lines: Sequence[str]) -> str:
    """Replace the timetable at *path* as a whole; returns its version. Raises OSError.

    *lines* are its classes by their start, each as JSON; when this returns they are on the disk.
    """
    version = version_of(lines)
    head = json.dumps({"version": version, "count": len(lines)})
    replace(path, "\n".join([head, *lines, ""]).encode(), is_synced=True)
    for draft in path.parent.glob(f".{path.name}.*.tmp"):  # of processes that were killed
        draft.unlink(missing_ok=True)
    return version


class Client(AbstractAsyncContextManager["Client"]):
    """One connection. `async with await Client.connect(path) as client`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: deque[asyncio.Future[dict[str, Any] | None]] = deque()
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(MAX_EVENTS)
        self._asking = asyncio.Semaphore(AT_ONCE)
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def connect(cls, path: Path) -> "Client":
        """Connect to the socket at *path*; raises PlayoutUnreachable."""
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_unix_connection(str(path), limit=MAX_ANSWER_BYTES), ANSWER_S
            )
        except OSError as error:
            why = error.strerror or str(error) or sentence("no answer in time")
            raise PlayoutUnreachable(sentence("{path}: no playout answers there: {why}", path=path, why=why)) from error
        return cls(reader, writer)

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection."""
        self._reading.cancel()
        self._writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await self._reading

    async def ask(self, do: str, *, timeout_s: float = ANSWER_S, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
        """The answer to a request; raises RequestRefused, or PlayoutUnreachable: the connection has ended."""
        async with self._asking:
            if self._reading.done():
                raise PlayoutUnreachable(sentence("the playout's worker ended, or did not answer"))
            coming: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
            try:
                self._writer.write(json.dumps({"do": do, **fields}).encode() + b"\n")
                self._waiting.append(coming)
                async with asyncio.timeout(timeout_s):
                    answer = await coming
            except (OSError, TimeoutError) as error:
                await self.close()
                reason = sentence("the playout did not answer within {timeout_s:g} s", timeout_s=timeout_s)
                raise PlayoutUnreachable(reason) from error
        if answer is None:
            raise PlayoutUnreachable(sentence("the playout's worker ended before it answered"))
        if not answer.get("ok"):
            raise RequestRefused(str(answer.get("why")))
        return answer

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The events, after `hello` with events=True, until the connection ends."""
        while (event := await self._events.get()) is not None:
            yield event

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                fields = json.loads(line)
                if "event" not in fields:
                    self._answer(fields)
                elif not self._events.full():
                    self._events.put_nowait(fields)
                else:
                    break  # nobody reads the events: the client must connect again, and ask for the status
        except (OSError, ValueError):
            pass  # treated like the end of the connection
        finally:
            while self._waiting:
                self._answer(None)
            if self._events.full():
                self._events.get_nowait()
            self._events.put_nowait(None)
            self._writer.close()

    def _answer(self, fields: dict[str, Any] | None) -> None:
        """Give an answer to the request that has waited longest, even if its caller was cancelled meanwhile."""
        if not self._waiting:
            return  # an answer without a request: the next request must not get it
        coming = self._waiting.popleft()
        if not coming.done():
            coming.set_result(fields)


async def asked(path: Path, do: str, *, timeout_s: float = ANSWER_S, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """The answer to a request on a connection of its own; raises what `Client.connect` and `Client.ask` raise."""
    async with await Client.connect(path) as client:
        return await client.ask(do, timeout_s=timeout_s, **fields)
