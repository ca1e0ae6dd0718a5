"""How much work a look is for SQLite."""

import sqlite3
from collections.abc import Callable
from typing import cast

from sqlalchemy import Connection, Engine

from lectern.db.engine import transaction


def steps(engine: Engine, look: Callable[[Connection], object]) -> int:
    """How many hundred instructions of SQLite's a look takes: unlike seconds, they do not depend on the machine."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    with transaction(engine) as connection:
        driver = cast("sqlite3.Connection", connection.connection.driver_connection)
        driver.set_progress_handler(count, 100)
        look(connection)
        driver.set_progress_handler(None, 0)
    return counted
