"""Edits the teacher's old config in place: only the characters of the wanted values change.

It is JSON, or what an old program takes for it: with comments, products and a comma too many.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lectern.errors import Misuse
from lectern.old_config import PRODUCT, strict

Value = int | str
_SPACE = re.compile(r"[ \t\n\r]*")
_LINE = re.compile(r"\s*?(\r?\n[ \t]*)\Z")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class _Member:
    """One name of the object, and where its parts are in the text."""

    name: str
    gap: int  # where the space before the name begins
    start: int
    value_start: int
    end: int
    value: Any


def read(path: Path) -> str:
    """The text of the file; raises Misuse, with line and column, where it is no object."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        raise Misuse(f"{path}: there is no such file. Correct `config_file` in the inventory.") from error
    except UnicodeDecodeError as error:
        raise Misuse(f"{path}: byte {error.start} is not UTF-8. Save it as UTF-8.") from error
    try:
        found = json.loads(strict(text))
    except json.JSONDecodeError as error:
        raise Misuse(
            f"{path}: line {error.lineno}, column {error.colno}: no JSON here ({error.msg}). Comments and "
            f"products (1000*60*60*24) are understood, more is not. Mend it; nothing was changed."
        ) from error
    if not isinstance(found, dict):
        raise Misuse(f"{path}: it holds no JSON object, so it is not the teacher's config. Correct `config_file`.")
    return text


def edited(text: str, wanted: Mapping[str, Value]) -> str:
    """*text* with the *wanted* values; a missing name is added after the one before it in *wanted*, or at the end."""
    related: str | None = None
    for name, value in wanted.items():
        members = _members(text)
        same = [member for member in members if member.name == name]
        if not same:
            text = _added(text, members, name, value, related)
        for member in reversed(same):
            if not _is(member.value, value):
                text = text[: member.value_start] + _written(value) + text[member.end :]
        related = name
    return text


def taken_back(text: str, wanted: Mapping[str, Value], before: str) -> str:
    """*text* with the values that are still the *wanted* ones as they were *before*; others were edited since."""
    old = {member.name: before[member.value_start : member.end] for member in _members(before)}
    for name, value in wanted.items():
        now = [member for member in _members(text) if member.name == name]
        if not now or not _is(now[-1].value, value):
            continue
        found = now[-1]
        text = text[: found.value_start] + old[name] + text[found.end :] if name in old else _without(text, found)
    return text


def missing_from(text: str, wanted: Mapping[str, Value]) -> list[str]:
    """The names whose values are not as *wanted*."""
    found = json.loads(strict(text))
    return [name for name, value in wanted.items() if name not in found or not _is(found[name], value)]


def shown(text: str, names: Mapping[str, Value]) -> str:
    """The lines of *names* alone, for people: others can hold secrets."""
    found = json.loads(strict(text)) if text else {}
    return "".join(f'"{name}": {json.dumps(found[name])}\n' for name in names if name in found)


def _is(found: object, value: object) -> bool:
    return type(found) is type(value) and found == value


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _members(text: str) -> list[_Member]:
    """The names of the outermost object; *text* is known to be JSON."""
    written, text = text, strict(text)
    found: list[_Member] = []
    at = _after_space(text, 0) + 1
    while True:
        gap, start = at, _after_space(text, at)
        if text[start] == "}":
            return found
        name, after = _DECODER.raw_decode(text, start)
        value_start = _after_space(text, _after_space(text, after) + 1)
        value, end = _DECODER.raw_decode(text, value_start)
        if (product := PRODUCT.match(written, value_start)) is not None:
            end = product.end()
        found.append(_Member(name, gap, start, value_start, end, value))
        at = _after_space(text, end)
        if text[at] == ",":
            at += 1


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # it matches also nothing
    return found.end()


def _added(text: str, members: list[_Member], name: str, value: Value, related: str | None) -> str:
    if not members:
        return _first(text, name, value)
    after = next((member for member in reversed(members) if member.name == related), members[-1])
    gap = _LINE.sub(r"\1", strict(text)[after.gap : after.start])  # without the comments before it
    if "\n" not in gap and len(members) > 1:
        gap = text[members[1].gap : members[1].start]
    _, name_end = _DECODER.raw_decode(text, after.start)
    colon = text[name_end : after.value_start]
    if not gap and " " in colon:
        gap = " "  # the only member of an object on one line
    return f"{text[: after.end]},{gap}{_written(name)}{colon}{_written(value)}{text[after.end :]}"


def _first(text: str, name: str, value: Value) -> str:
    opening = strict(text).index("{") + 1
    closing = _after_space(text, opening)
    inner = text[opening:closing]
    line = re.search(r"\r\n|\n", inner)
    member = f"{_written(name)}: {_written(value)}"
    return text[:opening] + (f"{line[0]}  {member}{inner}" if line else member) + text[closing:]


def _without(text: str, member: _Member) -> str:
    members = _members(text)
    number = members.index(member)
    if number > 0:
        return text[: members[number - 1].end] + text[member.end :]
    if len(members) > 1:
        return text[: member.gap] + text[members[1].gap :]
    return text[: member.gap] + text[_after_space(text, member.end) :]
