"""Many rows of one table in one statement, whose text is made once: SQLAlchemy would go through each row anew."""

from collections.abc import Sequence
from functools import cache

from sqlalchemy import Connection, Table

_MARKS = {"qmark": "?", "format": "%s", "pyformat": "%s"}


def insert_many(
    connection: Connection, table: Table, names: tuple[str, ...], rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert *rows*, each with its values in the order of *names*; every other column gets its default."""
    if rows:
        text, defaults = _made(table, names, _MARKS[connection.dialect.paramstyle])
        connection.exec_driver_sql(text, [row + defaults for row in rows])


def update_many(
    connection: Connection, table: Table, key: str, names: tuple[str, ...], rows: Sequence[tuple[object, ...]]
) -> None:
    """Write *rows*, each with its values in the order of *names*, and at last its *key*."""
    if rows:
        connection.exec_driver_sql(_changed(table, key, names, _MARKS[connection.dialect.paramstyle]), list(rows))


@cache
def _changed(table: Table, key: str, names: tuple[str, ...], mark: str) -> str:
    values = ", ".join(f"{name} = {mark}" for name in names)
    return f"UPDATE {table.name} SET {values} WHERE {key} = {mark}"  # noqa: S608 (our own columns)


@cache
def _made(table: Table, names: tuple[str, ...], mark: str) -> tuple[str, tuple[object, ...]]:
    """The statement, and the values of the columns with a default that are not among *names*."""
    others = {one.name: one.default.arg for one in table.c if one.name not in names and one.default is not None}  # type: ignore[attr-defined]  # a scalar
    columns = [*names, *others]
    text = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"  # noqa: S608 (our own columns)
    return text, tuple(others.values())
