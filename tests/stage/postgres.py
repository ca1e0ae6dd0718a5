"""A PostgreSQL server for tests, where this machine has one; in the CI it must."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import URL, make_url, text

from benchmarks.postgres import programs, server
from lectern.rollout.backup.postgres import PostgresServer
from tests import marks
from tests.laid import upgraded


@contextmanager
def postgres_server() -> Iterator[URL]:
    """The address of a server's first database; the user may do everything."""
    marks.starts("PostgreSQL")
    found = programs()
    if found is None:
        assert os.environ.get("CI") != "true", "no PostgreSQL, and the CI must try it: apt-get install postgresql"
        pytest.skip("no PostgreSQL is installed (apt-get install postgresql)")
    with server(found, "-c", "fsync=off") as url:  # its machine is never lost here, only its process
        yield make_url(url).set(drivername="postgresql+psycopg")


def made(server_url: URL, name: str, like: str | None = None) -> URL:
    """A database *name*, whatever was there before: empty, or a copy of the database *like*."""
    copied = f' TEMPLATE "{like}"' if like else ""
    with PostgresServer(server_url).connected(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{name}"{copied}'))
    return server_url.set(database=name)


class Databases:
    """Databases of a server, one after the other."""

    def __init__(self, server_url: URL) -> None:
        self._server = server_url
        self._numbers = itertools.count(1)
        self._laid: str | None = None

    def fresh(self, like: str | None = None) -> str:
        """The URL of a new one, empty or a copy of *like*, as an operator writes it."""
        found = made(self._server, f"lectern{next(self._numbers)}", like).set(drivername="postgresql")
        return found.render_as_string(hide_password=False)

    def laid(self) -> str:
        """The URL of a new one with a teacher's tables."""
        if self._laid is None:
            url = self.fresh()
            upgraded(url, "teacher")
            self._laid = make_url(url).database
        return self.fresh(self._laid)
