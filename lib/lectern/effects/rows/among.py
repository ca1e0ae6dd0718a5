"""Selects rows by a list of values in one parameter, however long the list is, so that a statement is built once."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Integer, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from lectern.effects.rows.tables.shared import Whole


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


def among(column: ColumnElement[Any], name: str = "among") -> ColumnElement[bool]:
    """Whether *column* is one of the list that the parameter *name* holds, as `listed` makes it."""
    parameter: BindParameter[str] = bindparam(name)
    values = _Numbers if isinstance(column.type, Integer | Whole) else _Values
    return column.bool_op("IN")(values(parameter))


def listed(values: Iterable[object]) -> str:
    """Numbers or texts, as the parameter of `among`."""
    return json.dumps(list(values))


def these(values: Iterable[object], name: str = "among") -> dict[str, str]:
    """The parameter *name* of a statement with `among`."""
    return {name: listed(values)}
