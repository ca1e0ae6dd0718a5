"""A still: one keyframe of a recording as a small JPEG. A child with limits decodes it, and reads nothing else."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lectern import subprocesses
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.media.ffmpeg import executable
from lectern.playout import flv, keyframe_index

WIDTH = 320
TIMEOUT_S = 2.0
MEMORY_BYTES, MORE_BYTES = 256 * 1024 * 1024, 96 * 1024 * 1024
"""What a child may take for the first picture, and for each further one."""

MOST_BYTES = 512 * 1024
"""Greatest size of a still."""

SCANNED_BYTES = 16 * 1024 * 1024
"""Greatest size of a recording without an index that is looked through for its keyframes: that of a slate."""

_FLV_HEAD = b"FLV\x01\x01" + (flv.HEAD_BYTES - flv.TAIL_BYTES).to_bytes(4, "big") + bytes(flv.TAIL_BYTES)


async def excerpt(recording: Path, at_s: float) -> bytes:
    """A recording of one picture: the last keyframe of *recording* at or before *at_s*, else its first.

    Raises TryAgain if there is none.
    """
    try:
        return await asyncio.to_thread(_excerpt, recording, 1000 * at_s)
    except (OSError, flv.NotAirable) as error:
        raise TryAgain("no picture: {why}", why=error) from error


async def jpegs(excerpts: Sequence[bytes]) -> list[bytes | str]:
    """Each picture of *excerpts* as a JPEG that is WIDTH wide, or in words why there is none.

    One child makes them all, because ffmpeg takes longer to start than to make a picture. Raises TryAgain if it takes
    too long, OSError if there is no room for its files.
    """
    with TemporaryDirectory(prefix="lectern-still-") as name:
        folder = Path(name)
        for at, one in enumerate(excerpts):
            await asyncio.to_thread((folder / f"{at}.flv").write_bytes, one)
        finished = await subprocesses.run(
            _argv(folder, len(excerpts)),
            timeout_s=TIMEOUT_S,
            nice=subprocesses.GIVES_WAY,
            file_limit_bytes=MOST_BYTES,
            memory_limit_bytes=MEMORY_BYTES + MORE_BYTES * (len(excerpts) - 1),
        )
        made = [folder / f"{at}.jpg" for at in range(len(excerpts))]
        if finished.returncode == 0 and all(one.exists() for one in made):
            return [await asyncio.to_thread(one.read_bytes) for one in made]
    if len(excerpts) == 1:
        return [finished.last_words]
    return [picture for one in excerpts for picture in await jpegs([one])]  # one that is broken harms no other


def _argv(folder: Path, number: int) -> list[str]:
    argv = [executable(), "-hide_banner", "-nostdin", "-loglevel", "error", "-protocol_whitelist", "file"]
    for at in range(number):
        argv += ["-threads", "1", "-f", "flv", "-i", f"file:{folder / str(at)}.flv"]
    for at in range(number):
        argv += ["-map", f"{at}:v:0", "-frames:v", "1", "-vf", f"scale={WIDTH}:-2", "-q:v", "4"]
        argv += ["-f", "mjpeg", f"file:{folder / str(at)}.jpg"]
    return argv


def _excerpt(recording: Path, at_ms: float) -> bytes:
    """A recording of one picture: the header that it needs, and the keyframe."""
    size_bytes = recording.stat().st_size
    records = keyframe_index.read(keyframe_index.path_of(recording), size_bytes)
    if records is None and size_bytes <= SCANNED_BYTES:
        records = keyframe_index.look(recording).records
    records = records or ()
    key = keyframe_index.keyframe(records, at_ms) or keyframe_index.keyframe(records, at_ms, after=True)
    if key is None:
        raise TryAgain(Text("its recording has no picture here"))
    file = os.open(recording, os.O_RDONLY)
    try:
        header = keyframe_index.headers(records, key.offset).get(flv.PICTURE)
        return _FLV_HEAD + b"".join(_tag(file, at) for at in (header, key.offset) if at is not None)
    finally:
        os.close(file)


def _tag(file: int, at: int) -> bytes:
    head = flv.tag_head(os.pread(file, flv.TAG_HEAD_BYTES, at).ljust(flv.TAG_HEAD_BYTES, b"\0"), 0)
    if head is None or head.kind != flv.PICTURE:
        raise TryAgain(Text("its recording has no picture here"))
    return os.pread(file, head.whole, at)
