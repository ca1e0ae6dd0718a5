"""Backups of a host or a database: made, proved, archived, copied away, restored; and what copies have in common."""

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, func, inspect, select, table

from lectern.db.engine import opened as opened


class Copy(BaseModel):
    """A proved copy: its size, its SHA-256, and the rows of each table; without a *file*, there was no database."""

    model_config = ConfigDict(frozen=True)

    file: str = ""
    size_bytes: int = 0
    sha256: str = ""
    rows: dict[str, int] = {}


def quoted(name: str) -> str:
    """*name* as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def tables(connection: Connection) -> list[str]:
    """The names of a database's tables."""
    return sorted(inspect(connection).get_table_names())


def rows(connection: Connection) -> dict[str, int]:
    """The number of rows of each table."""
    counts = {name: select(func.count()).select_from(table(name)) for name in tables(connection)}
    return {name: connection.execute(count).scalar_one() for name, count in counts.items()}
