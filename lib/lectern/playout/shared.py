"""A page of memory that holder and workers share: the end of the lease, and what the worker does at the moment."""

import mmap
import os
import struct
import time

from lectern.playout import kernel

_DOUBLE = struct.Struct("=d")
_NUMBER = struct.Struct("=Q")
_LEASE, _TICK, _HANDLED = 0, 64, 128


class Shared:
    """Made by the holder; a worker opens it by the descriptor that it inherits."""

    def __init__(self, file: int | None = None) -> None:
        if file is None:
            file = kernel.memory_file("lectern-playout")
            os.ftruncate(file, mmap.PAGESIZE)
        self.file = file
        self._memory = mmap.mmap(file, mmap.PAGESIZE)

    @property
    def lease_until(self) -> float:
        """The end of the lease by kernel.boot_now; read twice, because the holder may be writing it."""
        while True:
            first, second = self._get(_LEASE), self._get(_LEASE)
            if first == second:
                return first

    @lease_until.setter
    def lease_until(self, until: float) -> None:
        self._memory[_LEASE : _LEASE + 8] = _DOUBLE.pack(until)

    def held(self) -> bool:
        """Whether the lease has not expired, so that sending is allowed."""
        return kernel.boot_now() < self.lease_until

    def tick(self) -> None:
        """Record that the worker is alive, and handles no session."""
        self.handle(0)
        self._memory[_TICK : _TICK + 8] = _DOUBLE.pack(time.monotonic())

    @property
    def ticked_at(self) -> float:
        """The worker's last tick, by time.monotonic."""
        return self._get(_TICK)

    def handle(self, session: int) -> None:
        """Record the number of the session that is handled now; 0 for none."""
        self._memory[_HANDLED : _HANDLED + 8] = _NUMBER.pack(session)

    @property
    def handled(self) -> int:
        """The number of the session that the worker handles, or handled when it hung; 0 for none."""
        return int(_NUMBER.unpack(self._memory[_HANDLED : _HANDLED + 8])[0])

    def _get(self, at: int) -> float:
        return float(_DOUBLE.unpack(self._memory[at : at + 8])[0])
