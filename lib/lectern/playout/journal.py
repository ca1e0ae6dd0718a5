"""The journal of one session: what is about to be sent, so that the next worker can send the rest if this one dies.

A batch is written into the slot that does not hold the last batch, its body first, then its mark; only then it is sent.
The kernel knows how many bytes of the session were ever sent, and so how many of the batch: the worker may die at any
instruction. Notes hold what changes seldom, in two slots of their own.
"""

import json
import os
import struct
import zlib
from typing import Any, NamedTuple

from lectern.playout import kernel

VERSION = 1
"""Version of the format; a worker that finds another version begins a new session."""

_REGION = 1 << 26
"""Distance of the slots in the file, which has holes: only what is written takes memory."""
_HEAD = struct.Struct("=IQI")
"""Checksum of what follows, a number that grows with each write, size of the body."""
_MARK = struct.Struct("=QIBIQqq?qqQd")


class Mark(NamedTuple):
    """A batch, and the state of its sender after it.

    It begins at *offset* in the session's bytes and has *size* bytes. *source* to *wrap* are those of Track.place().
    Its last message is at *last_ms*. Up to its end, *paid* of all bytes that were ever owed to the server are sent.
    *sent_at* is by time.monotonic.
    """

    offset: int
    size: int
    source: int
    file: int
    place: int
    shift_ms: int
    from_ms: int
    awaits_key: bool
    wrap: int
    last_ms: int
    paid: int
    sent_at: float


class Journal:
    """Four slots in a file in memory; the next worker opens it by its descriptor."""

    def __init__(self, file: int | None = None) -> None:
        self.file = kernel.memory_file("lectern-journal") if file is None else file
        self._numbers = [0, 0]

    def write(self, mark: Mark, body: bytes) -> None:
        """Write down a batch that is about to be sent."""
        slot = self._next(0)
        os.pwrite(self.file, body, (2 + slot) * _REGION)
        self._head(slot * _REGION, 0, _MARK.pack(*mark))

    def note(self, notes: dict[str, Any]) -> None:
        """Record what changes seldom; `taken` is the number of the server's bytes that the notes take into account."""
        text = json.dumps({**notes, "version": VERSION}).encode()
        self._head((4 + self._next(1)) * _REGION, 1, text)

    def last(self) -> tuple[Mark, bytes] | None:
        """The last batch that was written whole, with its mark; None if there is none."""
        found = [self._read(slot * _REGION) for slot in (0, 1)]
        number, packed = max(found)
        if not number:
            return None
        self._numbers[0] = number
        mark = Mark(*_MARK.unpack(packed))
        return mark, os.pread(self.file, mark.size, (2 + number % 2) * _REGION)

    def notes(self, taken: int) -> dict[str, Any] | None:
        """The last notes for *taken* bytes read from the server, in this version; None if there are none."""
        for number, text in sorted((self._read((4 + slot) * _REGION) for slot in (0, 1)), reverse=True):
            if number:
                self._numbers[1] = max(self._numbers[1], number)
                notes: dict[str, Any] = json.loads(text)
                if notes.get("version") == VERSION and notes.get("taken") == taken:
                    return notes
        return None

    def close(self) -> None:
        """Close the file; its memory is freed once no other process has it open."""
        os.close(self.file)

    def _next(self, kind: int) -> int:
        self._numbers[kind] += 1
        return self._numbers[kind] % 2

    def _head(self, at: int, kind: int, data: bytes) -> None:
        rest = _HEAD.pack(0, self._numbers[kind], len(data))[4:] + data
        os.pwrite(self.file, struct.pack("=I", zlib.crc32(rest)) + rest, at)

    def _read(self, at: int) -> tuple[int, bytes]:
        """Number and data of the slot at *at*; number 0 if it holds nothing whole."""
        head = os.pread(self.file, _HEAD.size, at)
        if len(head) < _HEAD.size:
            return 0, b""
        checksum, number, size = _HEAD.unpack(head)
        data = os.pread(self.file, min(size, _REGION), at + _HEAD.size)
        return (number, data) if zlib.crc32(head[4:] + data) == checksum else (0, b"")
