"""The command lines of ffmpeg, what it reports, and the push of a recording to a live URL."""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lectern import urls
from lectern.effects import process
from lectern.errors import MALFORMED, Misuse, Refuse
from lectern.states import Resolution

PUSH_STALL_S = 5.0
"""A push whose ffmpeg says nothing, or whose connection moves nothing, for so long is ended."""

LOCAL = (
    *("-protocol_whitelist", "file"),
    # A playlist that is called .flv would read other files.
    *("-format_whitelist", "flv,live_flv,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,avi,mpeg"),
)
"""Options before an input that lies on the disk and came from somewhere else."""

_REPORTS = ("-progress", "pipe:1", "-nostats")
# ffmpeg's own choice for FLV is Sorenson Spark (flv1), which no browser plays any more.
_VIDEO = ("-vcodec", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")


@dataclass(frozen=True)
class Output:
    """A rendition that ffmpeg shall make."""

    path: str
    resolution: Resolution
    width: int
    height: int


@dataclass(frozen=True)
class Progress:
    """How far ffmpeg is: seconds of its output, frames, bytes written, and whether it is done."""

    out_time_s: float
    frame: int
    speed: float
    size_bytes: int
    done: bool


class ProgressReader:
    """Reads the lines of ``-progress pipe:1``."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def progress(self, line: str) -> Progress | None:
        """The report that *line* completes, if it does; what ffmpeg does not know yet (N/A) is 0."""
        name, _, value = line.strip().partition("=")
        self._values[name] = value.strip()
        if name != "progress":
            return None
        values, self._values = self._values, {}
        return Progress(
            out_time_s=_number(values.get("out_time_us", "")) / 1_000_000,
            frame=int(_number(values.get("frame", ""))),
            speed=_number(values.get("speed", "").removesuffix("x")),
            size_bytes=int(_number(values.get("total_size", ""))),
            done=value.strip() == "end",
        )


def executable() -> str:
    """The path of ffmpeg: the system's, else that of imageio-ffmpeg; raises Misuse where there is none."""
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        import imageio_ffmpeg  # noqa: PLC0415 (only the demo installs it)

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise Misuse("ffmpeg: not found; install it: apt-get install ffmpeg, or pip install imageio-ffmpeg") from error


def fitted_size(width: int, height: int, resolution: Resolution) -> tuple[int, int]:
    """The largest even size of the picture's shape inside the resolution's box."""
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width}x{height}")
    box_width, box_height = resolution.box
    if width * box_height >= height * box_width:  # the width is what limits it
        return box_width, min(box_height, _even(box_width * height / width))
    return min(box_width, _even(box_height * width / height)), box_height


def encode_argv(ffmpeg: str, source: str, outputs: Sequence[Output], *, keyframe_s: float = 2.0) -> list[str]:
    """One run of ffmpeg that makes all *outputs* of the local file *source*, and reports its progress on stdout.

    A keyframe comes every *keyframe_s*: a push that begins in the middle, and each viewer, waits for the next one.
    """
    argv = [ffmpeg, "-hide_banner", "-nostdin", "-y", *_REPORTS, *LOCAL, "-i", f"file:{source}"]
    for output in outputs:
        argv += ["-acodec", "copy", *_VIDEO, "-s", f"{output.width}x{output.height}"]
        argv += ["-force_key_frames", f"expr:gte(t,n_forced*{keyframe_s:g})", "-f", "flv", f"file:{output.path}"]
    return argv


def push_argv(ffmpeg: str, path: Path | None, url: str, *, position_s: float, length_s: float) -> list[str]:
    """The run of ffmpeg that sends *path* from *position_s* on, for *length_s*, in real time.

    Without *path* it reads on stdin, once it is loaded, what it is to send: ``file_list``.
    """
    argv = [ffmpeg, "-hide_banner", "-nostdin", *_REPORTS]
    if path is None:
        # Its list may name any file, and is ours; packets stay as they are in the recording.
        argv += ["-protocol_whitelist", "file,pipe", "-f", "concat", "-safe", "0", "-auto_convert", "0"]
    else:
        argv += ["-protocol_whitelist", "file"]
    argv += ["-re", *(["-ss", f"{position_s:.3f}"] if path else [])]
    argv += ["-i", f"file:{path.absolute()}" if path else "pipe:0", "-c", "copy"]
    # Otherwise all since the keyframe before would be sent at once, and every viewer be late by so much.
    argv += ["-copypriorss", "0"] if position_s > 0 else []
    return [*argv, "-t", f"{length_s:.3f}", "-f", "flv", "-rw_timeout", str(int(PUSH_STALL_S * 1_000_000)), url]


def file_list(path: Path) -> bytes:
    """The list for ffmpeg's concat demuxer in which *path* is all there is."""
    quoted = str(path.absolute()).replace("'", "'\\''")
    return os.fsencode(f"ffconcat version 1.0\nfile 'file:{quoted}'\n")


async def push(
    ffmpeg: str,
    path: Path,
    url: str,
    *,
    position_s: float,
    length_s: float,
    timeout_s: float,
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[int], None] | None = None,
    go: asyncio.Event | None = None,
) -> process.Finished:
    """Send the recording to *url* as if it were live; any return code is returned, the caller judges it.

    Where *go* is given, which is for a push from the beginning, ffmpeg is loaded now and begins when it is set.
    A silent ffmpeg is ended after 5 s, a connection that moves nothing ends by itself as soon. Raises process.TimedOut,
    process.Stalled, or Refuse for what is no push URL: an output takes no protocol whitelist.
    """
    try:
        url = urls.push(url).text
    except ValueError as error:
        raise Refuse(f"the push URL {error}", MALFORMED) from None
    reader = ProgressReader()

    def on_line(line: str) -> None:
        progress = reader.progress(line)
        if progress is not None and on_progress is not None:
            on_progress(progress)

    async def told() -> bytes:
        assert go is not None
        await go.wait()
        return file_list(path)

    argv = push_argv(ffmpeg, None if go else path, url, position_s=position_s, length_s=length_s)
    stdin = told if go else None
    return await process.run(
        argv, timeout_s=timeout_s, stall_s=PUSH_STALL_S, on_line=on_line, on_start=on_start, stdin=stdin
    )


def _even(size: float) -> int:
    return max(2, round(size / 2) * 2)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
