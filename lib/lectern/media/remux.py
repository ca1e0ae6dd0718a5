"""Makes a recording fit for the playout: a plain FLV file, with an index of its keyframes beside it."""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

from lectern import subprocesses
from lectern.errors import BAD_RECORDING, Refuse, TryAgain
from lectern.media import ffmpeg
from lectern.playout import keyframe_index
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
        return await asyncio.to_thread(_looked, path), path
    except NotAirable as error:
        why = str(error)
    remuxed = cache_dir.remuxed_path(path)
    _at_work.add(remuxed)
    try:
        with ExitStack() as failed:
            failed.callback(remuxed.unlink, missing_ok=True)
            await _remux(path, remuxed, why)
            found = await asyncio.to_thread(_looked, remuxed)
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
        if "No space left" in finished.errors:
            raise TryAgain("{path}: cannot be made a plain FLV file: no space left on the disk", path=path)
        if finished.returncode in _KILLED:
            raise TryAgain(
                "{path}: cannot be made a plain FLV file: ffmpeg was ended from outside; is memory short?", path=path
            )
        raise Refuse(
            "{path}: cannot be aired ({reason}), nor made a plain FLV file: {last_words}",
            BAD_RECORDING,
            path=path,
            reason=why,
            last_words=finished.last_words,
        )
