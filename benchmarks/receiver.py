"""An RTMP receiver in a process of its own, which writes down when each sound and picture came, and its checksum."""

import multiprocessing
import selectors
import socket
import struct
import time
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self

from lectern.playout.rtmp import NotRtmp, amf0, chunks
from town.ports import HOST

_HELLO_BYTES = 1537
_WINDOW_BYTES = 2_500_000
LARGEST_MESSAGE = 1 << 26


class Packet(NamedTuple):
    """A sound or a picture, or a header of theirs; its time is the session's, in milliseconds."""

    kind: int
    timestamp: int
    checksum: int


@dataclass
class Session:
    """What one connection brought; times are those of time.monotonic."""

    name: str = ""
    at: "array[float]" = field(default_factory=lambda: array("d"))
    numbers: "array[int]" = field(default_factory=lambda: array("I"))  # three a packet
    is_over: bool = False

    @property
    def packets(self) -> list[Packet]:
        """All that came, in its order."""
        flat = self.numbers
        return [Packet(*flat[at : at + 3]) for at in range(0, len(flat), 3)]


class Receiver:
    """Takes what is pushed, whatever it is; `of` tells what came."""

    def __init__(self, serve: "Callable[[Connection], None] | None" = None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve or _serve, args=(theirs,), daemon=True)
        self._process.start()
        self.port: int = self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def url(self, name: str) -> str:
        """Where the stream *name* is pushed to."""
        return f"rtmp://{HOST}:{self.port}/live/{name}"

    def counts(self) -> dict[str, list[int]]:
        """How many packets each session of a stream has brought, which is cheap to ask."""
        return dict(self.ask("counts"))

    def of(self, name: str) -> list[Session]:
        """The sessions of a stream that have brought a packet."""
        return list(self.ask("of", name))

    def cut(self, name: str) -> None:
        """Reset the connection that pushes the stream *name*."""
        self.ask("cut", name)

    def ask(self, *what: str) -> Any:
        """What its process answers."""
        self._pipe.send(what)
        assert self._pipe.poll(60), "the receiver does not answer"
        return self._pipe.recv()


class Publisher:
    """One connection: its handshake, commands and packets."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.session = connection, Session()
        self._parser, self._shaken, self._hello = chunks.Parser(LARGEST_MESSAGE), 0, b""
        self._received = self._acknowledged = 0

    def take(self, data: bytes, at: float) -> None:
        """Take what came at a time."""
        if self._shaken < 2:
            data = self._shake(data)
        self._received += len(data)
        for message in self._parser.feed(data):
            if message.kind in (chunks.SOUND, chunks.PICTURE):
                self.session.at.append(at)
                self.session.numbers.extend((message.kind, message.timestamp, zlib.crc32(message.body)))
            elif message.kind == chunks.COMMAND:
                self._command(*amf0.decode(message.body))
        if self._received - self._acknowledged > _WINDOW_BYTES // 2:
            self._acknowledged = self._received
            self._send(chunks.ACKNOWLEDGED, struct.pack(">I", self._received & 0xFFFFFFFF))

    def _shake(self, data: bytes) -> bytes:
        """Do the next step of the handshake; returns what came after it."""
        self._hello += data
        while self._shaken < 2 and len(self._hello) >= (wanted := _HELLO_BYTES - self._shaken):
            hello, self._hello = self._hello[:wanted], self._hello[wanted:]
            if not self._shaken:
                self.connection.sendall(b"\x03" + bytes(_HELLO_BYTES - 1) + hello[1:])
            self._shaken += 1
        return self._hello if self._shaken == 2 else b""

    def _command(self, name: Any, number: Any, *rest: Any) -> None:
        if name == "connect":
            self._send(chunks.WINDOW, struct.pack(">I", _WINDOW_BYTES))
            self._send(chunks.BANDWIDTH, struct.pack(">IB", _WINDOW_BYTES, 2))
            self._reply("_result", number, {"fmsVer": "FMS/3,0"}, {"code": "NetConnection.Connect.Success"})
        elif name == "createStream":
            self._reply("_result", number, None, 1)
        elif name == "publish":
            self.session.name = str(rest[1]).partition("?")[0]
            self._reply("onStatus", 0, None, {"level": "status", "code": "NetStream.Publish.Start"})

    def _reply(self, *values: Any) -> None:
        self._send(chunks.COMMAND, amf0.encode(*values))

    def _send(self, kind: int, body: bytes) -> None:
        self.connection.sendall(chunks.compose(kind, 0, 0, body, chunk_stream=3, chunk_bytes=128))


def _serve(pipe: Connection) -> None:
    publishers: list[Publisher] = []
    with selectors.DefaultSelector() as selector, socket.create_server((HOST, 0), backlog=1024) as listener:
        pipe.send(listener.getsockname()[1])
        selector.register(listener, selectors.EVENT_READ)
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    publishers.append(Publisher(connection))
                    selector.register(connection, selectors.EVENT_READ, publishers[-1])
                elif key.fileobj is pipe:
                    pipe.send(answer(publishers, *pipe.recv()))
                elif not _read(key.data):
                    selector.unregister(key.fileobj)
                    key.data.connection.close()
                    key.data.session.is_over = True


def _read(publisher: Publisher) -> bool:
    """Take what has come; False if the connection is over."""
    try:
        data = publisher.connection.recv(1 << 18)
        publisher.take(data, time.monotonic())
    except (OSError, NotRtmp):
        return False
    return bool(data)


def answer(publishers: list[Publisher], what: str, name: str = "") -> object:
    """What a `Receiver` asks of its process."""
    found = [one for one in publishers if one.session.at and name in ("", one.session.name)]
    if what == "counts":
        counts: dict[str, list[int]] = {}
        for one in found:
            counts.setdefault(one.session.name, []).append(len(one.session.at))
        return counts
    if what == "of":
        return [one.session for one in found]
    connection = next(one.connection for one in reversed(found) if not one.session.is_over)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The selector finds the end of the reading half; the close that follows it resets the connection.
    connection.shutdown(socket.SHUT_RD)
    return None
