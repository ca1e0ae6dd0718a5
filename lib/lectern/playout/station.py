"""What all classes of a worker share."""

import random
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lectern.playout.session import Session


class Now(NamedTuple):
    """The time of a tick by two clocks: *mono* is by time.monotonic, *wall* is epoch seconds."""

    mono: float
    wall: float

    @classmethod
    def read(cls) -> "Now":
        """The time now."""
        return cls(time.monotonic(), time.time())


@dataclass
class Totals:
    """Counts since the worker began."""

    bytes: int = 0
    reconnects: int = 0


@dataclass
class Station:
    """What a worker gives to its classes: threads for files, the lease, and what to call for events and connections."""

    pool: Executor
    tell: Callable[[dict[str, Any]], None]
    keep: Callable[[str, Session], None]
    drop: Callable[[str], None]
    ca_file: str | None = None
    is_held: bool = False
    """Whether the lease allows sending in this tick."""
    totals: Totals = field(default_factory=Totals)
    chance: random.Random = field(default_factory=random.Random)
    _trusted: ssl.SSLContext | None = None

    @property
    def trusted(self) -> ssl.SSLContext:
        """Which certificates are trusted: those of the CA file if there is one, else those that the machine trusts."""
        if self._trusted is None:
            self._trusted = ssl.create_default_context(cafile=self.ca_file)
        return self._trusted
