"""An asyncio client of the control socket: answers arrive in the order of the requests, events between them.

Several requests may be unanswered at once: a busy process reads each answer late, and no request waits for another.
"""

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lectern.playout.sentences import sentence
from lectern.playout.state_file import replace

PROTOCOL = 2
"""Version of the protocol on the socket; a worker of another one is not asked for anything but an upgrade."""
MAX_LINE_BYTES = 64 * 1024 * 1024
"""A status of thousands of classes is one line."""
ANSWER_S = 10.0
ON_THEIR_WAY = 32
"""Number of requests that may be unanswered; the worker has as many at work at once."""
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
    replace(path, "\n".join([head, *lines, ""]), is_synced=True)
    for draft in path.parent.glob(f".{path.name}.*.tmp"):  # of processes that were killed
        draft.unlink(missing_ok=True)
    return version


class Client:
    """One connection. `async with await Client.connect(path) as client`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: deque[asyncio.Future[dict[str, Any] | None]] = deque()
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(MAX_EVENTS)
        self._asking = asyncio.Semaphore(ON_THEIR_WAY)
        self._is_over = False
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def connect(cls, path: Path) -> "Client":
        """Connect to the socket at *path*; raises PlayoutUnreachable."""
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_unix_connection(str(path), limit=MAX_LINE_BYTES), ANSWER_S
            )
        except OSError as error:
            why = error.strerror or str(error) or sentence("no answer in time")
            raise PlayoutUnreachable(sentence("{path}: no playout answers there: {why}", path=path, why=why)) from error
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            if self._is_over:
                raise PlayoutUnreachable(sentence("the playout's worker ended, or did not answer"))
            coming: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
            try:
                self._writer.write(json.dumps({"do": do, **fields}).encode() + b"\n")
                self._waiting.append(coming)
                async with asyncio.timeout(timeout_s):
                    answer = await coming
            except (OSError, TimeoutError) as error:
                await self.close()
                raise PlayoutUnreachable(
                    sentence("the playout did not answer within {timeout_s:g} s", timeout_s=timeout_s)
                ) from error
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
            self._is_over = True
            while self._waiting:
                self._answer(None)
            with suppress(asyncio.QueueEmpty):
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
