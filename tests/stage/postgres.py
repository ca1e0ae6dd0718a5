"""A PostgreSQL server for tests, where this machine has one; in the CI it must."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import URL, make_url, text

from benchmarks.postgres import programs, server
from lectern.rollout.backup.postgres import PostgresServer


@contextmanager
def postgres_server() -> Iterator[URL]:
    """The address of a server's first database; the user may do everything."""
    found = programs()
    if found is None:
        assert os.environ.get("CI") != "true", "no PostgreSQL, and the CI must try it: apt-get install postgresql"
        pytest.skip("no PostgreSQL is installed (apt-get install postgresql)")
    with server(found) as url:
        yield make_url(url).set(drivername="postgresql+psycopg")


def made(server_url: URL, name: str) -> URL:
    """An empty database *name*, whatever was there before."""
    with PostgresServer(server_url).connected(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    return server_url.set(database=name)


class Databases:
    """Empty databases of a server, one after the other."""

    def __init__(self, server_url: URL) -> None:
        self._server = server_url
        self._numbers = itertools.count(1)

    def fresh(self) -> str:
        """The URL of a new one, as an operator writes it."""
        found = made(self._server, f"lectern{next(self._numbers)}").set(drivername="postgresql")
        return found.render_as_string(hide_password=False)
