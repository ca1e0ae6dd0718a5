"""What is made once a clone, and copied: recordings, and a database with Prefect's tables and nothing in them.

To make these tables takes a server longer than all else it does; to encode takes a processor from the tests beside it.
"""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".pytest_cache"
NAME = "prefect.db"


def once(name: str, make: Callable[[Path], object]) -> Path:
    """The file *name* of the clone, which *make* makes whole, or not at all, for whoever asks first."""
    made = CACHE / name
    made.parent.mkdir(exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(made)
    return made


def lay(home: Path, environment: Mapping[str, str]) -> None:
    """Put one into *home*, a server's PREFECT_HOME, unless it has one; Prefect makes the first, under a lock."""
    if (home / NAME).exists():
        return
    made = once(f"prefect-{version('prefect')}.db", lambda to: _make(to, environment))
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, home / NAME)


def _make(made: Path, environment: Mapping[str, str]) -> None:
    own = made.with_suffix(".part")
    shutil.rmtree(own, ignore_errors=True)
    argv = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    subprocess.run(argv, env={**environment, "PREFECT_HOME": str(own)}, check=True, capture_output=True, timeout=1800)
    left = [one.name for one in own.glob(f"{NAME}-*") if one.stat().st_size]
    assert not left, f"Prefect has left {left} beside its database"
    (own / NAME).rename(made)
    shutil.rmtree(own)
