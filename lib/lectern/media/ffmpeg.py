"""What ffmpeg is used for: its command lines and reports, the loudness, the slate, and stills of a recording."""

import asyncio
import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lectern import subprocesses
from lectern.errors import Misuse, TryAgain
from lectern.i18n import Text
from lectern.playout import flv, keyframe_index
from lectern.states import Resolution
from lectern.storage import cache_dir

FORMATS = "flv,live_flv,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,avi,mpeg"
"""The formats of a recording: a playlist that is called .flv would read other files."""
LOCAL = ("-protocol_whitelist", "file", "-format_whitelist", FORMATS)
"""Options before an input file that came from elsewhere: they keep ffmpeg from reading any other file."""

_REPORTS = ("-progress", "pipe:1", "-nostats")
# ffmpeg's own choice for FLV is Sorenson Spark (flv1), which no browser plays any more.
_VIDEO = ("-vcodec", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")

COPY = ("-acodec", "copy")
"""Options that leave the sound as it is."""


@dataclass(frozen=True)
class Output:
    """A rendition that ffmpeg shall make."""

    path: str
    resolution: Resolution
    width: int
    height: int


def out_time_s(line: str) -> float | None:
    """The seconds of output that a line of ``-progress pipe:1`` reports; None if it reports something else, or N/A."""
    name, _, value = line.strip().partition("=")
    return int(value) / 1_000_000 if name == "out_time_us" and value.isdecimal() else None


def executable() -> str:
    """The path of ffmpeg: the system's, else that of imageio-ffmpeg; raises Misuse if there is none."""
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        import imageio_ffmpeg  # noqa: PLC0415 (only the demo installs it)

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        reason = Text("ffmpeg: not found; install it: apt-get install ffmpeg, or pip install imageio-ffmpeg")
        raise Misuse(reason) from error


def fitted_size(width: int, height: int, resolution: Resolution) -> tuple[int, int]:
    """The largest even size of the picture's shape inside the resolution's box."""
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width}x{height}")
    box_width, box_height = resolution.box
    if width * box_height >= height * box_width:  # the width is what limits it
        return box_width, min(box_height, _even(box_width * height / width))
    return min(box_width, _even(box_height * width / height)), box_height


def encode_argv(
    ffmpeg: str, source: str, outputs: Sequence[Output], *, keyframe_s: float = 2.0, sound: Sequence[str] = COPY
) -> list[str]:
    """The command line that makes all *outputs* of the local file *source* in one run, with progress on stdout.

    A keyframe comes every *keyframe_s*: a push that begins in the middle, and each viewer, waits for the next one.
    *sound* has the options for the sound.
    """
    argv = [ffmpeg, "-hide_banner", "-nostdin", "-y", *_REPORTS, *LOCAL, "-i", f"file:{source}"]
    for output in outputs:
        argv += [*sound, *_VIDEO, "-s", f"{output.width}x{output.height}"]
        argv += ["-force_key_frames", f"expr:gte(t,n_forced*{keyframe_s:g})", "-f", "flv", f"file:{output.path}"]
    return argv


def remux_argv(path: str, to: str) -> list[str]:
    """The command line that makes a plain FLV file of *path*, with the same packets, and progress on stdout."""
    argv = [executable(), "-hide_banner", "-nostdin", "-y", *_REPORTS, *LOCAL, "-i", f"file:{path}"]
    return [*argv, "-c", "copy", "-f", "flv", f"file:{to}"]


def _even(size: float) -> int:
    return max(2, round(size / 2) * 2)


# Loudness (EBU R128): loudnorm measures the whole recording in a first run, and moves it by one gain in the second one.
AAC = "aac"
PEAK_DBTP = -1.5
NEAR_LU = 0.5
"""Difference from the wanted loudness up to which the sound is left as it is."""

_RANGE_LU = 20.0  # the most that each release of loudnorm takes
_RATE_HZ = "44100"


def measure_argv(ffmpeg: str, source: str, lufs: float) -> list[str]:
    """The command line that measures the sound of the local file *source*, which is to be brought to *lufs*."""
    argv = [ffmpeg, "-hide_banner", "-nostdin", *_REPORTS, *LOCAL, "-i", f"file:{source}", "-vn", "-sn", "-dn"]
    return [*argv, "-af", f"loudnorm=I={lufs:g}:TP={PEAK_DBTP}:print_format=json", "-f", "null", "-"]


def became_lufs(printed: str) -> float | None:
    """The loudness that the second run *printed* last; None if a long report of the encoders has pushed it out."""
    found = re.findall(r"\bI:\s+(-?[\d.]+) LUFS", printed)
    return float(found[-1]) if found else None


@dataclass(frozen=True)
class Loudness:
    """What loudnorm has measured of a recording's sound."""

    lufs: float
    range_lu: float
    peak_dbtp: float
    threshold_lufs: float

    @classmethod
    def read(cls, printed: str) -> "Loudness":
        """What the first run *printed*; raises ValueError if it did not measure."""
        blocks = re.findall(r"\{[^{}]*\}", printed)
        found: dict[str, str] = json.loads(blocks[-1]) if blocks else {}
        names = ("input_i", "input_lra", "input_tp", "input_thresh")
        return cls(*(float(found.get(name, "nothing")) for name in names))

    def is_right(self, lufs: float) -> bool:
        """Whether nothing is to be done: it is about as loud as *lufs*, or silent."""
        return not math.isfinite(self.lufs) or abs(self.lufs - lufs) <= NEAR_LU

    def is_peaky(self, lufs: float) -> bool:
        """Whether its peaks would be above PEAK_DBTP at *lufs*."""
        return self.peak_dbtp + lufs - self.lufs > PEAK_DBTP

    def options(self, lufs: float) -> Sequence[str]:
        """The options that bring the sound to *lufs* by one gain, and hold its peaks at PEAK_DBTP."""
        # Above these bounds loudnorm would change the gain all the time instead, and miss the loudness by some LU. It
        # takes 0 for not measured.
        peak = min(self.peak_dbtp, PEAK_DBTP - (lufs - self.lufs))
        known = f"measured_I={min(self.lufs, -0.01):g}:measured_LRA={min(max(self.range_lu, 0.01), _RANGE_LU):g}"
        known += f":measured_TP={peak:g}:measured_thresh={self.threshold_lufs:g}"
        chain = f"loudnorm=I={lufs:g}:TP={PEAK_DBTP}:LRA={_RANGE_LU:g}:{known}:linear=true"
        chain += f",alimiter=limit={10 ** (PEAK_DBTP / 20):.3f}:level=false,ebur128=framelog=verbose"
        return "-af", chain, "-acodec", AAC, "-ar", _RATE_HZ


# The slate: what viewers see while a recording is missing or broken. If the settings name no file, one is made.
SLATE_S = 10
MAKE_S = 60.0


async def make_slate(path: Path) -> None:
    """Make a slate at *path*, a calm picture without a sound, if nothing is there; raises LecternError."""
    unfinished = path.with_name(f".{path.name}.new")
    try:
        if cache_dir.size_bytes(path):  # a power cut leaves empty what was not on the disk yet
            return
        argv = [executable(), "-hide_banner", "-nostdin", "-y"]
        argv += ["-f", "lavfi", "-i", f"color=c=0x1b2a3a:s=640x360:r=25:d={SLATE_S}"]
        argv += ["-f", "lavfi", "-i", "anullsrc=channel_layout=stereo:sample_rate=44100", "-t", str(SLATE_S)]
        argv += [*_VIDEO, "-g", "25", "-acodec", "aac"]
        finished = await subprocesses.run([*argv, "-f", "flv", f"file:{unfinished}"], timeout_s=MAKE_S)
        if finished.returncode != 0:
            raise TryAgain("{path}: the slate cannot be made: {why}", path=path, why=finished.last_words)
        unfinished.replace(path)
    except OSError as error:
        raise TryAgain("{path}: the slate cannot be made: {why}", path=path, why=error.strerror or error) from error
    finally:
        with suppress(OSError):  # it is not there, or the disk lets nobody look
            unfinished.unlink()


WIDTH = 320
STILL_S = 2.0
MEMORY_BYTES = 256 * 1024 * 1024
"""What a child may take for its picture."""

MOST_STILL_BYTES = 512 * 1024
"""Greatest size of a still."""

_FLV_HEAD = b"FLV\x01\x01" + (flv.HEAD_BYTES - flv.TAIL_BYTES).to_bytes(4, "big") + bytes(flv.TAIL_BYTES)


async def excerpt(recording: Path, at_s: float) -> bytes:
    """The last keyframe of *recording* at or before *at_s*, else its first, as a recording; raises TryAgain."""
    try:
        return await cache_dir.in_thread(_excerpt, recording, 1000 * at_s)
    except (OSError, flv.NotAirable) as error:
        raise TryAgain("no picture: {why}", why=error) from error


async def jpeg(excerpt: bytes) -> bytes:
    """The picture of *excerpt* as a JPEG that is WIDTH wide; raises TryAgain if there is none, or no room for it."""
    try:
        with TemporaryDirectory(prefix="lectern-still-") as name:
            recording, made = Path(name) / "still.flv", Path(name) / "still.jpg"
            await asyncio.to_thread(recording.write_bytes, excerpt)
            argv = [executable(), "-hide_banner", "-nostdin", "-loglevel", "error", "-protocol_whitelist", "file"]
            argv += ["-threads", "1", "-f", "flv", "-i", f"file:{recording}", "-map", "0:v:0", "-frames:v", "1"]
            argv += ["-vf", f"scale={WIDTH}:-2", "-q:v", "4", "-f", "mjpeg", f"file:{made}"]
            finished = await subprocesses.run(
                argv,
                timeout_s=STILL_S,
                nice=subprocesses.GIVES_WAY,
                file_limit_bytes=MOST_STILL_BYTES,
                memory_limit_bytes=MEMORY_BYTES,
            )
            if finished.returncode == 0 and made.exists():
                return await asyncio.to_thread(made.read_bytes)
    except OSError as error:
        raise TryAgain("no picture: {why}", why=error) from error
    raise TryAgain("no picture: {why}", why=finished.last_words)


def _excerpt(recording: Path, at_ms: float) -> bytes:
    index = keyframe_index.path_of(recording)
    records = keyframe_index.read(index, recording.stat().st_size) or keyframe_index.look(recording).records
    key = keyframe_index.keyframe(records, at_ms) or keyframe_index.keyframe(records, at_ms, after=True)
    if key is None:
        raise TryAgain(Text("its recording has no picture here"))
    file = os.open(recording, os.O_RDONLY)
    try:
        header = keyframe_index.headers(records, key.offset).get(flv.PICTURE)
        picture = _FLV_HEAD
        for at in (header, key.offset) if header is not None else (key.offset,):
            head = flv.tag_head(os.pread(file, flv.TAG_HEAD_BYTES, at).ljust(flv.TAG_HEAD_BYTES, b"\0"), 0)
            if head is None or head.kind != flv.PICTURE:
                raise TryAgain(Text("its recording has no picture here"))
            picture += os.pread(file, head.whole, at)
        return picture
    finally:
        os.close(file)
