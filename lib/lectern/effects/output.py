"""Reads what programs print: keeps the end of it, and hands lines on."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from lectern.playout.sanitize import cleaned
from lectern.shown import masked

KEPT_BYTES = 8192
"""Number of bytes that are kept of the end of each output."""

CHUNK_BYTES = 65536

OnLine = Callable[[str], bool | None]
"""Called with each line; a line for which it returns False does not count as progress."""


@dataclass
class Tail:
    """The last 8 KiB of what a program printed."""

    kept: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Keep the end of *data*."""
        self.kept += data[-KEPT_BYTES:]
        del self.kept[:-KEPT_BYTES]

    @property
    def text(self) -> str:
        """What is kept, as text."""
        return self.kept.decode(errors="replace")


@dataclass
class Lines:
    """Cuts bytes into lines at newlines and carriage returns, hands them on, and remembers the last progress."""

    on_line: OnLine | None
    progressed_at: float = field(default_factory=time.monotonic)
    rest: bytes = b""

    def add(self, data: bytes) -> None:
        """Hand on the lines that *data* completes; a line without an end is cut at 64 KiB."""
        *whole, self.rest = re.split(rb"[\r\n]+", self.rest + data)
        if len(self.rest) > CHUNK_BYTES:
            whole, self.rest = [*whole, self.rest], b""
        for line in whole:
            self._hand_on(line)

    def end(self) -> None:
        """Hand on what is left at the end of the stream."""
        self._hand_on(self.rest)
        self.rest = b""

    def _hand_on(self, line: bytes) -> None:
        if line and (self.on_line is None or self.on_line(line.decode(errors="replace")) is not False):
            self.progressed_at = time.monotonic()


def last_line(text: str) -> str:
    """The last line of *text* that is not blank, cleaned, with secrets in URLs masked, which programs print, too."""
    return cleaned(masked(next((line for line in reversed(re.split(r"[\r\n]+", text)) if line.strip()), "")))


async def drain(stream: asyncio.StreamReader | None, tail: Tail, lines: Lines | None) -> None:
    """Read what a program prints to its end."""
    assert stream is not None  # both were asked for as pipes
    while data := await stream.read(CHUNK_BYTES):
        tail.add(data)
        if lines is not None:
            lines.add(data)
    if lines is not None:
        lines.end()


async def feed(pipe: asyncio.StreamWriter | None, given: Awaitable[bytes], lines: Lines) -> None:
    """Hand a program its input, and close it."""
    assert pipe is not None  # it was asked for
    try:
        data = await given
        lines.progressed_at = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended without reading: its exit code says how
            pipe.write(data)
            await pipe.drain()
    finally:
        pipe.close()
