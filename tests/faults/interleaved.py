"""Two workers on one SQLite file, in one thread: a schedule says whose statement is next."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # carries none
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from lectern.db.engine import open_database

Work = Callable[[Connection], object]


@contextmanager
def databases(path: Path) -> Iterator[tuple[Engine, Engine]]:
    """One engine a worker, as two processes have them; neither waits for the other."""
    found = (_whole(path), _whole(path))
    try:
        yield found
    finally:
        for engine in found:
            engine.dispose()


def _whole(path: Path) -> Engine:
    engine = open_database(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def _no_wait(connection: SqliteConnection, _record: Any) -> None:
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA synchronous = OFF")  # no power is cut here

    return engine


class Worker:
    """One transaction, which stops before each of its statements."""

    def __init__(self, engine: Engine, work: Work) -> None:
        self._engine, self._work = engine, work
        self._let = greenlet(self._run)
        self.statements = 0
        self.blocked = False

    @property
    def is_done(self) -> bool:
        return bool(self._let.dead)

    def step(self) -> None:
        """Run to the next statement, or to the end."""
        if not self.is_done:
            self._let.switch()

    def _run(self) -> None:
        stops = ("before_cursor_execute", "commit")
        for name in stops:
            event.listen(self._engine, name, self._stop)
        try:
            while True:
                try:
                    with self._engine.begin() as connection:
                        self.blocked = False
                        self._work(connection)
                except OperationalError as error:
                    if "locked" not in str(error):
                        raise
                    self.blocked = True  # as one that waits for the other's transaction
                    self._stop()
                else:
                    return
        finally:
            for name in stops:
                event.remove(self._engine, name, self._stop)

    def _stop(self, *_: object) -> None:
        if getcurrent() is self._let and self._let.parent is not None:
            self.statements += 1
            self._let.parent.switch()


def interleave(first: Worker, second: Worker, schedule: Iterable[bool]) -> None:
    """Run both to their ends; True in *schedule* is a statement of the first. What is left, is run in turn."""
    for firsts in schedule:
        one, other = (first, second) if firsts else (second, first)
        (other if one.is_done else one).step()
    steps = 0
    while not (first.is_done and second.is_done):
        first.step()
        if first.is_done or first.blocked:
            second.step()
        steps += 1
        assert steps < 10_000, "both wait for each other"
