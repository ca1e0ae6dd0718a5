"""Checks whether a cached file is still the recording that was downloaded: all of it, or what is cheap to check."""

import asyncio
import os
from pathlib import Path

from lectern.errors import Refuse
from lectern.i18n import Text
from lectern.media import probe, remux
from lectern.model.facts import Cached
from lectern.playout import keyframe_index
from lectern.playout.flv import NotAirable
from lectern.storage import cache_dir

SHORT_S = 2.0
"""Seconds by which a recording may end earlier than when it was downloaded, and still counts as whole."""

_TAGS = 16
_TAG_TYPES = frozenset({8, 9, 18})
_HEADER_BYTES, _TAG_HEADER_BYTES, _SIZE_BYTES = 9, 11, 4


async def trouble(path: Path, row: Cached) -> str | None:
    """Why *path* is not the file of *row*; None if it is. Reads the whole file if its CRC-64 is known.

    Raises FileNotFoundError if the file has gone, TryAgain if nothing can be said of it just now.
    """
    if row.crc64 is None:
        return await end_trouble(path, row)
    try:
        crc64 = await asyncio.to_thread(cache_dir.crc64, path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return cache_dir.read_fault(path, error)
    return (
        None
        if crc64 == row.crc64
        else Text("its CRC-64 is {crc64}, not {other_crc64}", crc64=crc64, other_crc64=row.crc64)
    )


async def quick_trouble(path: Path, row: Cached) -> str | None:
    """What is cheap to find of why *path* is not the file of *row*: its end, and its tags; None if nothing is found."""
    return await end_trouble(path, row) or await middle_trouble(path)


async def end_trouble(path: Path, row: Cached) -> str | None:
    """Why the end of *path* is not that of *row*'s recording; None if it is, or if nobody knows its length.

    This finds a file that was cut short, or whose end is nothing but zeros; for the rest see `middle_trouble`. Raises
    TryAgain if that cannot be said just now.
    """
    if row.duration_s is None:
        return None
    try:
        end_s = await asyncio.to_thread(last_tag_s, path)
        if end_s is not None and end_s >= row.duration_s - SHORT_S:
            return None
        found = await probe.probe(path)  # decodes its last packets: some files end oddly from the start
    except Refuse as error:
        return error.message
    except OSError as error:
        return cache_dir.read_fault(path, error)
    if found.duration_s < row.duration_s - SHORT_S:
        return Text(
            "it ends after {duration_s:.0f} s, not {source_s:.0f} s",
            duration_s=found.duration_s,
            source_s=row.duration_s,
        )
    return None if found.last_second_decodes else Text("its end cannot be decoded")


async def middle_trouble(path: Path) -> str | None:
    """Why the tags of *path* cannot be read one after the other; None if they can, or if it has no index.

    They could be read when the index was written: if they cannot be read now, the bytes have changed, whatever the size
    and the time of the file say. Takes about 0.1 s for 45 minutes of recording. Raises TryAgain as `end_trouble` does.
    """
    if not await asyncio.to_thread(remux.has_index, path):
        return None
    try:
        keyframe_index.check(await asyncio.to_thread(keyframe_index.look, path))
    except NotAirable as error:
        return str(error)
    except OSError as error:
        return cache_dir.read_fault(path, error)
    return None


def last_tag_s(path: Path) -> float | None:
    """The latest time stamp (seconds) of the last tags of an FLV; None if the end is no chain of tags.

    Behind each tag its size is repeated, so that a file can be read from its end (FLV 10.1, E.3).
    """
    with path.open("rb") as file:
        if file.read(3) != b"FLV":
            return None
        end, latest_ms = file.seek(0, os.SEEK_END), None
        for _ in range(_TAGS):
            if end <= _HEADER_BYTES + _SIZE_BYTES:
                break
            file.seek(end - _SIZE_BYTES)
            size = int.from_bytes(file.read(_SIZE_BYTES))
            begin = end - _SIZE_BYTES - size
            if size < _TAG_HEADER_BYTES or begin < _HEADER_BYTES:
                return None
            file.seek(begin)
            head = file.read(_TAG_HEADER_BYTES)
            if head[0] not in _TAG_TYPES or int.from_bytes(head[1:4]) != size - _TAG_HEADER_BYTES:
                return None
            stamp_ms = int.from_bytes(bytes([head[7], *head[4:7]]))
            latest_ms = max(stamp_ms, latest_ms or 0)
            end = begin
    return None if latest_ms is None else latest_ms / 1000
