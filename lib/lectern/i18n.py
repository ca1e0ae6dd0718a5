"""Sentences for people: an id, which is the English with named gaps, and its values, written in any language."""

import gettext
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache, lru_cache, reduce
from pathlib import Path
from string import Formatter
from struct import iter_unpack, unpack_from
from typing import Any, NamedTuple, Self

from lectern import formatting

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


class Text(str):
    """A sentence in English that knows its id and its values, so that an edge can write it in another language.

    It is stored, sent, compared and logged as the English that it is. A value is a number, a text, or another `Text`;
    an error is its message. Joined with other texts by ``+`` or an f-string it becomes plain English.
    """

    __slots__ = ("_json", "args", "id", "plural")
    id: str
    plural: str | None
    args: Mapping[str, Any]
    _json: str | None

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
        self.id, self.plural, self.args, self._json = id_, plural, args, None
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._made, (self.id, self.plural, dict(self.args))

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


def _value(one: object) -> Any:  # noqa: ANN401 (a number or a text)
    if type(one) in _VALUES:
        return one
    if isinstance(one, BaseException):
        one = getattr(one, "message", None) or (one.args[0] if one.args and isinstance(one.args[0], Text) else str(one))
    if isinstance(one, Text | int | float) and not isinstance(one, bool):
        return one
    if isinstance(one, StrEnum):
        return Text(one.value)
    return str(one)


_VALUES = frozenset({Text, str, int, float})


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
            is_written = wording is None and not kind and isinstance(value, str)
            said += value if is_written else (wording or _in_english)(value, kind)
    return said


def _in_english(value: Any, kind: str) -> str:  # noqa: ANN401 (a number or a text)
    if isinstance(value, str):  # a number in a sentence that was found by its English is written already
        return value if kind in KINDS or kind.endswith(("f", "g", ",")) else format(value, kind)
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
    if not isinstance(text, Text):
        return None
    if text._json is None:
        text._json = _JSON.encode(text.pair())
    return text._json


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
    if not isinstance(text, Text):
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


def packed(text: str) -> str | dict[str, Any]:
    """A sentence for JSON that has a place for texts: its `pair`; plain words as they are."""
    return text.pair() if isinstance(text, Text) else text


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


BESIDE = msgid("{first} {second}")
"""How two whole sentences stand together."""


def translated(text: str, language: str, deep: int = 0) -> str:
    """*text* in *language*: by its id, or by its English if it came without one; words of programs stay as they are.

    *deep* counts the sentences around it.
    """
    if language == ENGLISH:
        return plain(text)
    text = text if isinstance(text, Text) else _recognized(text, language, deep)
    if not isinstance(text, Text) or not text.id:
        return plain(text)
    known = catalogue(language)
    pattern = known.gettext(text.id)
    if text.plural is not None:
        pattern = known.ngettext(text.id, text.plural, int(text.args["n"]))

    def wording(value: Any, kind: str) -> str:  # noqa: ANN401 (a number or a text)
        if kind in _OF_UNITS:
            return _UNIT.sub(lambda unit: known.gettext(_UNITS.get(unit[0], unit[0])), _in_english(value, kind))
        if isinstance(value, str) and not kind and (isinstance(value, Text) or " " in value):
            return translated(value, language, deep + 1)  # a word alone is a name
        return _in_english(value, kind)

    return _filled(pattern, text.args, wording)


# Finds the id of a sentence that came without one: the playout and rows have English alone.
class _Form(NamedTuple):
    """An id with gaps, as it is looked for: *longest* are the words by which most texts are passed over."""

    id: str
    plural: str | None
    longest: str
    pattern: "re.Pattern[str]"


_NUMBER, _COUNT = r"[+-]?[\d,]+(?:\.\d+)?", r"\d[\d,]{0,14}"
_SPAN = r"\d+(?:\.\d+)? (?:d|h|min|s)(?: \d+ (?:h|min|s))*"
_LOOKS: Mapping[str, str] = {
    "moment": r"\d{4}-[\d: -]+",
    "clock": r"\d\d:\d\d:\d\d",
    "position": r"[\d:]+",
    "size": r"[\d,.]+ (?:bytes|kB|MB|GB)",
    **dict.fromkeys(("span", "length", "minutes"), _SPAN),
}
_MOST_PARTS, _DEEPEST = 30, 8
"""Number of sentences that stand together, and that stand in each other; what is beyond stays English."""
_LEAST = 5
"""Number of letters between gaps by which a sentence is known; fewer, as in ``on {streamer}``, may be a program's."""


@lru_cache(maxsize=4096)
def _recognized(english: str, language: str, deep: int) -> str:
    """The sentence of the catalogue of *language* whose English is *english*; plain words if there is none."""
    whole = _whole(english, language, deep)
    if whole is not None or "; " not in english:
        return english if whole is None else whole
    parts = english.split("; ", _MOST_PARTS)
    known = [_whole(one, language, deep) for one in parts]
    return joined(one or other for one, other in zip(known, parts, strict=True)) if any(known) else english


def _whole(english: str, language: str, deep: int) -> Text | None:
    """A single sentence, or one after the class, the host or the URL that it is about."""
    if deep > _DEEPEST:
        return None
    exact, forms = _forms(language)
    if " " not in english:  # a word alone is a name
        return None
    if english in exact:
        return Text(english)
    several = "; " in english
    for form in forms:
        if form.longest in english and (not several or "; " in form.id) and (gaps := form.pattern.fullmatch(english)):
            return _of_gaps(form, gaps.groupdict(), language, deep + 1)
    name, _, rest = english.partition(": ")
    what = _whole(rest, language, deep + 1) if rest else None
    thing = _whole(name, language, deep + 1) if rest and (what is None or " " in name) else None
    if thing is None and (what is None or " " in name):
        return None
    return labelled(thing or name, what or rest)


def _of_gaps(form: _Form, gaps: Mapping[str, str], language: str, deep: int) -> Text | None:
    kinds = {name: (kind, conversion) for _, name, kind, conversion in _parts(form.plural or form.id) if name}
    args = {
        name: one[1:-1] if conversion == "r" else one if kind else _recognized(one, language, deep)
        for name, one in gaps.items()
        for kind, conversion in [kinds.get(name, ("", None))]
    }
    if form.plural is None:
        return Text._made(form.id, None, args)
    return Text._made(form.id, form.plural, {**args, "n": int(gaps.get("n", "1").replace(",", ""))})


@cache
def _forms(language: str) -> tuple[frozenset[str], Sequence[_Form]]:
    """The ids of the catalogue of *language*: those without gaps, and the others, those of the most words first."""
    exact, forms = set[str](), []
    for path in LOCALE.glob(f"{language}/LC_MESSAGES/lectern.mo"):
        compiled = path.read_bytes()
        number, at = unpack_from("<2I", compiled, 8)
        for length, begins in iter_unpack("<2I", compiled[at : at + 8 * number]):
            id_, _, plural = compiled[begins : begins + length].decode().partition("\0")
            forms += [_form(id_, plural or None, each) for each in {id_, plural or id_} if "{" in each]
            exact |= set() if plural or "{" in id_ else {id_}
    forms = [form for form in forms if len(re.findall("[A-Za-z]", form.longest)) >= _LEAST]
    return frozenset(exact), sorted(forms, key=lambda form: -len(re.sub(r"{[^}]*}", "", form.id)))


def _form(id_: str, plural: str | None, pattern: str) -> _Form:
    parts, written = _parts(pattern), ""
    for at, (words, name, kind, _) in enumerate(parts):
        written += re.escape(words)
        if name is not None:
            is_last = at + 1 == len(parts) or (at + 2 == len(parts) and not parts[-1][0])
            looks = _LOOKS.get(kind) or (_NUMBER if kind[-1:] in {",", "f", "g"} else None)
            looks = _COUNT if plural and name == "n" else looks or (".+" if is_last else r"(?:[^:;]|[:;](?! ))+?")
            written += f"(?P={name})" if f"(?P<{name}>" in written else f"(?P<{name}>{looks})"
    return _Form(id_, plural, max((words for words, *_ in parts), key=len), re.compile(written, re.DOTALL))


def translator(language: str) -> Callable[..., str]:
    """What writes sentences, given as their ids and values, in *language*: ``t("{n} classes", n=3)``."""

    def t(id_: str, /, **args: object) -> str:
        return translated(Text(id_, **args), language)

    return t


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
