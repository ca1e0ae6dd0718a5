"""``column IN (…)`` for thousands of values: they travel as one JSON parameter, and the statement stays the same."""

from collections.abc import Iterable
from typing import Any

from pydantic_core import to_json
from sqlalchemy import BigInteger, ColumnElement, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class _Texts(FunctionElement[str]):
    inherit_cache = True
    type = Text()


class _Numbers(FunctionElement[int]):
    inherit_cache = True
    type = BigInteger()


def texts(column: ColumnElement[Any], name: str = "ids") -> ColumnElement[bool]:
    """Whether *column* is one of the texts in the parameter *name*, which `values` writes."""
    return column.op("IN", is_comparison=True)(_Texts(bindparam(name, type_=Text())))


def numbers(column: ColumnElement[Any], name: str = "ids") -> ColumnElement[bool]:
    """Whether *column* is one of the numbers in the parameter *name*, which `values` writes."""
    return column.op("IN", is_comparison=True)(_Numbers(bindparam(name, type_=Text())))


def values(some: Iterable[str] | Iterable[int], name: str = "ids") -> dict[str, str]:
    """The parameter *name* of a statement with `texts` or `numbers`."""
    return {name: to_json(list(some)).decode()}


@compiles(_Texts)
@compiles(_Numbers)
def _of_sqlite(element: FunctionElement[Any], compiler: SQLCompiler, **kw: object) -> str:
    return f"(SELECT value FROM json_each({compiler.process(element.clauses, **kw)}))"  # noqa: S608 (a bound parameter)


@compiles(_Texts, "postgresql")
def _texts_of_postgresql(element: _Texts, compiler: SQLCompiler, **kw: object) -> str:
    return f"(SELECT json_array_elements_text(CAST({compiler.process(element.clauses, **kw)} AS json)))"


@compiles(_Numbers, "postgresql")
def _numbers_of_postgresql(element: _Numbers, compiler: SQLCompiler, **kw: object) -> str:
    listed = f"json_array_elements_text(CAST({compiler.process(element.clauses, **kw)} AS json))"
    return f"(SELECT CAST({listed} AS bigint))"
