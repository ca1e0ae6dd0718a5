"""The slate: what viewers see while a recording is missing or broken. If the settings name no file, one is made."""

from pathlib import Path

from lectern.effects import process
from lectern.effects.media import ffmpeg
from lectern.errors import TryAgain

LENGTH_S = 10
TIMEOUT_S = 60.0


async def make(path: Path) -> None:
    """Make a slate at *path*, a calm picture without a sound, if nothing is there; raises LecternError."""
    if path.exists() and path.stat().st_size:  # a power cut leaves empty what was not on the disk yet
        return
    unfinished = path.with_name(f".{path.name}.new")
    argv = [ffmpeg.executable(), "-hide_banner", "-nostdin", "-y"]
    argv += ["-f", "lavfi", "-i", f"color=c=0x1b2a3a:s=640x360:r=25:d={LENGTH_S}"]
    argv += ["-f", "lavfi", "-i", "anullsrc=channel_layout=stereo:sample_rate=44100", "-t", str(LENGTH_S)]
    argv += ["-vcodec", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "25", "-acodec", "aac"]
    try:
        finished = await process.run([*argv, "-f", "flv", f"file:{unfinished}"], timeout_s=TIMEOUT_S)
        if finished.returncode != 0:
            raise TryAgain(f"{path}: the slate cannot be made: {finished.last_words}")
        unfinished.replace(path)
    except OSError as error:
        raise TryAgain(f"{path}: the slate cannot be made: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
