"""What the playout says to people, by which catalogues know it, and text from outside, made fit for people."""

import re


def sentence(english: str, /, **values: object) -> str:
    """*english* with *values* in its gaps; `make catalogues` finds it by the name of this function."""
    return english.format(**values) if values else english


MAX_CHARACTERS = 300
"""What is kept of a text: a reason is a line."""

_ESCAPE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?")
_NO_CHARACTER = re.compile(r"[\ud800-\udfff]+")
"""Half a pair of surrogates, or a byte that a decoder kept because it is no UTF-8."""


def cleaned(text: str | bytes) -> str:
    """*text* on one line of MAX_CHARACTERS at most, without control characters, with a mark for what is no UTF-8."""
    text = text if isinstance(text, str) else text.decode("utf-8", "replace")
    text = _NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", _ESCAPE.sub(" ", text[: 8 * MAX_CHARACTERS]))
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 1]}…"
