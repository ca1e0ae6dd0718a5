"""Small FLV files without pictures that a decoder would take: a chain of tags, a second each."""

from pathlib import Path

HEADER = b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00"


def write(path: Path, seconds: int, body: bytes = b"\x17\x01\x00\x00\x00" + b"x" * 95) -> Path:
    """A file of *seconds* + 1 tags, of which the last one begins at *seconds*."""
    data = HEADER
    for second in range(seconds + 1):
        stamp = (second * 1000).to_bytes(4)
        tag = b"\x09" + len(body).to_bytes(3) + stamp[1:] + stamp[:1] + b"\x00\x00\x00" + body
        data += tag + len(tag).to_bytes(4)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def size(seconds: int) -> int:
    return len(HEADER) + (seconds + 1) * (11 + 100 + 4)
