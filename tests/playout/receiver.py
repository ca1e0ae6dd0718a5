"""An RTMP server that reads chunks by the letter of the protocol, keeps all that comes, and has faults on request."""

import base64
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from lectern.playout.rtmp import amf0
from tests.waiting import wait_until

HOST = "127.0.0.1"


class Arrived(NamedTuple):
    """A message and when its last byte came, by time.monotonic."""

    at: float
    kind: int
    timestamp: int
    body: bytes


@dataclass
class Session:
    """One connection, as far as it came."""

    connection: socket.socket
    connect: dict[str, Any] = field(default_factory=dict)
    published: str | None = None
    commands: list[str] = field(default_factory=list)
    media: list[Arrived] = field(default_factory=list)
    ping_numbers: list[int] = field(default_factory=list)
    pong_numbers: list[int] = field(default_factory=list)
    bytes_in: int = 0
    ended: str | None = None

    @property
    def stream(self) -> str | None:
        """The stream's name, without its query."""
        return None if self.published is None else self.published.partition("?")[0]

    def cut(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()

    def packets(self) -> list[tuple[int, int, bytes]]:
        """Kind, time and body of each sound and picture."""
        return [(one.kind, one.timestamp, one.body) for one in self.media if one.kind in (8, 9)]


def sounds(session: Session) -> list[Arrived]:
    return [one for one in session.media if one.kind == 8 and len(one.body) > 4]


class Receiver:
    """Listens on a free port of loopback; a thread for each connection."""

    def __init__(self, *, port: int = 0, tls: Any = None) -> None:  # an ssl.SSLContext
        self._listener = socket.create_server((HOST, port), backlog=1024)
        self.port = self._listener.getsockname()[1]
        self.tls = tls
        self.sessions: list[Session] = []
        self.refuse_publish: str | None = None
        self.close_after_start = False
        self.login: tuple[str, str, str] | None = None
        """The method (adobe or llnw), user and password without which it lets nobody in."""
        self.closes_after_refusal = False
        self.ping_every_s: float | None = None
        self.window = 2_500_000
        self.frozen = threading.Event()
        self._over = False

    def url(self, name: str) -> str:
        return f"rtmp://{HOST}:{self.port}/live/{name}"

    def of(self, name: str) -> list[Session]:
        """The sessions that published the stream *name*."""
        return [one for one in self.sessions if one.stream == name]

    def session(self, name: str, number: int = 1, has: Callable[[Session], Any] = Session.packets) -> Session:
        """The session of that *number* of the stream *name*, once it *has* something."""
        at = slice(number - 1, number)
        (found,) = wait_until(lambda: [*filter(has, self.of(name)[at])], description=f"session {number} of {name}")
        return found

    def small_buffer(self, size: int) -> None:
        """Connections from now on take little before they push back."""
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for session in self.sessions:
            with suppress(OSError):
                session.connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._over:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        session = Session(connection)
        self.sessions.append(session)
        try:
            if self.tls is not None:
                connection = session.connection = self.tls.wrap_socket(connection, server_side=True)
            _Conversation(self, session).run()
            session.ended = "eof"
        except EOFError:
            session.ended = "eof"
        except (OSError, AssertionError, ValueError) as error:
            session.ended = repr(error)
        finally:
            with suppress(OSError):
                session.connection.close()


class _Conversation:
    def __init__(self, receiver: Receiver, session: Session) -> None:
        self._receiver, self._session = receiver, session
        self._chunk_bytes = 128
        self._streams: dict[int, dict[str, Any]] = {}
        self._pinged_at = time.monotonic()

    def run(self) -> None:
        first = self._read(1537)
        assert first[:1] == b"\x03"
        self._write(b"\x03" + bytes(1536) + first[1:])
        assert self._read(1536) == bytes(1536)
        for message in self._messages():
            if not self._handle(*message):
                return

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        while True:
            try:
                (first,) = self._read(1)
            except EOFError:
                return
            number, form = first & 63, first >> 6
            assert 2 <= number <= 63
            known = self._streams.setdefault(number, {"body": b""})
            assert form == (3 if known["body"] else 0), f"a header of form {form}"
            if form == 0:
                head = self._read(11)
                known["time"], known["size"] = int.from_bytes(head[:3]), int.from_bytes(head[3:6])
                known["kind"], known["stream"] = head[6], int.from_bytes(head[7:], "little")
                known["extended"] = known["time"] == 0xFFFFFF
            if known["extended"]:
                said = int.from_bytes(self._read(4))
                assert said == known["time"] if form else said >= 0xFFFFFF
                known["time"] = said
            known["body"] += self._read(min(self._chunk_bytes, known["size"] - len(known["body"])))
            if len(known["body"]) == known["size"]:
                body, known["body"] = known["body"], b""
                yield known["kind"], known["time"], known["stream"], body

    def _handle(self, kind: int, timestamp: int, stream: int, body: bytes) -> bool:
        session = self._session
        if kind in (8, 9, 18):
            assert stream == 1
            session.media.append(Arrived(time.monotonic(), kind, timestamp, body))
            every = self._receiver.ping_every_s
            if every and time.monotonic() - self._pinged_at > every:
                self._pinged_at = time.monotonic()
                session.ping_numbers.append(len(session.media))
                self._send(4, b"\0\x06" + struct.pack(">I", len(session.media)))
        elif kind == 1:
            self._chunk_bytes = int.from_bytes(body, "big")
        elif kind == 4 and body[:2] == b"\0\x07":
            session.pong_numbers.append(int.from_bytes(body[2:], "big"))
        elif kind == 20:
            name, number, *rest = amf0.decode(body)
            session.commands.append(str(name))
            return self._command(str(name), number, rest)
        return True

    def _command(self, name: str, number: amf0.Value, rest: list[amf0.Value]) -> bool:
        if name == "connect":
            self._session.connect = dict(rest[0])  # type: ignore[arg-type]
            self._send(5, struct.pack(">I", self._receiver.window))
            self._send(6, struct.pack(">IB", self._receiver.window, 2))
            self._send(1, struct.pack(">I", 4096))
            if self._receiver.login and (refusal := refused(str(self._session.connect["app"]), *self._receiver.login)):
                why = {"level": "error", "code": "NetConnection.Connect.Rejected", "description": refusal}
                self._reply("_error", number, None, why)
                return not self._receiver.closes_after_refusal
            self._reply("_result", number, {"fmsVer": "x"}, {"code": "NetConnection.Connect.Success"})
        elif name == "createStream":
            self._reply("_result", number, None, 1)
        elif name == "publish":
            if self._receiver.refuse_publish:
                why = {"level": "error", "code": "NetStream.Publish.BadName", "description": "taken"}
                self._reply("onStatus", 0, None, {**why, "description": self._receiver.refuse_publish})
                return False
            self._session.published = str(rest[1])
            self._reply("onStatus", 0, None, {"level": "status", "code": "NetStream.Publish.Start"})
            return not self._receiver.close_after_start
        return True

    def _reply(self, *values: amf0.Value) -> None:
        self._send(20, amf0.encode(*values))

    def _send(self, kind: int, body: bytes) -> None:
        head = b"\x03" + bytes(3) + len(body).to_bytes(3, "big") + bytes([kind]) + bytes(4)
        self._write(head + body)

    def _write(self, data: bytes) -> None:
        self._session.connection.sendall(data)

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            while self._receiver.frozen.is_set():
                time.sleep(0.01)
            part = self._session.connection.recv(min(size, 65_536))
            if not part:
                raise EOFError
            self._session.bytes_in += len(part)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def refused(app: str, method: str, user: str, password: str) -> str | None:
    """How Adobe's and Limelight's servers refuse an app without the right login; None if they let it in."""
    place, _, query = app.partition("?")
    said = dict(one.partition("=")[::2] for one in query.split("&"))
    head = f"[ AccessManager.Reject ] : [ authmod={method} ] : "
    if said.get("user") is None:
        return f"[ AccessManager.Reject ] : [ code=403 need auth; authmod={method} ] : "
    if said["user"] != user:
        return f"{head}?reason=nosuchuser&user={said['user']}"
    if "response" not in said:
        return f"{head}?reason=needauth&user={user}&salt=c2FsdA==&challenge=Y2g=&opaque=b3A=&nonce=bm9uY2U="

    def hashed(text: str) -> str:
        found = hashlib.md5(text.encode())
        return base64.b64encode(found.digest()).decode() if method == "adobe" else found.hexdigest()

    if method == "adobe":
        right = hashed(f"{hashed(f'{user}c2FsdA=={password}')}b3A={said['challenge']}")
    else:
        way = hashed(f"publish:/{place}{'' if '/' in place else '/_definst_'}")
        right = hashed(f"{hashed(f'{user}:live:{password}')}:bm9uY2U=:{said['nc']}:{said['cnonce']}:auth:{way}")
    return None if said["response"] == right else f"{head}?reason=authfailed&user={user}"
