"""A PostgreSQL server for tests, where this machine has one; in the CI it must."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import URL, make_url, text

from benchmarks.postgres import programs, server
from lectern.rollout.backup import postgres


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
    with postgres.connected(server_url, isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    return server_url.set(database=name)
