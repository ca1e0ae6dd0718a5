"""An RTMP receiver: takes what is pushed to it, and keeps each push as FLV with the publisher's timestamps."""

import argparse
import asyncio
import hashlib
import secrets
import struct
import time
from pathlib import Path
from urllib.parse import quote

from lectern.playout.rtmp import NotRtmp, amf0, chunks
from town.ports import HOST, Loopback
from town.recordings import MEDIA_TAGS, Journal, Publish, Take, read_publishes

_STATE_EVERY_S = 0.2
SILENCE_S = 60.0
"""Seconds after which a client that sends nothing is taken for dead."""

_WINDOW_BYTES = 2_500_000
_CHUNK_BYTES = 65_536  # ffmpeg takes over the receiver's chunk size for what it sends
_MOST_BYTES = 1 << 24


class RtmpReceiver(Loopback):
    """Records every stream published to it under *root*."""

    def __init__(self, root: Path, port: int | None = None) -> None:
        super().__init__(port)
        self.root = root
        self.publishes: dict[str, list[Publish]] = {}
        self._journal = Journal(root)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, name: str) -> str:
        """Where the stream *name* is pushed to."""
        return f"rtmp://{HOST}:{self.port}/live/{name}"

    async def start(self) -> None:
        """Listen; what an earlier receiver over the same root took is known, and its open ends are closed."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.publishes.clear()
        for publish in read_publishes(self.root):
            self.publishes.setdefault(publish.name, []).append(publish)
            if publish.ended_at is None:
                self._end(publish, publish.last_media_at or publish.started_at)
        self._server = await asyncio.start_server(self._serve, HOST, self.port, backlog=1024)
        self._tasks.add(asyncio.create_task(self._keep_state()))

    async def stop(self) -> None:
        """Close the port and all connections; the publishes under way end here."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._journal.keep(self.publishes)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Client(self, reader, writer)
        try:
            await connection.serve()
        except (NotRtmp, asyncio.IncompleteReadError, TimeoutError, OSError):
            pass  # this client's connection ends, whatever it was; the others must not notice
        finally:
            connection.end_all()
            writer.transport.abort()
            self._tasks.discard(task)

    def begin(self, name: str, app: str) -> Take:
        """Start the recording of a publish."""
        earlier = self.publishes.setdefault(name, [])
        n = len(earlier) + 1
        # Escaped, so that two names never share a file; a long one is cut, its hash keeps it apart.
        safe = quote(name, safe="")
        if len(safe) > 200:
            safe = f"{safe[:150]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        concurrent = any(other.ended_at is None for other in earlier)
        publish = Publish(name, n, app, f"{safe}.{n}.flv", time.time(), concurrent)
        take = Take(publish, self.root / publish.file)
        earlier.append(publish)
        self._journal.note(publish)
        return take

    def end(self, take: Take) -> None:
        """Close the recording of a publish."""
        take.close()
        self._end(take.publish, time.time())

    def _end(self, publish: Publish, at: float) -> None:
        publish.ended_at = at
        self._journal.note(publish)

    async def _keep_state(self) -> None:
        while True:
            self._journal.keep(self.publishes)
            await asyncio.sleep(_STATE_EVERY_S)


class _Client:
    """One client: its commands answered, its media recorded."""

    def __init__(self, receiver: RtmpReceiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._receiver, self._reader, self._writer = receiver, reader, writer
        self._parser = chunks.Parser(_MOST_BYTES)
        self._takes: dict[int, Take] = {}
        self._app = ""
        self._last_stream = 0
        self._received = self._acknowledged = 0

    async def serve(self) -> None:
        """Serve until the client has gone or misbehaves."""
        async with asyncio.timeout(SILENCE_S):
            version, hello = await self._reader.readexactly(1), await self._reader.readexactly(1536)
            if version != b"\x03":
                raise NotRtmp
            # Eight zeros stand for time and version: they tell the client that the handshake is the simple one.
            self._writer.write(version + bytes(8) + secrets.token_bytes(1528) + hello)
            await self._reader.readexactly(1536)
        while True:
            async with asyncio.timeout(SILENCE_S):
                data = await self._reader.read(_CHUNK_BYTES)
            if not data:
                return
            for message in self._parser.feed(data):
                try:
                    await self._handle(message)
                except (struct.error, LookupError, ValueError) as error:
                    raise NotRtmp from error
            self._received += len(data)
            if self._received - self._acknowledged >= _WINDOW_BYTES:
                self._acknowledged = self._received
                self._send(chunks.ACKNOWLEDGED, struct.pack(">I", self._received & 0xFFFFFFFF))

    def end_all(self) -> None:
        """Close the recordings that the client left open."""
        while self._takes:
            self._receiver.end(self._takes.popitem()[1])

    async def _handle(self, message: chunks.ChunkMessage) -> None:
        kind, body = message.kind, message.body
        if kind in MEDIA_TAGS and message.stream in self._takes:
            self._takes[message.stream].write(kind, message.timestamp, body)
        elif kind == chunks.COMMAND:
            name, transaction, *rest = amf0.decode(body)
            self._command(str(name), transaction, rest, message.stream)
            await self._writer.drain()
        elif kind == chunks.CONTROL and body[:2] == b"\x00\x06":  # ping
            self._send(chunks.CONTROL, b"\x00\x07" + body[2:])

    def _command(self, name: str, transaction: amf0.Value, rest: list[amf0.Value], stream: int) -> None:
        if name == "connect":
            about = rest[0]
            self._app = str(about.get("app", "")) if isinstance(about, dict) else ""
            self._send(chunks.WINDOW, struct.pack(">I", _WINDOW_BYTES))
            self._send(chunks.BANDWIDTH, struct.pack(">IB", _WINDOW_BYTES, 2))
            self._send(chunks.SET_CHUNK, struct.pack(">I", _CHUNK_BYTES))
            self._reply("_result", transaction, {"capabilities": 31}, _status("NetConnection.Connect.Success"))
        elif name == "createStream":
            self._last_stream += 1
            self._reply("_result", transaction, None, self._last_stream)
        elif name in ("releaseStream", "FCPublish"):
            self._reply("_result", transaction, None, None)
        elif name == "publish":
            self._stop(stream)
            published = str(rest[1]).partition("?")[0]
            self._takes[stream] = self._receiver.begin(published, self._app)
            self._reply("onStatus", 0, None, _status("NetStream.Publish.Start"), stream=stream)
        elif name in ("deleteStream", "closeStream"):
            self._stop(int(str(rest[1]).partition(".")[0]) if name == "deleteStream" else stream)

    def _stop(self, stream: int) -> None:
        if take := self._takes.pop(stream, None):
            self._receiver.end(take)

    def _reply(self, *values: amf0.Value, stream: int = 0) -> None:
        self._send(chunks.COMMAND, amf0.encode(*values), stream)

    def _send(self, kind: int, body: bytes, stream: int = 0) -> None:
        self._writer.write(chunks.compose(kind, 0, stream, body, chunk_stream=3, chunk_bytes=_CHUNK_BYTES))


def _status(code: str) -> dict[str, amf0.Value]:
    return {"level": "status", "code": code, "description": code}


def main() -> None:
    """Receive until SIGTERM; `read_publishes` tells what came, even after SIGKILL."""
    parser = argparse.ArgumentParser(prog="python -m town.rtmp", description=main.__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the folder of the recordings")
    parser.add_argument("--port", type=int, help="a port of 127.0.0.1 (a free one by default)")
    parser.add_argument("--at", type=float, default=0.0, help="listen then (epoch seconds)")
    arguments = parser.parse_args()
    time.sleep(max(0.0, arguments.at - time.time()))
    RtmpReceiver(arguments.root, arguments.port).run()


if __name__ == "__main__":
    main()
