"""The JSON of a message that came from outside, and its faults in words."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json


class Body(str):  # noqa: SLOT000 (it keeps its JSON)
    """The text of a message that several steps look into; its JSON is read once."""

    @cached_property
    def json(self) -> Any:  # noqa: ANN401 (any JSON)
        """As `read` returns it; raises ValueError each time."""
        return read(str(self))


def read(body: str | bytes) -> Any:  # noqa: ANN401 (any JSON)
    """The JSON in *body*, or ValueError; what could not be written again (NaN, half a surrogate pair) is none."""
    if isinstance(body, Body):
        return body.json
    return from_json(body.encode() if isinstance(body, str) else body, allow_inf_nan=False)


def fields_of(body: str | bytes) -> Mapping[str, Any]:
    """The fields of a message that may be anything; none if it is no JSON object. Raises nothing."""
    try:
        fields = read(body)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def holds_nul(body: str | bytes, fields: object) -> bool:
    """Whether a text in *fields*, which were read of *body*, holds the one character that PostgreSQL cannot keep."""
    return (b"\\u0000" in body if isinstance(body, bytes) else "\\u0000" in body) and _nul_in(fields)


def _nul_in(value: object) -> bool:
    if isinstance(value, dict):
        return any(_nul_in(one) for pair in value.items() for one in pair)
    if isinstance(value, list):
        return any(_nul_in(one) for one in value)
    return isinstance(value, str) and "\0" in value


def in_words(error: ValidationError) -> str:
    """Every fault as ``field: what is wrong``; values are left out, because URLs can hold secrets."""
    faults: list[dict[str, Any]] = [dict(one) for one in error.errors(include_url=False, include_input=False)]
    return "; ".join(f"{_where(one['loc'])}: {one['msg'].removeprefix('Value error, ')}" for one in faults)


def _where(path: tuple[int | str, ...]) -> str:
    """The field of a fault; keys of the sender's own come from the wire and are escaped."""
    return ascii(".".join(map(str, path)))[1:-1][:80] or "message"
