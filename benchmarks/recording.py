"""Recordings of a known rate, and bare commands with a bound on their time."""

import subprocess
from pathlib import Path

COMMAND_S = 1800.0


def run(*argv: str) -> None:
    """One bare command, to its end."""
    quiet = subprocess.DEVNULL
    subprocess.run(argv, check=True, stdin=quiet, stdout=quiet, stderr=quiet, timeout=COMMAND_S)


def make(path: Path, seconds: int, *, bits_s: int = 1_500_000, preset: str = "veryfast") -> Path:
    """A recording of 1280x720, 25 frames a second, a key picture every 2 s, with sound; filled up to *bits_s*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sources = ("-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25", "-f", "lavfi", "-i", "sine=frequency=440")
    rate = tuple(word for name in ("-b:v", "-minrate", "-maxrate", "-bufsize") for word in (name, str(bits_s)))
    video = ("-c:v", "libx264", "-preset", preset, *rate, "-x264-params", "nal-hrd=cbr", "-g", "50")
    codecs = (*video, "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "64k")
    run("ffmpeg", "-v", "error", "-nostdin", "-y", *sources, "-t", str(seconds), *codecs, "-f", "flv", str(path))
    return path
