"""Many rows or many values in one statement, whose text is made once: SQLAlchemy would process each value.

Rows are selected by a list of values in one parameter, however long the list is.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Integer, Table, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from lectern.model.tables.shared import Whole

_MARKS = {"qmark": "?", "format": "%s", "pyformat": "%s"}


class _Values(FunctionElement[Any]):
    """The values of a JSON list."""

    inherit_cache = True
    name = "json_values"
    type_on_postgresql = "TEXT"


class _Numbers(_Values):
    inherit_cache = True
    type_on_postgresql = "BIGINT"


@compiles(_Values, "sqlite")
def _on_sqlite(element: _Values, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 (SQLAlchemy's own)
    return f"(SELECT value FROM json_each({compiler.process(element.clauses, **options)}))"  # noqa: S608 (a placeholder)


@compiles(_Values, "postgresql")
def _on_postgresql(element: _Values, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 (SQLAlchemy's own)
    given = compiler.process(element.clauses, **options)
    kind = element.type_on_postgresql
    return f"(SELECT CAST(value AS {kind}) FROM json_array_elements_text(CAST({given} AS JSON)))"  # noqa: S608 (a placeholder)


def in_list(column: ColumnElement[Any], name: str = "among") -> ColumnElement[bool]:
    """Whether *column* is one of the list that the parameter *name* holds, as `bind_list` makes it."""
    parameter: BindParameter[str] = bindparam(name)
    values = _Numbers if isinstance(column.type, Integer | Whole) else _Values
    return column.bool_op("IN")(values(parameter))


def bind_list(values: Iterable[object], name: str = "among") -> dict[str, str]:
    """Numbers or texts, as the parameter *name* of a statement with `in_list`."""
    return {name: json.dumps(list(values))}


def insert_many(
    connection: Connection, table: Table, names: tuple[str, ...], rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert *rows*, each with its values in the order of *names*; every other column gets its default."""
    if rows:
        text, defaults = _made(table, names, _MARKS[connection.dialect.paramstyle])
        connection.exec_driver_sql(text, [row + defaults for row in rows])


def update_many(
    connection: Connection,
    table: Table,
    which: tuple[tuple[str, ...], tuple[str, ...]],
    names: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
) -> int:
    """Write *rows*, each with its values in the order of *names*, and the values of *which*.

    *which* are the columns of the key, and columns that may be NULL. To a column whose name has a plus before it, the
    value is added, never to less than 0. Returns the number of rows that were there.
    """
    if not rows:
        return 0
    mark = _MARKS[connection.dialect.paramstyle]
    return connection.exec_driver_sql(_changed(table, which, names, mark), list(rows)).rowcount


def delete_many(
    connection: Connection,
    table: Table,
    which: tuple[tuple[str, ...], tuple[str, ...]],
    rows: Sequence[tuple[object, ...]],
) -> int:
    """Delete *rows*, each the values of *which*, see `update_many`. Returns the number of rows that were there."""
    text = f"DELETE FROM {table.name} WHERE {_those(which, _MARKS[connection.dialect.paramstyle])}"  # noqa: S608 (our own columns)
    return connection.exec_driver_sql(text, list(rows)).rowcount


def _those(which: tuple[tuple[str, ...], tuple[str, ...]], mark: str) -> str:
    key, others = which
    same = "IS" if mark == "?" else "IS NOT DISTINCT FROM"
    return " AND ".join([*(f"{name} = {mark}" for name in key), *(f"{name} {same} {mark}" for name in others)])


@cache
def _changed(table: Table, which: tuple[tuple[str, ...], tuple[str, ...]], names: tuple[str, ...], mark: str) -> str:
    values = ", ".join(f"{name} = {mark}" if name[0] != "+" else _sum(name[1:], mark) for name in names)
    return f"UPDATE {table.name} SET {values} WHERE {_those(which, mark)}"  # noqa: S608 (our own columns)


def _sum(name: str, mark: str) -> str:
    return f"{name} = {'MAX' if mark == '?' else 'GREATEST'}(0, COALESCE({name}, 0) + {mark})"


@cache
def _made(table: Table, names: tuple[str, ...], mark: str) -> tuple[str, tuple[object, ...]]:
    """The statement, and the values of the columns with a default that are not among *names*."""
    defaults = {column.name: column.default for column in table.c if column.name not in names}
    others = {name: default.arg for name, default in defaults.items() if default is not None}  # type: ignore[attr-defined]  # a scalar
    columns = [*names, *others]
    text = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"  # noqa: S608 (our own columns)
    return text, tuple(others.values())
