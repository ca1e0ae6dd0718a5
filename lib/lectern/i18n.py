"""Sentences for people: an id, which is the English with named gaps, and its values, written in any language."""

import gettext
import json
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import cache, lru_cache, reduce
from pathlib import Path
from string import Formatter
from typing import Any, Self

from lectern import formatting
from lectern.playout.sentences import Sentence

ENGLISH = "en"
LOCALE = Path(__file__).with_name("locale")
"""The folder of the catalogues: one folder a language."""

KINDS: Mapping[str, Callable[[float], str]] = {
    name: getattr(formatting, name) for name in ("moment", "clock", "span", "length", "minutes", "size", "position")
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


class Text(Sentence):
    """A sentence that an edge can write in another language, whose gaps may name a kind.

    A value is a number, a text, or another sentence; an error is its message. Joined with other texts by ``+`` or an
    f-string it becomes plain English.
    """

    __slots__ = ()

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
        self.id, self.plural, self.args, self.json = id_, plural, args, None
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._made, (self.id, self.plural, dict(self.args))


def _value(one: object) -> Any:  # noqa: ANN401 (a number or a text)
    if type(one) in _VALUES:
        return one
    if isinstance(one, BaseException):
        one = getattr(one, "message", None) or str(one)
    if isinstance(one, Sentence | int | float) and not isinstance(one, bool):
        return one
    if isinstance(one, StrEnum):
        return Text(one.value)
    return str(one)


_VALUES = frozenset({Text, Sentence, str, int, float})


def plain(text: str) -> str:
    """*text* as English alone."""
    return "".join((text, ""))


def masked(text: str, mask: Callable[[str], str]) -> str:
    """*text* with *mask* on each of its values; plain English if only the whole of it is masked."""
    if not isinstance(text, Sentence):
        return mask(text)
    args = {name: masked(one, mask) if isinstance(one, str) else one for name, one in text.args.items()}
    made = text if args == text.args else Text._made(text.id, text.plural, args)
    whole = mask(plain(made))
    return made if whole == made else whole


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
            is_written = wording is None and not kind and isinstance(value, str)
            said += value if is_written else (wording or _in_english)(value, kind)
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
        if pair.get("plural") is not None and not isinstance(args["n"], int):  # by it a language chooses its plural
            return None
        return Text._made(pair["id"], pair.get("plural"), args)
    except (ValueError, OverflowError, KeyError, IndexError, TypeError):  # a number may be infinite
        return None


_PAIR = '{"id": '
_JSON = json.JSONEncoder()


def to_json(text: str | None) -> str | None:
    """The `pair` of a sentence as it is stored beside the English; None for plain words."""
    if not isinstance(text, Sentence):
        return None
    if text.json is None:
        text.json = _JSON.encode(text.pair())
    return text.json


def from_json(english: str, stored: str | None) -> str:
    """The sentence that was stored as *english* with the pair *stored*; plain words if there is none."""
    try:
        text = from_pair(json.loads(stored)) if stored else None
    except ValueError:
        text = None
    return english if text is None else text


def stored(text: str) -> str:
    """The sentence whose pair, as JSON, is *text*; *text* itself if it is none."""
    return from_json(text, text) if text.startswith(_PAIR) else text


def wire(text: str) -> dict[str, Any]:
    """The fields of a message beside the English: *message_id*, *args* and *message_plural*; none for plain words."""
    if not isinstance(text, Sentence):
        return {}
    pair = text.pair()
    return {"message_id": pair["id"], "args": pair["args"], "message_plural": pair.get("plural")}


def of_wire(fields: Mapping[str, Any]) -> str:
    """The *message* among the *fields* of a message, with its id if it came with one."""
    english = str(fields.get("message", ""))
    if fields.get("message_id") is None:
        return english
    pair = {"id": fields["message_id"], "args": fields.get("args"), "plural": fields.get("message_plural")}
    return from_pair(pair) or english


def spoken(fields: Mapping[str, Any], name: str = "why") -> Mapping[str, Any]:
    """The *fields* that the playout tells, with the id of the sentence *name* if it came with one."""
    text = from_pair(fields.get("sentence"))
    return fields if text is None else {**fields, name: text}


def packed(text: str) -> str | dict[str, Any]:
    """A sentence for JSON that has a place for texts: its `pair`; plain words as they are."""
    return text.pair() if isinstance(text, Sentence) else text


def unpacked(value: object) -> str:
    """What was `packed`; raises ValueError for anything else."""
    text = value if isinstance(value, str) else from_pair(value)
    if text is None:
        raise ValueError("neither a text nor an id and values")
    return text


def joined(parts: Iterable[str], between: str = msgid("{first}; {second}")) -> str:
    """The *parts* as one sentence; *between* says how two of them stand together."""
    known = list(parts)
    return reduce(lambda first, second: Text(between, first=first, second=second), known) if known else ""


def labelled(thing: object, what: object) -> Text:
    """*what* is said of *thing*, behind its name."""
    return Text("{thing}: {what}", thing=thing, what=what)


def found_wrong(faults: Iterable[Mapping[str, Any]], whole: str, named: Callable[[str], str] = plain) -> str:
    """The *faults* that pydantic has found, each as ``field: what is wrong``; *whole* is the name of all fields.

    Values are left out, because URLs can hold secrets.
    """
    names = (named(".".join(map(str, one["loc"]))) or Text(whole) for one in faults)
    return joined(map(labelled, names, map(_fault, faults)))


def _fault(fault: Mapping[str, Any]) -> object:
    match fault:
        case {"ctx": {"error": error}}:
            return error
        case {"ctx": {"expected": str(expected)}}:
            return Text("must be one of {choices}", choices=expected.replace(" or ", ", "))
        case {"ctx": {"ge": least}}:
            return Text("Input should be greater than or equal to {least}", least=least)
        case {"ctx": {"gt": bound}}:
            return Text("Input should be greater than {bound}", bound=bound)
        case {"ctx": {"lt": bound}}:
            return Text("Input should be less than {bound}", bound=bound)
    return fault["msg"]


OF_PYDANTIC = (
    msgid("Field required"),
    msgid("Input should be a valid string"),
    msgid("Input should be a valid number"),
    msgid("Input should be a valid number, unable to parse string as a number"),
    msgid("Input should be a finite number"),
    msgid("Input should be a valid integer"),
    msgid("Input should be a valid integer, got a number with a fractional part"),
    msgid("Input should be a valid integer, unable to parse string as an integer"),
    msgid("Input should be a valid mapping"),
    msgid("Input should be a valid dictionary"),
    msgid("Input should be a valid list"),
)
"""What else pydantic finds wrong with a field, in its own words, which catalogues have, too."""

BESIDE = msgid("{first} {second}")
"""How two whole sentences stand together."""


def translated(text: str, language: str) -> str:
    """*text* in *language*, by its id; text without one that is no sentence of ours, as programs say it, stays."""
    if language == ENGLISH:
        return plain(text)
    known = catalogue(language)
    if not isinstance(text, Sentence):
        return known.gettext(text) if " " in text else text  # a word alone is a name
    if not text.id:
        return plain(text)
    pattern = known.gettext(text.id)
    if text.plural is not None:
        pattern = known.ngettext(text.id, text.plural, int(text.args["n"]))

    def wording(value: Any, kind: str) -> str:  # noqa: ANN401 (a number or a text)
        if kind in _OF_UNITS:
            return _UNIT.sub(lambda unit: known.gettext(_UNITS.get(unit[0], unit[0])), _in_english(value, kind))
        return translated(value, language) if isinstance(value, str) and not kind else _in_english(value, kind)

    return _filled(pattern, text.args, wording)


def translator(language: str) -> Callable[..., str]:
    """What writes sentences, given as their ids and values, in *language*: ``t("{n} classes", n=3)``."""
    return lambda id_, /, **args: translated(Text(id_, **args), language)


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The catalogue of *language*; without one, all is English."""
    return gettext.translation("lectern", LOCALE, [language], fallback=True)


@cache
def languages() -> tuple[str, ...]:
    """English, and each language that has a catalogue."""
    return (ENGLISH, *sorted(one.parent.parent.name for one in LOCALE.glob("*/LC_MESSAGES/lectern.po")))


def accepted(header: str) -> str:
    """The language that an ``Accept-Language`` asks for first; English if it has no catalogue."""
    return next((one for one in languages() if header.lower().startswith(one)), ENGLISH)
