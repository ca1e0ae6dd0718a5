"""An answer of an HTTP server, byte for byte, with its pauses and its end."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

End = Literal["close", "reset", "hold"]
HOLD_S = 4.0
"""A connection that is held is closed after so long."""

ENDLESS_BYTES = 8 * 1024**2


@dataclass(frozen=True)
class Answer:
    """What is sent: *head* as it stands, then *body* piece by piece, where a number is a pause in seconds."""

    kind: str
    head: bytes
    body: tuple[bytes | float, ...] = ()
    end: End = "close"
    endless: bool = False
    to_head: bool = False  # the body is sent to a HEAD, too


@dataclass
class Head:
    """A head on its way; a status line, and headers that may come twice."""

    status: bytes = b"HTTP/1.1 200 OK"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def add(self, name: str, value: str | bytes | int) -> "Head":
        """Add a header."""
        text = value if isinstance(value, bytes) else str(value).encode("latin-1", "replace")
        self.headers.append((name.encode(), text))
        return self

    def raw(self) -> bytes:
        """As it is sent."""
        return b"\r\n".join([self.status, *(name + b": " + value for name, value in self.headers), b"", b""])


@dataclass(frozen=True)
class Draw:
    """One drawing: its chance, and a recording to spoil."""

    chance: random.Random
    recording: bytes

    def whole(self) -> Head:
        """A head without fault."""
        head = Head().add("Content-Type", "video/x-flv").add("Content-Length", len(self.recording))
        return head.add("ETag", f'"{self.chance.randrange(10**9)}"').add("Accept-Ranges", "bytes")


def pieces(answer: Answer) -> Iterator[bytes | float]:
    """The body as it is sent, which ends also where it is endless."""
    yield from answer.body
    sent = sum(len(one) for one in answer.body if isinstance(one, bytes))
    while answer.endless and sent < ENDLESS_BYTES:
        for one in answer.body:
            yield one
            sent += len(one) if isinstance(one, bytes) else 0
