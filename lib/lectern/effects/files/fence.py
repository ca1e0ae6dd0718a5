"""Ends this process's pushes when its lease has run out: also while it is stopped, and can not do it itself.

Run as a program it is that other process: it imports nothing but the standard library, and needs no package.
"""

import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.1
_YEAR_S = 365 * 86_400.0
_FORMAT = struct.Struct("=d")
_PUSHES = (b"rtmp://", b"rtmps://")


def now() -> float:
    """Seconds since the machine started; all its processes agree on it, and no clock's correction moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence:
    """Until when this process may push. Nothing is held before the first `hold`."""

    def __init__(self) -> None:
        self._file = os.memfd_create("lectern-lease")
        os.ftruncate(self._file, _FORMAT.size)
        self._memory = mmap.mmap(self._file, _FORMAT.size)

    @property
    def until(self) -> float:
        """The end of the lease, as `now` counts."""
        return float(_FORMAT.unpack(self._memory[:])[0])

    def hold(self, until: float) -> None:
        """The lease ends at *until*, as `now` counts; infinity has no end."""
        self._memory[:] = _FORMAT.pack(until)

    def held(self) -> bool:
        """Whether this process may push."""
        return now() < self.until

    async def watch(self, on_ended: Callable[[str], None]) -> None:
        """Run the other process to its end, which should not come.

        *on_ended* is told the process id of each push that it ended.
        """
        from lectern.effects import process  # noqa: PLC0415 (the other process has no packages)

        argv = [sys.executable, "-I", "-S", str(Path(__file__)), str(os.getpid()), str(self._file)]
        await process.run(argv, timeout_s=_YEAR_S, on_line=on_ended)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        os.close(self._file)


# -- the other process -------------------------------------------------------------------------------------------------


def main() -> None:
    """Watch the lease of process PID, which is kept in its file FD: ``fence.py PID FD``."""
    parent, file = int(sys.argv[1]), int(sys.argv[2])
    with Path(f"/proc/{parent}/fd/{file}").open("rb") as lease:
        memory = mmap.mmap(lease.fileno(), _FORMAT.size, prot=mmap.PROT_READ)
    while os.getppid() == parent:
        # Read twice, for a reading may fall into a writing.
        if _is_over(memory):
            time.sleep(LOOK_S / 10)
            if _is_over(memory):
                _end_pushes(parent)
        time.sleep(LOOK_S)


def _is_over(memory: mmap.mmap) -> bool:
    until: float = _FORMAT.unpack(memory[:])[0]
    return now() >= until


def _end_pushes(parent: int) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # The name in the second field may hold blanks and parentheses; the state and the parent come after it.
            fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) != parent or fields[0] == "Z":
                continue
            command = (process / "cmdline").read_bytes()
            if any(scheme in command for scheme in _PUSHES):
                os.kill(int(process.name), signal.SIGKILL)
                sys.stdout.write(f"{process.name}\n")
                sys.stdout.flush()
        except OSError:
            continue  # it ended meanwhile


if __name__ == "__main__":
    main()
