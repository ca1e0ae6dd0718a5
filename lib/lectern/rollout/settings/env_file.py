"""Edits a file of settings (``.env``) so that python-dotenv reads the wanted values, and no other byte changes."""

import io
import re
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream
from pydantic import SecretStr

from lectern.errors import Misuse
from lectern.settings import StreamerSettings, TeacherSettings

MASK = "********"
SPACES = " \t"

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_HEAD = re.compile(r"\s*(?:export[^\S\r\n]+)?(?:'[^']+'|[^=#\s]+)[^\S\r\n]*")
_EQUAL = re.compile(r"=[^\S\r\n]*")
_QUOTED = {"'": re.compile(r"'(?:\\.|[^'\\])*'", re.DOTALL), '"': re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL)}
_NEWLINE = re.compile(r"\r\n|\n|\r")
_CONTROL = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def read(path: Path) -> str:
    """The text of the file, empty where there is none; raises Misuse where it is not UTF-8: nothing could load it."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Misuse(f"{path}: line {line} is not UTF-8, so no program can load it. Save it as UTF-8.") from error


def values(text: str) -> dict[str, str | None]:
    """What python-dotenv makes of *text*, before it puts other variables in."""
    return {binding.key: binding.value for binding in _bindings(text) if binding.key is not None}


def edited(text: str, wanted: Mapping[str, str]) -> str:
    """*text* with the *wanted* values in their places, and those whose names it has not, at its end.

    Of a name that is there twice the last line counts, and is the one that is edited. Settings know no case: a name
    that is there in another spelling gets the value too. Raises Misuse where a line before cannot be read, and its
    quote would swallow ours.
    """
    raw = {name: value.replace("${", "${:-$}{") for name, value in wanted.items()}  # else dotenv would fill it in
    for quote in ("'", '"'):
        found = _set(text, raw, {name: _written(value, quote) for name, value in raw.items()})
        if all(values(found).get(name) == value for name, value in raw.items()):
            return found
    bad = next((b.original.line for b in _bindings(text) if b.error), None)
    raise Misuse(
        f"line {bad} cannot be read (is a quote open?), and what is added below would become a part of it. Close the "
        f"quote, or take the line out."
    )


def taken_back(text: str, wanted: Mapping[str, str], before: str) -> str:
    """*text* with the lines that still have the *wanted* value as they were *before*; others were edited since."""
    ours = {name: value.replace("${", "${:-$}{") for name, value in wanted.items()}
    now, old = values(text), values(before)
    still = {name for name, value in ours.items() if now.get(name) == value and old.get(name) != value}
    kept = _without(text, {name for name in still if name not in old})
    back = {name: old[name] or "" for name in still if name in old}
    return _set(kept, back, {binding.key: _value(binding) for binding in _bindings(before) if binding.key in back})


def loaded(text: str) -> Mapping[str, str | None]:
    """The values as the settings will read them."""
    return dotenv_values(stream=io.StringIO(_NEWLINE.sub("\n", text)))


def missing_from(text: str, wanted: Mapping[str, str]) -> list[str]:
    """The names whose values are not as *wanted*."""
    found = loaded(text)
    return [name for name, value in wanted.items() if found.get(name) != value]


def shown(text: str, names: Iterable[str]) -> str:
    """The lines of *names* alone, for people; a value is masked if it is no setting's, secret by type, or a URL."""
    found = values(text)
    seen = {name: (found[name] or "").encode("unicode_escape").decode() for name in names if name in found}
    return "".join(f"{name}={value if _is_harmless(name, value) else MASK}\n" for name, value in seen.items())


def _is_harmless(name: str, value: str) -> bool:
    fields = {**TeacherSettings.model_fields, **StreamerSettings.model_fields}
    field = fields.get(name.lower())
    return field is not None and SecretStr.__name__ not in str(field.annotation) and "://" not in value


def _bindings(text: str) -> Iterable[Binding]:
    return parse_stream(io.StringIO(text, newline=""))


def _set(text: str, raw: Mapping[str, str], written: Mapping[str, str]) -> str:
    """*text* with the *raw* values, as they are *written*."""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    bindings = list(_bindings(text))
    pieces = [binding.original.string for binding in bindings]
    last = {binding.key: number for number, binding in enumerate(bindings) if binding.key is not None}
    for (key, number), (name, value) in product(last.items(), raw.items()):
        if key.lower() == name.lower() and bindings[number].value != value:
            pieces[number] = _with_value(bindings[number], written[name])
    body = mark + "".join(pieces)
    new = [f"{name}={written[name]}" for name in raw if name not in last]
    return _appended(body, new) if new else body


def _appended(text: str, lines: list[str]) -> str:
    """*text* with *lines* at its end, in its own style: its line ends, and none after the last line if it has none."""
    found = _NEWLINE.search(text)
    end = found[0] if found else "\n"
    if not text.strip("\ufeff") or text.endswith(("\n", "\r")):
        return text + "".join(line + end for line in lines)
    return end.join([text, *lines])


def _with_value(binding: Binding, written: str) -> str:
    """The text of *binding* with another value; spaces, ``export``, the comment and the line end stay."""
    text, start, end = binding.original.string, *_span(binding)
    if start == end and "=" not in text[:start]:
        name = text[:start].rstrip(SPACES)
        return f"{name}={written}{text[len(name) :]}"
    return text[:start] + written + text[end:]


def _value(binding: Binding) -> str:
    """The value as it is written."""
    start, end = _span(binding)
    return binding.original.string[start:end]


def _span(binding: Binding) -> tuple[int, int]:
    """Where the value is in the text of *binding*, which the parser has read."""
    text = binding.original.string
    head = _HEAD.match(text)
    assert head is not None  # there is a name in it
    equal = _EQUAL.match(text, head.end())
    if equal is None:
        return head.end(), head.end()
    start = equal.end()
    first = text[start : start + 1]
    if first in _QUOTED:
        quoted = _QUOTED[first].match(text, start)
        assert quoted is not None  # it is closed
        return start, quoted.end()
    if first == "#" and len(equal[0]) > 1:
        return start, start  # an empty value and a comment
    line = _NEWLINE.split(text[start:], maxsplit=1)[0]
    return start, start + len(re.sub(r"\s+#.*", "", line).rstrip())


def _written(value: str, quote: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if quote == "'" and not any(letter in _CONTROL for letter in value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(_CONTROL.get(letter, letter) for letter in escaped) + '"'


def _without(text: str, names: set[str]) -> str:
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    kept = [
        binding.original.string
        if binding.key not in names
        else binding.original.string[: len(binding.original.string) - len(binding.original.string.lstrip())]
        for binding in _bindings(text)
    ]
    return mark + "".join(kept)
