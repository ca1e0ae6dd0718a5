"""A server that answers with what was drawn: an origin, and the cloud's transcoding API."""

import asyncio
import json
import re
import socket
import struct
from collections import Counter, defaultdict
from contextlib import suppress

from redis.asyncio import Redis

from tests.fuzz import odd_answers
from tests.fuzz.answer import HOLD_S, Answer, pieces
from town.ports import HOST, Loopback

_PLACE = re.compile(rb"(HEAD|GET|POST) /odd/(\d+)")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_SENT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
REQUEST_S = 20.0


class OddServer(Loopback):
    """Serves ``/odd/N`` with the odd answers of N, and signed POSTs to ``/transcode``.

    A record of *odd_from* and above is answered oddly; of the others the result follows on *channel* at once.
    """

    def __init__(self, seed: int, recording: bytes, redis_url: str, channel: str, good_url: str, odd_from: int) -> None:
        super().__init__()
        self.answered: Counter[str] = Counter()
        self.requests: Counter[int] = Counter()
        self._seed, self._recording = seed, recording
        self._redis_url, self._channel, self._good_url, self._odd_from = redis_url, channel, good_url, odd_from
        self._turns: defaultdict[int, int] = defaultdict(int)
        self._server: asyncio.Server | None = None
        self._redis: Redis | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its base."""
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        self._redis = Redis.from_url(self._redis_url)
        self._server = await asyncio.start_server(self._serve, HOST, self.port, backlog=1024)

    async def stop(self) -> None:
        """Close the port, and whatever is held."""
        if self._server is None or self._redis is None:
            return
        self._server.close()
        self._server = None
        for one in self._serving:
            one.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._redis.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(REQUEST_S):
                    await self._answer(reader, writer)
        finally:
            self._serving.discard(task)
            if not writer.transport.is_closing():
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(asked)
        body = await reader.readexactly(int(length[1])) if length else b""
        place = _PLACE.match(asked)
        if place is not None:
            await self._send(writer, self._next(int(place[2])), is_head=place[1] == b"HEAD")
            return
        if not asked.startswith(b"POST /transcode"):
            return  # somewhere a redirect led to
        fields = json.loads(body)
        record_id = int(fields["record_id"])
        self.requests[record_id] += 1
        if record_id >= self._odd_from:
            await self._send(writer, self._next(record_id), is_head=False)
            return
        writer.write(_SENT)
        await writer.drain()
        writer.close()
        await self._tell(record_id, str(fields["video_resolution"]))

    def _next(self, index: int) -> Answer:
        self._turns[index] += 1
        answer = odd_answers.drawn(self._seed, index, self._turns[index], self._recording)
        self.answered[answer.kind or "sound"] += 1
        return answer

    async def _tell(self, record_id: int, resolution: str) -> None:
        assert self._redis is not None
        url = f"{self._good_url}/{record_id}/{record_id}_{resolution}.flv"
        said = {"cmd": "transcoding", "record_id": record_id, "video_resolution": resolution, "result": "sucess"}
        message = {**said, "transcode_video_url": url, "type": "oss"}
        await self._redis.xadd(self._channel, {"body": json.dumps(message)})

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer, *, is_head: bool) -> None:
        writer.write(answer.head)
        await writer.drain()
        if not is_head or answer.to_head:
            for piece in pieces(answer):
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                else:
                    writer.write(piece)
                    await writer.drain()
        if answer.end == "hold":
            await asyncio.sleep(HOLD_S)
        if answer.end == "reset":
            made: socket.socket = writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        writer.close()
        await writer.wait_closed()
