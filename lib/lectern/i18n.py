"""Sentences for people: an id, which is the English with named gaps, and its values, written in any language."""

import gettext
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache, reduce
from pathlib import Path
from string import Formatter
from typing import Any, Self

from lectern import formatting

ENGLISH = "en"
LOCALE = Path(__file__).with_name("locale")
"""The folder of the catalogues: one folder a language."""

KINDS: Mapping[str, Callable[[float], str]] = {
    "moment": formatting.moment,
    "clock": formatting.clock,
    "span": formatting.span,
    "length": formatting.length,
    "minutes": formatting.minutes,
    "size": formatting.size,
    "position": formatting.position,
}
"""How a gap is written that names one of these, as in ``{silent_s:span}``; others have a format of Python's."""


def msgid(english: str) -> str:
    """*english*, marked for the catalogues: for a sentence or a word that stands in a table."""
    return english


_FORMAT = re.compile(r"[+]?\d?\d?,?(?:\.\d\d?)?[a-z]?")
"""The formats of Python's that a gap may name; a width from another program could fill the memory."""

_UNITS = {one: one for one in (msgid("d"), msgid("h"), msgid("min"), msgid("s"), msgid("bytes"))}
_UNIT = re.compile(r"(?<=\d )[a-z]+")
_OF_UNITS = frozenset({"span", "length", "minutes", "size"})


class Text(str):
    """A sentence in English that knows its id and its values, so that an edge can write it in another language.

    It is stored, sent, compared and logged as the English that it is. A value is a number, a text, or another `Text`;
    an error is its message. Joined with other texts by ``+`` or an f-string it becomes plain English.
    """

    __slots__ = ("args", "id", "plural")
    id: str
    plural: str | None
    args: Mapping[str, Any]

    def __new__(cls, id: str, /, **args: object) -> Self:
        """The sentence *id* with *args* in its gaps."""
        return cls._made(id, None, {name: _value(one) for name, one in args.items()})

    @classmethod
    def many(cls, singular: str, plural: str, /, *, n: int, **args: object) -> Self:
        """The sentence for *n* things: *singular* if *n* is 1."""
        return cls._made(singular, plural, {"n": n, **{name: _value(one) for name, one in args.items()}})

    @classmethod
    def _made(cls, id_: str, plural: str | None, args: Mapping[str, Any]) -> Self:
        pattern = id_ if plural is None or args["n"] == 1 else plural
        self = super().__new__(cls, _filled(pattern, args))
        self.id, self.plural, self.args = id_, plural, args
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as id and values."""
        return _again, (self.id, self.plural, dict(self.args))

    def __str__(self) -> str:
        """The sentence itself, with its id."""
        return self

    def masked(self, mask: Callable[[str], str]) -> str:
        """The sentence with *mask* on each of its texts; plain English if only the whole of it is masked."""
        args = {
            name: one.masked(mask) if isinstance(one, Text) else mask(one) if isinstance(one, str) else one
            for name, one in self.args.items()
        }
        made = self if args == self.args else type(self)._made(self.id, self.plural, args)
        whole = mask(plain(made))
        return made if whole == made else whole

    def pair(self) -> dict[str, Any]:
        """The id and the values, for JSON."""
        args = {name: one.pair() if isinstance(one, Text) else one for name, one in self.args.items()}
        return {"id": self.id, "args": args} | ({} if self.plural is None else {"plural": self.plural})


def _again(id_: str, plural: str | None, args: Mapping[str, Any]) -> Text:
    return Text._made(id_, plural, args)


def _value(one: object) -> Any:  # noqa: ANN401 (a number or a text)
    if isinstance(one, BaseException):
        one = getattr(one, "message", None) or str(one)
    if isinstance(one, Text | int | float) and not isinstance(one, bool):
        return one
    return str(one)


def plain(text: str) -> str:
    """*text* as English alone."""
    return "".join((text, ""))


@lru_cache(maxsize=4096)
def _parts(pattern: str) -> tuple[tuple[str, str | None, str, str | None], ...]:
    return tuple((words, name, spec or "", conversion) for words, name, spec, conversion in Formatter().parse(pattern))


def _filled(pattern: str, args: Mapping[str, Any], wording: Callable[[Any, str], str] | None = None) -> str:
    """*pattern* with *args* in its gaps, each written by *wording* with the kind that its gap names."""
    said = ""
    for words, name, kind, conversion in _parts(pattern):
        said += words
        if name is not None:
            value = repr(args[name]) if conversion == "r" else args[name]
            said += (wording or _in_english)(value, kind)
    return said


def _in_english(value: Any, kind: str) -> str:  # noqa: ANN401 (a number or a text)
    return KINDS[kind](value) if kind in KINDS else format(value, kind)


def from_pair(pair: object) -> Text | None:
    """The sentence of a `pair`; None for anything else, as another program can send or store it."""
    if not isinstance(pair, dict) or not isinstance(pair.get("id"), str) or not isinstance(pair.get("args"), dict):
        return None
    args = {name: from_pair(one) if isinstance(one, dict) else one for name, one in pair["args"].items()}
    if not all(isinstance(one, str | int | float) for one in args.values()):
        return None
    try:
        for pattern in filter(None, (pair["id"], pair.get("plural"))):
            if not all(kind in KINDS or _FORMAT.fullmatch(kind) for _, _, kind, _ in _parts(pattern)):
                return None
        return Text._made(pair["id"], pair.get("plural"), args)
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def to_json(text: str | None) -> str | None:
    """The `pair` of a sentence as it is stored beside the English; None for plain words."""
    return json.dumps(text.pair(), ensure_ascii=False) if isinstance(text, Text) else None


def from_json(english: str, stored: str | None) -> str:
    """The sentence that was stored as *english* with the pair *stored*; plain words if there is none."""
    try:
        text = from_pair(json.loads(stored)) if stored else None
    except ValueError:
        text = None
    return english if text is None else text


def wire(text: str) -> dict[str, Any]:
    """The fields of a message beside the English: *message_id*, *args* and *message_plural*; none for plain words."""
    if not isinstance(text, Text):
        return {}
    pair = text.pair()
    return {"message_id": pair["id"], "args": pair["args"], "message_plural": pair.get("plural")}


def of_wire(fields: Mapping[str, Any]) -> str:
    """The *message* among the *fields* of a message, with its id if it came with one."""
    pair = {"id": fields.get("message_id"), "args": fields.get("args"), "plural": fields.get("message_plural")}
    return from_pair(pair) or str(fields.get("message", ""))


def joined(parts: Iterable[str], between: str = msgid("{first}; {second}")) -> str:
    """The *parts* as one sentence; *between* says how two of them stand together."""
    known = list(parts)
    return reduce(lambda first, second: Text(between, first=first, second=second), known) if known else ""


BESIDE = msgid("{first} {second}")
"""How two whole sentences stand together."""


def translated(text: str, language: str, otherwise: Callable[[str], str] = str) -> str:
    """*text* in *language*; plain words, and a sentence's plain values, by *otherwise*."""
    if not isinstance(text, Text):
        return otherwise(text)
    if language == ENGLISH or not text.id:
        return plain(text)
    known = catalogue(language)
    pattern = known.gettext(text.id)
    if text.plural is not None:
        pattern = known.ngettext(text.id, text.plural, int(text.args["n"]))

    def wording(value: Any, kind: str) -> str:  # noqa: ANN401 (a number or a text)
        if isinstance(value, Text):
            return translated(value, language, otherwise)
        said = _in_english(value, kind)
        if kind in _OF_UNITS:
            return _UNIT.sub(lambda unit: known.gettext(_UNITS.get(unit[0], unit[0])), said)
        return otherwise(said) if isinstance(value, str) else said

    return _filled(pattern, text.args, wording)


Translator = Callable[..., str]
"""Writes a sentence, given as its id and its values, in one language."""


def translator(language: str) -> Translator:
    """What writes sentences in *language*: ``t("{n} classes", n=3)``."""

    def t(id_: str, /, **args: object) -> str:
        return translated(Text(id_, **args), language)

    return t


def own_name(language: str) -> str:
    """The name of *language* in that language, as its catalogue has it."""
    return translated(Text("English"), language)


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The catalogue of *language*; without one, all is English."""
    return gettext.translation("lectern", LOCALE, [language], fallback=True)


@cache
def languages() -> tuple[str, ...]:
    """English, and each language that has a catalogue."""
    return (ENGLISH, *sorted(one.parent.parent.name for one in LOCALE.glob("*/LC_MESSAGES/lectern.po")))
