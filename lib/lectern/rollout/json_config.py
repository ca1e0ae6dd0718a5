"""Edits the teacher's old config in place: only the characters of the wanted values change.

It is JSON, or what an old program accepts as JSON: with comments, products, and a comma before a closing bracket.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lectern.errors import Misuse
from lectern.old_config import PRODUCT, strict

Value = int | str
_PROBE = "a value that no config has"


def read(path: Path) -> str:
    """The text of the file; raises Misuse if it cannot be read or is no JSON object, with line and column."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        raise Misuse("{path}: there is no such file. Correct `config_file` in the inventory.", path=path) from error
    except UnicodeDecodeError as error:
        raise Misuse("{path}: byte {start} is not UTF-8. Save it as UTF-8.", path=path, start=error.start) from error
    try:
        config = json.loads(strict(text))
    except json.JSONDecodeError as error:
        raise Misuse(
            "{path}: line {lineno}, column {colno}: no JSON here ({msg}). Comments and products (1000*60*60*24) "
            "are understood, more is not. Mend it; nothing was changed.",
            path=path,
            lineno=error.lineno,
            colno=error.colno,
            msg=error.msg,
        ) from error
    if not isinstance(config, dict):
        raise Misuse(
            "{path}: it holds no JSON object, so it is not the teacher's config. Correct `config_file`.", path=path
        )
    return text


def edited(text: str, wanted: Mapping[str, Value]) -> str:
    """*text*, or that of a new file, with the *wanted* values, new names first. Raises Misuse if one cannot be set."""
    for name in reversed(missing_from(text := text or "{}", wanted)):
        text = _with(text, name, json.dumps(wanted[name], ensure_ascii=False))
    if missing := missing_from(text, wanted):
        raise Misuse("{missing} cannot be set. Write it into the file by hand.", missing=", ".join(missing))
    return text


def taken_back(text: str, wanted: Mapping[str, Value], before: str) -> str:
    """*text* with the values that are still the *wanted* ones as they were *before*; others were edited since."""
    for name in set(wanted).difference(missing_from(text, wanted)):
        old = _place(before or "{}", name)
        text = _without(text, name) if old is None else _with(text, name, before[old[1] : old[2]])
    return text


def missing_from(text: str, wanted: Mapping[str, Value]) -> list[str]:
    """The names whose values are not as *wanted*."""
    config = json.loads(strict(text))
    return [name for name, value in wanted.items() if name not in config or not _is(config[name], value)]


def shown(text: str, names: Mapping[str, Value]) -> str:
    """The lines of *names* only, for people: other lines can hold secrets."""
    config = json.loads(strict(text)) if text else {}
    return "".join(f'"{name}": {json.dumps(config[name])}\n' for name in names if name in config)


def _is(there: object, value: object) -> bool:
    return json.dumps(there, sort_keys=True) == json.dumps(value, sort_keys=True)  # 1 is neither 1.0 nor true


def _place(text: str, name: str) -> tuple[int, int, int] | None:
    """The place of *name* in the outermost object: where it begins, and where its value begins and ends; else None."""
    plain = strict(text)
    config, decoder = json.loads(plain), json.JSONDecoder()
    for match in re.finditer(rf"{re.escape(json.dumps(name))}\s*:\s*", plain):
        start = match.end()
        with suppress(ValueError):  # not a member, though it looks like one
            _, end = decoder.raw_decode(plain, start)
            product = PRODUCT.match(text, start)
            # The probe changes the outermost object's own value only if the name is not that of an object inside it.
            probe = json.loads(f"{plain[:start]}{json.dumps(_PROBE)}{plain[end:]}")
            if _is(probe, {**config, name: _PROBE}):
                return match.start(), start, product.end() if product else end
    return None


def _with(text: str, name: str, written: str) -> str:
    if (place := _place(text, name)) is not None:
        return text[: place[1]] + written + text[place[2] :]
    opening = strict(text).index("{") + 1
    inner = strict(text)[opening:]
    gap = re.search(r"(\r?\n[ \t]*|[ \t]*)\Z", inner[: len(inner) - len(inner.lstrip())])
    assert gap is not None  # the pattern also matches the empty string
    comma = "" if inner.lstrip().startswith("}") else ","
    return f"{text[:opening]}{gap[0]}{json.dumps(name)}: {written}{comma}{text[opening:]}"


def _without(text: str, name: str) -> str:
    place, plain = _place(text, name), strict(text)
    if place is None:
        return text
    start, _, end = place
    before, comma = plain[:start].rstrip(), end + len(plain[end:]) - len(plain[end:].lstrip())
    if plain[comma] == ",":
        has_comment = text[len(before) : start].strip() != ""  # a line comment would hide what follows it
        return text[: start if has_comment else len(before)] + text[comma + 1 :]
    return text[: len(before) - before.endswith(",")] + text[end:]
