"""What the playout says to people, by which catalogues know it, and text from outside, made fit for people."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any


class Sentence(str):
    """A sentence in English that knows its *id*, which is the English with named gaps, and the values in them.

    It is stored, sent and compared as the English that it is; *plural* is the id for several things, if there is one.
    *json* is its `pair` as JSON once somebody has stored that.
    """

    __slots__ = ("args", "id", "json", "plural")
    id: str
    args: Mapping[str, Any]
    json: str | None
    plural: str | None

    def __str__(self) -> str:
        """The sentence itself, with its id."""
        return self

    def pair(self) -> dict[str, Any]:
        """The id and the values, for JSON."""
        args = {name: one.pair() if isinstance(one, Sentence) else one for name, one in self.args.items()}
        return {"id": self.id, "args": args} | ({} if self.plural is None else {"plural": self.plural})


def sentence(english: str, /, **values: object) -> Sentence:
    """*english* with *values* in its gaps; `make catalogues` finds it by the name of this function."""
    made = Sentence(english.format(**values) if values else english)
    made.id, made.plural, made.json = english, None, None
    made.args = {name: one if isinstance(one, int | float) else str(one) for name, one in values.items()}
    return made


class Isolated(AbstractContextManager["Isolated", bool]):
    """A context in which a fault of one class or request harms no other: it is kept. Errors of *through* are raised."""

    def __init__(self, *through: type[Exception]) -> None:
        self.error: Exception | None = None
        self._through = through

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """Keep *error*, unless it ends the process, or a task."""
        if not isinstance(error, Exception) or isinstance(error, self._through):
            return False
        self.error = error
        return True

    @property
    def fault(self) -> str:
        """The fault in words; empty if there was none."""
        if self.error is None:
            return ""
        return sentence("a fault of the playout: {name}: {error}", name=type(self.error).__name__, error=self.error)


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
