"""An FLV file that a thread reads ahead, so that a hanging disk stops no other class."""

import os
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lectern.playout import flv, keyframe_index
from lectern.playout.flv import PICTURE, SCRIPT, SOUND, NotAirable
from lectern.playout.sentences import sentence

BLOCK_BYTES = 96 * 1024

Identity = tuple[int, int, int, int]
"""Device, inode, size and time of change: another file under the same name has others."""


@dataclass(frozen=True)
class Position:
    """Where to begin: at the beginning, or at the keyframe before or after a position, or at a byte.

    The byte *place* is valid only in the file with the fingerprint *file*; in any other file the position is used.
    """

    clock_ms: float | None = None
    after_ms: float | None = None
    place: int | None = None
    file: int = 0
    wrap: int = 0
    headers: Mapping[int, int] | None = None


@dataclass
class Opened:
    """A file, the place to begin in it, and what must be known of the tags before that."""

    file: int
    identity: Identity
    first: int
    place: int
    begins_ms: int
    wrap: int
    metadata: bytes | None
    headers: dict[int, tuple[int, bytes]]
    data: bytes
    is_elsewhere: bool


def fingerprint(identity: Identity) -> int:
    """A number that identifies a file."""
    return zlib.crc32(repr(identity).encode())


def open_at(path: Path, at: Position, unless: Identity | None) -> Opened:
    """Open a file and read at its place to begin; raises NotAirable, OSError. Runs in a thread."""
    file = os.open(path, os.O_RDONLY)
    with ExitStack() as failed:
        failed.callback(os.close, file)
        state = os.fstat(file)
        identity = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if identity == unless:
            raise NotAirable(sentence("it is as broken as before"))
        flv.check_head(os.pread(file, flv.HEAD_BYTES, 0))
        first, metadata = beginning(file)
        place, begins_ms, wrap, headers = flv.HEAD_BYTES, 0, first, {}
        is_elsewhere = at.place is not None and at.file != fingerprint(identity)
        if at.place is not None and not is_elsewhere:
            place, wrap, headers = at.place, at.wrap, dict(at.headers or {})
        elif at.clock_ms is not None or at.after_ms is not None:
            index_path = keyframe_index.path_of(path)
            records = keyframe_index.read(index_path, state.st_size) or keyframe_index.look(path).records
            record = keyframe_index.keyframe(records, at.after_ms, after=True) if at.after_ms is not None else None
            record = record or keyframe_index.keyframe(records, at.clock_ms or at.after_ms or 0.0)
            if record is not None:
                place, begins_ms, wrap = record.offset, record.time_ms, first + record.time_ms
                headers = keyframe_index.headers(records, place)
        bodies = {kind: (offset, _body(file, offset)) for kind, offset in headers.items()}
        data = os.pread(file, BLOCK_BYTES, place)
        failed.pop_all()
    return Opened(file, identity, first, place, begins_ms, wrap, metadata, bodies, data, is_elsewhere)


def beginning(file: int) -> tuple[int, bytes | None]:
    """The time of the first sound or picture in ms, and the metadata before it; the time of a header may be any."""
    at, metadata = flv.HEAD_BYTES, None
    while (head := flv.tag_head(os.pread(file, flv.TAG_HEAD_BYTES, at), 0)) is not None:
        body_at = at + flv.TAG_HEAD_BYTES
        if head.kind == SCRIPT:
            if metadata is None:  # it may be larger than all else: some programs put an index into it
                metadata = flv.metadata(os.pread(file, head.size, body_at))
        elif head.size and not flv.is_header(head.kind, os.pread(file, min(head.size, flv.LOOK_BYTES), body_at)):
            return flv.Unwrap()(head.timestamp), metadata
        at += head.whole
    return 0, metadata


def _body(file: int, offset: int) -> bytes:
    head = flv.tag_head(os.pread(file, flv.TAG_HEAD_BYTES, offset), 0)
    if head is None or head.kind not in (SOUND, PICTURE):
        raise NotAirable(sentence("the index does not fit the recording"))
    return os.pread(file, head.size, offset + flv.TAG_HEAD_BYTES)


MAX_BLOCK_BYTES = 4 * 1024 * 1024
SKIPPED_TAGS = 500
"""Greatest number of tags without pictures or sound that are passed over at once: the other classes have their turn."""
STALL_S = 1.0
"""Seconds after which a read counts as stalled."""

MISSING = sentence("is missing")
STALLED = sentence("is not opened in time: the disk is slow, or hangs")


class Tag(NamedTuple):
    """A sound, picture or header: *time_ms* from the first sound or picture, of a header that of the tag before it.

    *begins* and *ends* are offsets in the file.
    """

    kind: int
    time_ms: int
    body: bytes
    is_header: bool
    begins: int
    ends: int


class Demuxer:
    """Gives a file's tags in their order; `fault` says what is wrong with it, as "is missing". Nothing here waits."""

    def __init__(self, path: Path, pool: Executor, at: Position, unless: Identity | None = None) -> None:
        self.fault: str | None = None
        self.ended = False
        self.headers = {kind: (begins, b"") for kind, begins in (at.headers or {}).items()}
        """The headers in force, by their kinds: their offsets, and their bytes once the file is open."""
        self.metadata: bytes | None = None
        self.identity: Identity | None = None
        self.fingerprint = at.file
        """A number that identifies the file; until it is open, the file in which the worker before was."""
        self.place = at.place or 0
        self.begins_ms = self.first = 0
        self.is_elsewhere = False
        """Whether the byte to begin at was of another file."""
        self.last_ms = 0
        self.has_begun = at.place is not None
        """Whether tags before the next one were taken, by this process or the one before."""
        self.knows_headers = at.place is None or at.headers is not None
        """Whether `headers` holds those in force."""
        self._pool = pool
        self._file = -1
        self._since = time.monotonic()
        self._opening: Future[Opened] | None = pool.submit(open_at, path, at, unless)
        self._reading: Future[bytes] | None = None
        self._data, self._cursor, self._end_known = b"", 0, False
        self._block_bytes, self._asked_at = BLOCK_BYTES, 0.0
        self._unwrap = flv.Unwrap(at.wrap)
        self._next: Tag | None = None

    @property
    def is_open(self) -> bool:
        """Whether `ready` has found it open, or at fault."""
        return self._opening is None

    def ready(self) -> bool:
        """Whether the file is open; `fault` otherwise says why it never will be."""
        if self._opening is None:
            return self.fault is None
        if not self._opening.done():
            return False
        opening, self._opening = self._opening, None
        try:
            opened = opening.result()
        except FileNotFoundError:
            self.fault = MISSING
        except (NotAirable, OSError) as error:
            self.fault = _words(error)
        else:
            self._file, self.identity, self.first, self.place = opened.file, opened.identity, opened.first, opened.place
            self.fingerprint = fingerprint(opened.identity)
            self.begins_ms, self.metadata, self.headers = opened.begins_ms, opened.metadata, opened.headers
            self.is_elsewhere = opened.is_elsewhere
            self.knows_headers = self.knows_headers or opened.is_elsewhere
            self._data, self._unwrap = opened.data, flv.Unwrap(opened.wrap)
        return self.fault is None

    def stalled(self, now: float) -> bool:
        """Whether opening or reading takes too long, and nothing is left that was read."""
        waits = self._opening is not None or (self._reading is not None and not self._reading.done())
        return waits and self._next is None and now - self._since > STALL_S

    @property
    def wrap(self) -> int:
        """The unwrapped timestamp of the last tag read, in milliseconds."""
        return self._unwrap.last

    def peek(self) -> Tag | None:
        """The next tag; None while it is being read, at the end, and if the file is at fault."""
        if self._next is None:
            self._parse()
        return self._next

    def _parse(self) -> None:
        for _ in range(SKIPPED_TAGS):
            if self._next is not None or not self.ready() or self.ended or self.fault:
                break
            self._collect()
            begins = self._cursor
            head = flv.tag_head(self._data, begins)
            if head is None and len(self._data) >= begins + flv.TAG_HEAD_BYTES:
                self.fault = broken(self.place)
                break
            whole = head.whole if head else flv.TAG_HEAD_BYTES
            if len(self._data) < begins + whole and not self._end_known:
                self._read(whole)
                break
            if head is None or len(self._data) < begins + whole - flv.TAIL_BYTES:
                self.ended = True
                break
            self._take(head, begins)

    def advance(self) -> None:
        """Go on to the tag after the next, which the caller has taken."""
        tag = self._next
        assert tag is not None
        self._next, self.place, self.last_ms, self.has_begun = None, tag.ends, tag.time_ms, True
        if tag.is_header:
            self.headers[tag.kind] = tag.begins, tag.body

    def rewind(self) -> None:
        """Go back to the file's beginning."""
        self._next, self._data, self._cursor, self._end_known, self.ended = None, b"", 0, False, False
        self.place, self._unwrap, self._reading = flv.HEAD_BYTES, flv.Unwrap(self.first), None

    def close(self) -> None:
        """Close the file, after a read that is under way."""
        last, file = self._opening or self._reading, self._file

        def close(done: "Future[Opened] | Future[bytes] | None" = None) -> None:
            is_open = done is not None and not done.cancelled() and done.exception() is None
            opened = done.result() if done is not None and is_open else None
            descriptor = opened.file if isinstance(opened, Opened) else file
            if descriptor >= 0:
                os.close(descriptor)

        if last is None:
            close()
        else:
            last.add_done_callback(close)
        self._file, self.fault = -1, self.fault or "closed"

    def _take(self, head: flv.TagHead, begins: int) -> None:
        body_at = begins + flv.TAG_HEAD_BYTES
        tail_at = body_at + head.size
        body = self._data[body_at:tail_at]
        repeated = int.from_bytes(self._data[tail_at : tail_at + flv.TAIL_BYTES], "big")
        if repeated not in (0, flv.TAG_HEAD_BYTES + head.size) and len(self._data) >= begins + head.whole:
            self.fault = broken(self.place)
            return
        self._cursor += head.whole
        if head.kind == SCRIPT or not head.size:
            self.place += head.whole
        else:
            is_header = flv.is_header(head.kind, body)  # many programs write 0 for its time, wherever it is
            time_ms = (self._unwrap.last if is_header else self._unwrap(head.timestamp)) - self.first
            self._next = Tag(head.kind, time_ms, body, is_header, self.place, self.place + head.whole)
        if len(self._data) - self._cursor < self._block_bytes // 2 and not self._end_known:
            self._read(self._block_bytes)

    def _read(self, wanted: int) -> None:
        """Let a thread read at least *wanted* bytes more; larger blocks if they are used up fast."""
        if self._reading is not None:
            return
        now = time.monotonic()
        if now - self._asked_at < 0.5:
            self._block_bytes = min(2 * self._block_bytes, MAX_BLOCK_BYTES)
        self._asked_at = self._since = now
        cursor_at = self._next.ends if self._next is not None else self.place
        at = cursor_at + len(self._data) - self._cursor
        self._reading = self._pool.submit(os.pread, self._file, max(wanted, self._block_bytes), at)

    def _collect(self) -> None:
        if self._reading is None or not self._reading.done():
            return
        reading, self._reading = self._reading, None
        try:
            more = reading.result()
        except OSError as error:
            self.fault = _words(error)
            return
        self._end_known = not more
        self._data, self._cursor = self._data[self._cursor :] + more, 0


def broken(place: int) -> str:
    """What is wrong with a file whose tags cannot be read from byte *place* on."""
    return sentence("is broken: it cannot be read from byte {place} on", place=place)


def _words(error: Exception) -> str:
    if isinstance(error, NotAirable):
        return sentence("cannot be aired: {why}", why=error)
    return sentence("cannot be read: {why}", why=getattr(error, "strerror", None) or error)
