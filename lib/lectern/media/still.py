"""A still: one keyframe of a recording as a small JPEG. A child with limits decodes it, and reads nothing else."""

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from lectern import subprocesses
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.media.ffmpeg import executable
from lectern.playout import flv, keyframe_index

WIDTH = 320
TIMEOUT_S = 2.0
MEMORY_BYTES = 256 * 1024 * 1024
MOST_BYTES = 512 * 1024
"""Greatest size of a still."""

SCANNED_BYTES = 16 * 1024 * 1024
"""Greatest size of a recording without an index that is looked through for its keyframes: that of a slate."""

_FLV_HEAD = b"FLV\x01\x01" + (flv.HEAD_BYTES - flv.TAIL_BYTES).to_bytes(4, "big") + bytes(flv.TAIL_BYTES)


async def jpeg(recording: Path, at_s: float) -> bytes:
    """The last keyframe of *recording* at or before *at_s*, else its first, as a JPEG that is WIDTH wide.

    Raises TryAgain if there is none.
    """
    try:
        excerpt = await asyncio.to_thread(_excerpt, recording, 1000 * at_s)
        return await _decoded(excerpt)
    except (OSError, flv.NotAirable) as error:
        raise TryAgain(Text("no picture: {why}", why=error)) from error


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


async def _decoded(excerpt: bytes) -> bytes:
    with TemporaryDirectory(prefix="lectern-still-") as folder:
        made = Path(folder) / "still.jpg"
        argv = [executable(), "-hide_banner", "-nostdin", "-loglevel", "error", "-threads", "1"]
        argv += ["-protocol_whitelist", "pipe", "-f", "flv", "-i", "pipe:0", "-frames:v", "1"]
        argv += ["-vf", f"scale={WIDTH}:-2", "-q:v", "4", "-f", "mjpeg", f"file:{made}"]
        finished = await subprocesses.run(
            argv,
            timeout_s=TIMEOUT_S,
            stdin=excerpt,
            nice=subprocesses.GIVES_WAY,
            file_limit_bytes=MOST_BYTES,
            memory_limit_bytes=MEMORY_BYTES,
        )
        if finished.returncode != 0 or not made.exists():
            raise TryAgain(Text("no picture: {why}", why=finished.last_words))
        return await asyncio.to_thread(made.read_bytes)
