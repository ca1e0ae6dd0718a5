"""What all classes of a worker share: clocks, totals, turns of work, and the name of the release."""

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lectern.playout.sentences import sentence
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
class WorkerContext:
    """What a worker gives to its classes: threads for files, the lease, and what to call for events and connections."""

    pool: Executor
    tell: Callable[[dict[str, Any]], None]
    keep: Callable[[str, Session], None]
    drop: Callable[[str], None]
    handle: Callable[[int], None] = lambda _session: None
    """Called with the number of the session that is handled next."""
    ca_file: str | None = None
    is_held: bool = False
    """Whether the lease allows sending in this tick."""
    totals: Totals = field(default_factory=Totals)
    chance: random.Random = field(default_factory=random.Random)
    _trusted: ssl.SSLContext | None = None

    @property
    def trusted(self) -> ssl.SSLContext:
        """Which certificates are trusted: those of the CA file if there is one, else those that the machine trusts.

        Raises OSError, in words, if the file cannot be read.
        """
        if self._trusted is None:
            try:
                self._trusted = ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:
                why = sentence("it holds none") if isinstance(error, ssl.SSLError) else error.strerror
                raise OSError(
                    sentence(
                        "{ca_file}: the certificates to trust cannot be read: {why}",
                        ca_file=self.ca_file,
                        why=why,
                    )
                ) from error
        return self._trusted


SLICE_S = 0.002
"""Seconds for which such work holds the sending loop at once."""


async def in_slices(work: Iterable[object]) -> None:
    """Do *work*, which gets on by a step with each item that it gives."""
    until = time.perf_counter() + SLICE_S
    for _ in work:
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_S


LIBRARY = Path(__file__).resolve().parents[2]


def release_name() -> str:
    """The version of the installed package beside this one; `development` in a working tree."""
    paths = sorted(LIBRARY.glob("lectern-*.dist-info"))
    return paths[-1].name.removeprefix("lectern-").removesuffix(".dist-info") if paths else "development"
