"""Edits a file of settings (``.env``) so that python-dotenv reads the wanted values, and no other byte changes."""

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream
from pydantic import SecretStr

from lectern.errors import Misuse
from lectern.settings import StreamerSettings, TeacherSettings, no_utf_8

MASK = "********"
SHORTEST = 6
"""Number of characters below which a text is no secret: to blot it out would make an answer unreadable."""

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_LINE = (
    r"(?:\A\ufeff?|(?<=[\r\n]))(?P<head>[ \t]*(?:export[ \t]+)?{}[ \t]*=[ \t]*)"
    r"(?P<value>'[^'\r\n]*'|\"[^\"\r\n]*\"|[^\r\n]*?)[ \t]*(?:(?<=[ \t])#[^\r\n]*)?(?=[\r\n]|\Z)"
)
_NEWLINE = re.compile(r"\r\n|\n|\r")
_CONTROL = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def read(path: Path) -> str:
    """The text of the file, empty if there is none; raises Misuse if it is not UTF-8, which no program can load."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise no_utf_8(path, error) from error


def values(text: str) -> dict[str, str | None]:
    """The values that python-dotenv reads from *text*, before it expands variables in them."""
    return {binding.key: binding.value for binding in _bindings(text) if binding.key is not None}


def edited(text: str, wanted: Mapping[str, str]) -> str:
    """*text* with the *wanted* values in their lines, and new lines at its end for names that it lacks.

    If a name occurs twice, its last line counts, and is edited. Settings ignore the case of names: another spelling of
    a name gets the value too. Raises Misuse if an earlier line cannot be read, because its open quote would swallow
    the new lines.
    """
    for name, value in wanted.items():
        written = _written(_raw(value))
        for key in _spellings(text, name):
            tried = (text, _in_place(text, key, written), _appended(text, f"{key}={written}"))
            text = _first(tried, text, key, _raw(value))
    return text


def taken_back(text: str, wanted: Mapping[str, str], before: str) -> str:
    """*text* with the lines that still have the *wanted* value as they were *before*; others were edited since."""
    old = values(before)
    spelled = [(key, value) for name, value in wanted.items() for key in _spellings(text, name)]
    for name, value in spelled:
        if values(text).get(name) == _raw(value) != old.get(name):
            was, line = _line(before, name), _line(text, name)
            without = (
                text if line is None else text[: line.start("head")] + _NEWLINE.sub("", text[line.end() :], count=1)
            )
            is_whole = was is not None and values(was[0]).get(name) == old.get(name)  # it does not span several lines
            tried = (_in_place(text, name, was["value"]), without) if was and is_whole else (without,)
            text = _first(tried, text, name, old.get(name), before)
    return text


def _spellings(text: str, name: str) -> list[str]:
    """The other spellings of *name* that *text* sets, then *name* itself."""
    return [*(other for other in values(text) if other != name and other.lower() == name.lower()), name]


def _first(tried: Iterable[str], text: str, name: str, value: str | None, before: str = "") -> str:
    """The first text in which *name* has *value* and all other names have the value of *text*; raises Misuse.

    It names the line of *text*, or of what was *before*, that cannot be read.
    """
    others = {key: old for key, old in values(text).items() if key != name}
    for candidate in tried:
        read_back = values(candidate)
        if read_back.pop(name, None) == value and read_back == others:
            return candidate
    bad = next((b.original.line for b in (*_bindings(text), *_bindings(before)) if b.error), "unknown")
    raise Misuse(
        "line {bad} cannot be read (is a quote open?), and what is added below would become a part of it. Close "
        "the quote, or take the line out.",
        bad=bad,
    )


def loaded(text: str) -> Mapping[str, str | None]:
    """The values as the settings will read them."""
    return dotenv_values(stream=io.StringIO(_NEWLINE.sub("\n", text)))


def missing_from(text: str, wanted: Mapping[str, str]) -> list[str]:
    """The names whose values are not as *wanted*."""
    there = loaded(text)
    return [name for name, value in wanted.items() if there.get(name) != value]


def shown(text: str, names: Iterable[str]) -> str:
    """The lines of *names* only, for people; a value is masked if it is a secret, a URL, or of no known setting."""
    there = values(text)
    seen = {name: (there[name] or "").encode("unicode_escape").decode() for name in names if name in there}
    shown_values = {name: value if _is_open(name) and "://" not in value else MASK for name, value in seen.items()}
    return "".join(f"{name}={value}\n" for name, value in shown_values.items())


def secrets(settings: Mapping[str, str]) -> set[str]:
    """What of the values of *settings* nobody may see, wherever it stands: secrets, and the passwords of URLs."""
    secret_values = {value for name, value in settings.items() if not _is_open(name)}
    passwords = {_password(value) for value in settings.values() if "://" in value}
    return {secret for secret in {*secret_values, *passwords, *map(unquote, passwords)} if len(secret) >= SHORTEST}


def _password(url: str) -> str:
    """The password in *url*, or all of it if it is no URL: nobody knows where in it a password is."""
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return url


def _is_open(name: str) -> bool:
    field = {**TeacherSettings.model_fields, **StreamerSettings.model_fields}.get(name.lower())
    return field is not None and SecretStr.__name__ not in str(field.annotation)


def _bindings(text: str) -> Iterable[Binding]:
    return parse_stream(io.StringIO(text, newline=""))


def _raw(value: str) -> str:
    return value.replace("${", "${:-$}{")  # else dotenv would expand it as a variable


def _line(text: str, name: str) -> re.Match[str] | None:
    """The last line that sets *name*."""
    return next(reversed(list(re.finditer(_LINE.format(re.escape(name)), text))), None)


def _in_place(text: str, name: str, written: str) -> str:
    """*text* with another value in the line of the name; spaces, ``export`` and the comment stay."""
    match = _line(text, name)
    return text if match is None else text[: match.start("value")] + written + text[match.end("value") :]


def _appended(text: str, line: str) -> str:
    """*text* with *line* at its end, in its own style: its line ends, and none after the last line if it has none."""
    newline = _NEWLINE.search(text)
    end = newline[0] if newline else "\n"
    is_ended = not text.strip("\ufeff") or text.endswith(("\n", "\r"))
    return text + line + end if is_ended else text + end + line


def _written(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\")
    if not any(letter in _CONTROL for letter in value):
        return "'" + escaped.replace("'", "\\'") + "'"
    return '"' + "".join(_CONTROL.get(letter, letter) for letter in escaped.replace('"', '\\"')) + '"'
