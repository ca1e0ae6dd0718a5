"""The playout of a streamer, as the demo and the tests start it and ask it."""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from lectern.playout import worker_process
from lectern.playout.control_socket import asked


def argv(folder: Path, socket: Path, *, first: bool = False) -> list[str]:
    """The program that airs classes, with its files in *folder*; *first* before other programs, as on a host."""
    program = [sys.executable, "-I", "-S", str(worker_process.PROGRAM), "holder"]
    return [*(_first() if first else ()), *program, "--dir", str(folder), "--socket", str(socket)]


def _first() -> list[str]:
    """The prefix of the command that gives it priority, if we may, as its unit on a host does."""
    return ["nice", "-n", "-10"] if os.geteuid() == 0 and shutil.which("nice") else []


def status(socket: Path) -> dict[str, Any]:
    """What it says of itself and its classes; raises PlayoutUnreachable."""
    return asyncio.run(asked(socket, "status"))
