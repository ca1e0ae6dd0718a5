"""Makes a recording fit for the playout, and checks later whether a cached file is still that recording."""

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path

from lectern import subprocesses
from lectern.errors import BAD_RECORDING, DISK_FULL, Refuse, TryAgain
from lectern.i18n import Text, msgid
from lectern.media import ffmpeg, probe
from lectern.model.facts import Cached
from lectern.playout import flv, keyframe_index
from lectern.playout.flv import NotAirable
from lectern.playout.keyframe_index import Look
from lectern.storage import cache_dir, disk

REMUX_S = 1800.0
STALL_S = 60.0
_KILLED = frozenset({-signal.SIGKILL, -signal.SIGTERM, 255})  # 255 is how ffmpeg itself ends by TERM

_at_work: set[Path] = set()


async def looked(path: Path) -> tuple[Look, Path]:
    """Look through a recording; returns what was found, and the file to be aired.

    If *path* is no plain FLV, the latter is a new file beside it, with the same packets in a plain FLV. The caller
    puts it in its place. Raises Refuse (319) if not even that can be aired, TryAgain if the disk is full or ffmpeg was
    killed.
    """
    try:
        return await cache_dir.in_thread(_looked, path), path
    except NotAirable as error:
        why = str(error)
    remuxed = cache_dir.remuxed_path(path)
    _at_work.add(remuxed)
    try:
        with ExitStack() as failed:
            failed.callback(remuxed.unlink, missing_ok=True)
            await _remux(path, remuxed, why)
            found = await cache_dir.in_thread(_looked, remuxed)
            failed.pop_all()
            return found, remuxed
    except NotAirable as error:
        raise Refuse("{path}: cannot be aired: {error}", BAD_RECORDING, path=path, error=error) from error
    finally:
        _at_work.discard(remuxed)


def is_at_work(path: Path) -> bool:
    """Whether this process is just making the plain FLV file *path*."""
    return path in _at_work


def write_index(found: Look, path: Path) -> None:
    """Write the index of *path* beside it; raises Refuse with 316 if the disk cannot be written."""
    with disk.writing(str(path)):
        keyframe_index.write(found, keyframe_index.path_of(path))


def has_index(path: Path) -> bool:
    """Whether *path* has an index, made for a file of this size; a file that is missing needs none."""
    try:
        size = path.stat().st_size
    except OSError:
        return True
    return keyframe_index.read(keyframe_index.path_of(path), size) is not None


def _looked(path: Path) -> Look:
    found = keyframe_index.look(path)
    keyframe_index.check(found)
    return found


async def _remux(path: Path, to: Path, why: str) -> None:
    argv = ffmpeg.remux_argv(str(path), str(to))
    finished = await subprocesses.run(
        argv, timeout_s=REMUX_S, stall_s=STALL_S, on_line=lambda _: None, nice=subprocesses.GIVES_WAY
    )
    if finished.returncode != 0:
        if finished.has_no_room:
            text = msgid("{path}: cannot be made a plain FLV file: no space left on the disk")
            raise TryAgain(text, DISK_FULL, path=path)
        if finished.returncode in _KILLED:
            raise TryAgain(
                "{path}: cannot be made a plain FLV file: ffmpeg was ended from outside; is memory short?", path=path
            )
        text = msgid("{path}: cannot be aired ({reason}), nor made a plain FLV file: {last_words}")
        raise Refuse(text, BAD_RECORDING, path=path, reason=why, last_words=finished.last_words)


SHORT_S = 2.0
"""Seconds by which a recording may end earlier than when it was downloaded, and still counts as whole."""

SEEN_S = 180.0
"""Seconds that the disk has for a look at a file: one that hangs must not keep the other checks, or their alarms."""

_TAGS = 16


async def trouble(path: Path, row: Cached) -> str | None:
    """Why *path* is not the file of *row*; None if it is. Reads the whole file if its CRC-64 is known.

    Raises FileNotFoundError if the file has gone, TryAgain if nothing can be said of it just now.
    """
    if row.crc64 is None:
        return await end_trouble(path, row)
    try:
        crc64 = await cache_dir.in_thread(cache_dir.crc64, path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return cache_dir.read_fault(path, error)
    if crc64 == row.crc64:
        return None
    return Text("its CRC-64 is {crc64}, not {other_crc64}", crc64=crc64, other_crc64=row.crc64)


async def seen(path: Path, row: Cached) -> tuple[int | None, str | None]:
    """The size of *path*, and what is cheap to find of why it is not the file of *row*; None and None if it has gone.

    Raises TryAgain if that cannot be said just now, or in SEEN_S.
    """
    try:
        async with asyncio.timeout(SEEN_S):
            size = (await cache_dir.in_thread(path.stat)).st_size
            if size != row.size_bytes:
                return size, None
            return size, await end_trouble(path, row) or await middle_trouble(path)
    except FileNotFoundError:
        return None, None
    except TimeoutError as error:
        text = msgid("{path}: not probed within {timeout_s:g} s; is the disk busy?")
        raise TryAgain(text, path=path, timeout_s=SEEN_S) from error


async def end_trouble(path: Path, row: Cached) -> str | None:
    """Why the end of *path* is not that of *row*'s recording; None if it is, or if nobody knows its length.

    This finds a file that was cut short, or whose end is nothing but zeros; for the rest see `middle_trouble`. Raises
    TryAgain if that cannot be said just now.
    """
    if row.duration_s is None:
        return None
    try:
        end_s = await cache_dir.in_thread(last_tag_s, path)
        if end_s is not None and end_s >= row.duration_s - SHORT_S:
            return None
        found = await probe.probe(path)  # decodes its last packets: some files end oddly from the start
    except Refuse as error:
        return error.message
    except OSError as error:
        return cache_dir.read_fault(path, error)
    if found.duration_s < row.duration_s - SHORT_S:
        text = msgid("it ends after {duration_s:.0f} s, not {source_s:.0f} s")
        return Text(text, duration_s=found.duration_s, source_s=row.duration_s)
    return None if found.last_second_decodes else Text("its end cannot be decoded")


async def middle_trouble(path: Path) -> str | None:
    """Why the tags of *path* cannot be read one after the other; None if they can, or if it has no index.

    They could be read when the index was written: if they cannot be read now, the bytes have changed, whatever the size
    and the time of the file say. Takes about 0.1 s for 45 minutes of recording. Raises TryAgain as `end_trouble` does.
    """
    if not await cache_dir.in_thread(has_index, path):
        return None
    try:
        keyframe_index.check(await cache_dir.in_thread(keyframe_index.look, path))
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
            if end <= flv.HEAD_BYTES:
                break
            file.seek(end - flv.TAIL_BYTES)
            size = int.from_bytes(file.read(flv.TAIL_BYTES))
            begin = end - flv.TAIL_BYTES - size
            if size < flv.TAG_HEAD_BYTES or begin < flv.HEAD_BYTES - flv.TAIL_BYTES:
                return None
            file.seek(begin)
            head = flv.tag_head(file.read(flv.TAG_HEAD_BYTES), 0)
            if head is None or head.size != size - flv.TAG_HEAD_BYTES:
                return None
            latest_ms = max(head.timestamp, latest_ms or 0)
            end = begin
    return None if latest_ms is None else latest_ms / 1000
