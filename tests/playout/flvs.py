"""FLV files for the tests: written tag by tag, or made by ffmpeg."""

import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

from lectern.playout.rtmp import amf0
from lectern.playout.timetable import ScheduledClass

AVC_HEADER = b"\x17\x00\x00\x00\x00" + b"\x01\x64\x00\x1f\xff"
AAC_HEADER = b"\xaf\x00\x12\x10"
FILE_HEAD = b"FLV\x01\x05\0\0\0\x09\0\0\0\0"

Tag = tuple[int, int, bytes]
"""Kind, time in milliseconds, body."""


def tag(kind: int, timestamp: int, body: bytes) -> bytes:
    time_bytes = (timestamp & 0xFFFFFF).to_bytes(3, "big") + bytes([timestamp >> 24 & 0xFF])
    data = bytes([kind]) + len(body).to_bytes(3, "big") + time_bytes + bytes(3) + body
    return data + struct.pack(">I", len(data))


def key(number: int, size: int = 3000) -> bytes:
    return b"\x17\x01\0\0\0" + struct.pack(">I", number) * (size // 4)


def picture(number: int, size: int = 600) -> bytes:
    return b"\x27\x01\0\0\0" + struct.pack(">I", number) * (size // 4)


def sound(number: int, size: int = 160) -> bytes:
    return b"\xaf\x01" + struct.pack(">I", number) * (size // 4)


def number(body: bytes) -> int:
    """The number in a picture or a sound."""
    return int.from_bytes(body[-4:], "big")


def lesson(
    seconds: float,
    *,
    keyframe_ms: int = 1000,
    first_ms: int = 0,
    has_picture: bool = True,
    size: int = 600,
    first_number: int = 0,
) -> list[Tag]:
    """25 pictures and 25 sounds a second with numbers in them; a time is its number times 40 ms."""
    tags: list[Tag] = [(8, first_ms, AAC_HEADER)]
    if has_picture:
        tags.insert(0, (9, first_ms, AVC_HEADER))
    for number in range(int(seconds * 25)):
        at = first_ms + number * 40
        if has_picture:
            make, much = (key, size * 5) if number * 40 % keyframe_ms == 0 else (picture, size)
            tags.append((9, at, make(first_number + number, much)))
        tags.append((8, at, sound(first_number + number)))
    return tags


def data(tags: Iterable[Tag]) -> bytes:
    fields = amf0.Named({"width": 640.0, "duration": 9.0, "filesize": 1.0, "encoder": "test"})
    script = amf0.encode("onMetaData", fields)
    return FILE_HEAD + tag(18, 0, script) + b"".join(tag(*one) for one in tags)


def write(path: Path, tags: Iterable[Tag]) -> Path:
    path.write_bytes(data(tags))
    return path


def read(path: Path) -> list[Tag]:
    """The sounds and pictures of a file."""
    content, at, tags = path.read_bytes(), 13, list[Tag]()
    while at < len(content):
        kind, size = content[at], int.from_bytes(content[at + 1 : at + 4], "big")
        time_ms = int.from_bytes(content[at + 4 : at + 7], "big") | content[at + 7] << 24
        if kind != 18:
            tags.append((kind, time_ms, content[at + 11 : at + 11 + size]))
        at += 11 + size + 4
    return tags


def encode(path: Path, *arguments: str) -> Path:
    """Let ffmpeg make an FLV file."""
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments, "-f", "flv", str(path)]
    subprocess.run(argv, check=True, timeout=120)
    return path


def aired_from(path: Path, *, slate: Path | None = None, duration_s: float | None = None) -> ScheduledClass:
    """A class of an hour with the recording at *path*."""
    slate_path = str(slate) if slate is not None else None
    return ScheduledClass("c", str(path), ("rtmp://h/live/c",), 0.0, 3600.0, duration_s, slate_path)
