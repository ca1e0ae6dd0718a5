"""One look at a whole recording: whether it can be aired, and an index of its keyframes to begin in its middle.

The index is a file of records of 16 bytes: kind (1 byte) and time in ms (7 bytes), then offset (8 bytes). The first
record holds a mark and the recording's size, the others are keyframes and headers in the file's order.
"""

import os
import struct
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lectern.playout import flv, kernel
from lectern.playout.flv import PICTURE, SCRIPT, SOUND, NotAirable
from lectern.playout.sentences import sentence

KEYFRAME = 1
"""One kind of record; flv.SOUND and flv.PICTURE are the others: headers of that kind."""
SOUND_EVERY_MS = 2000
"""Milliseconds between the sounds at which a recording without pictures can be begun."""
KEYFRAME_EVERY_MS = 200
"""Milliseconds between two keyframes of the index: a recording may consist of nothing but keyframes."""
MAX_STEP_BACK_MS = 2000
"""Milliseconds by which sound and pictures may be out of order."""
HOLE_MS = 5000
"""Milliseconds without any sound or picture that are a hole: a recorder that was paused leaves one."""
MAX_HOLES = 100
MAX_TAGS_A_SECOND, TAGS_OVER_MS = 1000, 10_000
"""Greatest number of tags a second, on average over that time; a lesson has about 100."""
MAX_RECORDS = 200_000
"""Greatest number of keyframes and headers in an index; at five keyframes a second, those of 11 hours."""

_RECORD = struct.Struct(">QQ")
_MARK = int.from_bytes(b"lectern1", "big")
_TIME_BITS = 56
_READ = flv.TAIL_BYTES + flv.TAG_HEAD_BYTES + flv.LOOK_BYTES


@dataclass(frozen=True)
class Record:
    """A place in a recording: *time_ms* from its beginning, *offset* in bytes."""

    kind: int
    time_ms: int
    offset: int


@dataclass(frozen=True)
class Look:
    """What was found in a recording.

    *broken_at* is the offset from which it cannot be read, None if all of it can. In the *holes*, from one time in
    milliseconds to another, there is neither sound nor picture.
    """

    size_bytes: int
    duration_ms: int
    broken_at: int | None
    records: tuple[Record, ...]
    holes: tuple[tuple[int, int], ...] = ()


def path_of(recording: Path) -> Path:
    """The path of the index of *recording*: beside it."""
    return recording.with_name(recording.name + ".index")


def look(recording: Path) -> Look:
    """Read all heads of *recording*'s tags: about 0.1 s for 45 minutes. Raises NotAirable, OSError.

    A last tag that is cut off is no fault: live recordings end so. Any other tag that cannot be read is `broken_at`.
    """
    with recording.open("rb", buffering=0) as file:
        return _Scan(file.fileno()).look()


def check(seen: Look) -> None:
    """Raise NotAirable if `look` found the recording broken."""
    if seen.broken_at is not None:
        broken = sentence(
            "the file is broken: its tags cannot be read from byte {at} of {size_bytes}, "
            "{at_s:.0f} s from the beginning",
            at=seen.broken_at,
            size_bytes=seen.size_bytes,
            at_s=seen.duration_ms / 1000,
        )
        raise NotAirable(broken)


def write(seen: Look, to: Path) -> None:
    """Write the index file as a whole or not at all."""
    lines = [_RECORD.pack(_MARK, seen.size_bytes)]
    lines += [_RECORD.pack(record.kind << _TIME_BITS | record.time_ms, record.offset) for record in seen.records]
    kernel.replace(to, b"".join(lines), is_synced=False)


def read(path: Path, size_bytes: int) -> tuple[Record, ...] | None:
    """The records of the index at *path*; None if there is none, it is too long, or its recording had another size."""
    with suppress(OSError, struct.error, StopIteration):
        if path.stat().st_size > (1 + MAX_RECORDS) * _RECORD.size:
            return None
        records = _RECORD.iter_unpack(path.read_bytes())
        if next(records) == (_MARK, size_bytes):
            times = (1 << _TIME_BITS) - 1
            return tuple(Record(first >> _TIME_BITS, first & times, offset) for first, offset in records)
    return None


def keyframe(records: tuple[Record, ...], time_ms: float, *, after: bool = False) -> Record | None:
    """The last keyframe at or before *time_ms*, or with *after* the first keyframe after it; None if there is none."""
    keys = [record for record in records if record.kind == KEYFRAME]
    at = bisect_right(keys, time_ms, key=lambda record: record.time_ms)
    if after:
        return keys[at] if at < len(keys) else None
    return keys[at - 1] if at else None


def headers(records: tuple[Record, ...], offset: int) -> dict[int, int]:
    """The offsets of the headers in force at *offset*, by flv.SOUND and flv.PICTURE."""
    return {record.kind: record.offset for record in records if record.kind != KEYFRAME and record.offset < offset}


class _Scan:
    def __init__(self, file: int) -> None:
        self._file = file
        self._size = os.fstat(file).st_size
        self._headers: list[Record] = []
        self._keyframes: list[Record] = []
        self._sounds: list[Record] = []
        self._holes: list[tuple[int, int]] = []
        self._count, self._count_from = 0, 0
        self._known: set[int] = set()
        self._first: int | None = None
        self._last = 0
        self._unwrap = flv.Unwrap()

    def look(self) -> Look:
        flv.check_head(os.pread(self._file, flv.HEAD_BYTES, 0))
        broken_at = self._walk()
        if not self._known:
            raise NotAirable(sentence("the file has neither pictures nor sound"))
        has_picture = PICTURE in self._known
        if has_picture and not self._keyframes:
            raise NotAirable(sentence("the file has pictures, but no keyframe to begin with"))
        keys = self._keyframes if has_picture else self._sounds
        records = tuple(sorted([*self._headers, *keys], key=lambda record: record.offset))
        length_ms = self._last - (self._first or 0)
        if length_ms == 0:
            raise NotAirable(sentence("its times do not go on: all of it is at one moment"))
        return Look(self._size, length_ms, broken_at, records, tuple(self._holes))

    def _walk(self) -> int | None:
        """Examine each tag; returns the offset at which the file is broken, None if it is whole."""
        at, before = flv.HEAD_BYTES, 0
        while at + flv.TAG_HEAD_BYTES <= self._size:
            data = os.pread(self._file, _READ, at - flv.TAIL_BYTES)
            head = flv.tag_head(data, flv.TAIL_BYTES)
            repeated = int.from_bytes(data[: flv.TAIL_BYTES], "big")
            if head is None or (before and repeated not in (before, 0)):
                return at
            if at + flv.TAG_HEAD_BYTES + head.size > self._size:
                return None  # the last tag is cut off
            self._count += 1
            if self._last - self._count_from >= TAGS_OVER_MS:
                self._count, self._count_from = 0, self._last
            elif self._count > MAX_TAGS_A_SECOND * TAGS_OVER_MS // 1000:  # sending them would hold up other classes
                reason = sentence("it has more than {most} tags a second, at byte {at}", most=MAX_TAGS_A_SECOND, at=at)
                raise NotAirable(reason)
            if len(self._headers) + len(self._keyframes) > MAX_RECORDS:
                raise NotAirable(sentence("it has more than {most} keyframes and headers", most=MAX_RECORDS))
            if head.size and head.kind != SCRIPT:
                self._note(head, data[flv.TAIL_BYTES + flv.TAG_HEAD_BYTES :][: head.size], at)
            at, before = at + head.whole, head.whole - flv.TAIL_BYTES
        return None

    def _note(self, head: flv.TagHead, body: bytes, at: int) -> None:
        kind = head.kind
        if fault := flv.codec_fault(kind, body):
            raise NotAirable(fault)
        if flv.is_header(kind, body):  # its time may be any: many programs write 0, wherever it is
            self._headers.append(Record(kind, self._last - (self._first or 0), at))
            return
        time = self._unwrap(head.timestamp)
        if self._first is None:
            self._first = self._last = self._count_from = time
        if time < self._last - MAX_STEP_BACK_MS:
            raise NotAirable(
                sentence("its times go back by {back_s:.1f} s, at byte {at}", back_s=(self._last - time) / 1000, at=at)
            )
        time_ms = max(0, time - self._first)
        if kind not in self._known and flv.needs_header(kind, body) and kind not in {it.kind for it in self._headers}:
            pictures = sentence("the pictures cannot be decoded: the header that must come before is missing")
            sound = sentence("the sound cannot be decoded: the header that must come before is missing")
            raise NotAirable(pictures if kind == PICTURE else sound)
        self._known.add(kind)
        if time - self._last > HOLE_MS and len(self._holes) < MAX_HOLES:
            self._holes.append((self._last - self._first, time_ms))
        self._last = max(self._last, time)
        if flv.is_keyframe(kind, body):
            if self._keyframes and 0 <= time_ms - self._keyframes[-1].time_ms < KEYFRAME_EVERY_MS:
                return
            self._keyframes.append(Record(KEYFRAME, time_ms, at))
        elif kind == SOUND and (not self._sounds or time_ms - self._sounds[-1].time_ms >= SOUND_EVERY_MS):
            self._sounds.append(Record(KEYFRAME, time_ms, at))
