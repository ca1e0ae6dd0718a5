"""Opens an FLV file at the place to begin; runs in a thread, because a disk may hang."""

import os
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lectern.playout import flv, index
from lectern.playout.flv import PICTURE, SCRIPT, SOUND, NotAirable

BLOCK_BYTES = 96 * 1024

Identity = tuple[int, int, int, int]
"""Device, inode, size and time of change: another file under the same name has others."""


@dataclass(frozen=True)
class At:
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


def fingerprint(identity: Identity | None) -> int:
    """A number that identifies a file."""
    return zlib.crc32(repr(identity).encode())


def open_at(path: Path, index_path: Path, at: At, unless: Identity | None) -> Opened:
    """Open a file and read at its place to begin; raises NotAirable, OSError. Runs in a thread."""
    file = os.open(path, os.O_RDONLY)
    with ExitStack() as failed:
        failed.callback(os.close, file)
        state = os.fstat(file)
        identity = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if identity == unless:
            raise NotAirable("it is as broken as before")
        flv.check_head(os.pread(file, flv.HEAD_BYTES, 0))
        first, metadata = _first(file)
        place, begins_ms, wrap, headers = flv.HEAD_BYTES, 0, first, {}
        is_elsewhere = at.place is not None and at.file != fingerprint(identity)
        if at.place is not None and not is_elsewhere:
            place, wrap, headers = at.place, at.wrap, dict(at.headers or {})
        elif at.clock_ms is not None or at.after_ms is not None:
            records = index.read(index_path, state.st_size) or index.look(path).records
            record = index.keyframe(records, at.after_ms, after=True) if at.after_ms is not None else None
            record = record or index.keyframe(records, at.clock_ms or at.after_ms or 0.0)
            if record is not None:
                place, begins_ms, wrap = record.offset, record.time_ms, first + record.time_ms
                headers = index.headers(records, place)
        bodies = {kind: (offset, _body(file, offset)) for kind, offset in headers.items()}
        data = os.pread(file, BLOCK_BYTES, place)
        failed.pop_all()
    return Opened(file, identity, first, place, begins_ms, wrap, metadata, bodies, data, is_elsewhere)


def _first(file: int) -> tuple[int, bytes | None]:
    """The time of the first sound or picture, and the metadata before it; the time of a header may be any."""
    at, metadata = flv.HEAD_BYTES, None
    while (found := _tag_head(file, at)) is not None:
        body_at = at + flv.TAG_HEAD_BYTES
        if found.kind == SCRIPT:
            if metadata is None:  # it may be larger than all else: some programs put an index into it
                metadata = flv.metadata(os.pread(file, found.size, body_at))
        elif found.size and not flv.is_header(found.kind, os.pread(file, min(found.size, flv.LOOK_BYTES), body_at)):
            return flv.Unwrap()(found.timestamp), metadata
        at += found.whole
    return 0, metadata


def _tag_head(file: int, at: int) -> flv.TagHead | None:
    data = os.pread(file, flv.TAG_HEAD_BYTES, at)
    return flv.tag_head(data, 0) if len(data) == flv.TAG_HEAD_BYTES else None


def _body(file: int, offset: int) -> bytes:
    head = _tag_head(file, offset)
    if head is None or head.kind not in (SOUND, PICTURE):
        raise NotAirable("the index does not fit the recording")
    return os.pread(file, head.size, offset + flv.TAG_HEAD_BYTES)
