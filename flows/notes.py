"""Notes that messages were sent: each is written with the next commit instead of a commit of its own."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from lectern.errors import Caught

log = logging.getLogger("lectern")
ALONE_AFTER_S = 0.5
"""Seconds after which a note is written in a transaction of its own, if no other transaction has written it."""


@dataclass(frozen=True, eq=False)
class Note:
    """The note that the messages *ids* were sent; *write* stores it in a transaction, and may be called twice."""

    ids: frozenset[int]
    write: Callable[[Connection], object]


class NotWritten(Exception):
    """A note cannot be written; the other work of its transaction was not begun."""


class Notes:
    """Notes that wait to be written. If the process dies before that, their messages are sent a second time."""

    def __init__(self) -> None:
        self._waiting: list[Note] = []
        self._odd: list[Note] = []  # could not be written; kept apart from other work
        self._lock = threading.Lock()
        self.came = asyncio.Event()

    def add(self, ids: Iterable[int], write: Callable[[Connection], object]) -> None:
        """Have *write* called with the next commit."""
        with self._lock:
            self._waiting.append(Note(frozenset(ids), write))
        self.came.set()

    def ids(self) -> set[int]:
        """The messages that were sent although the database does not say so yet."""
        with self._lock:
            return {id_ for note in (*self._waiting, *self._odd) for id_ in note.ids}

    def along(self, connection: Connection) -> Sequence[Note]:
        """Write the waiting notes first in a transaction, and return them for `written`; raises NotWritten."""
        with self._lock:
            some = list(self._waiting)
        for note in some:
            with Caught(OperationalError) as failed:
                note.write(connection)
            if failed.error is not None:
                with self._lock:
                    self._waiting = [one for one in self._waiting if one is not note]
                    self._odd.append(note)
                log.error("outbox: it is not noted yet that %d messages were sent: %r", len(note.ids), failed.error)
                raise NotWritten from failed.error
        return some

    def alone(self, connection: Connection) -> Sequence[Note]:
        """Write all notes in a transaction that does nothing else, and return them for `written`."""
        with self._lock:
            some = [*self._odd, *self._waiting]
        for note in some:
            note.write(connection)
        return some

    def written(self, some: Sequence[Note]) -> None:
        """Forget these notes: their transaction was committed."""
        if some:
            with self._lock:
                self._waiting = [one for one in self._waiting if one not in some]
                self._odd = [one for one in self._odd if one not in some]
