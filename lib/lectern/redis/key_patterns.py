"""Patterns of Redis key names, the rules that rename keys, and whether keys have the types that they need."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from types import MappingProxyType

from lectern.errors import Misuse
from lectern.i18n import Text, msgid
from lectern.redis.client import Bus
from lectern.settings import Settings, StreamerSettings
from lectern.states import Resolution
from lectern.wire.parser import PUBLISHED

MAX_FIELDS = 9
_FIELD = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_DIGITS = "0123456789"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class KeyKind:
    """The values of a field, in the three languages; each value ends in *ending*, which is none of its *letters*."""

    letters: str
    ending: str
    regex: str
    glob: str
    lua: str
    check: str  # in Lua, of a captured text {0}: what *lua* cannot express


RECORD_ID = KeyKind(_DIGITS, "", "[0-9]{1,19}", "[0-9]*", "%d+", "#{0} <= 19")
_ANY_OF = " or ".join(f"{{0}} == '{one}'" for one in Resolution)
RESOLUTION = KeyKind(_DIGITS, "P", "|".join(Resolution), "[0-9]*P", "%d+P", f"({_ANY_OF})")
NAME = KeyKind(f"{_DIGITS}{_LETTERS}_.:-", "", "[A-Za-z0-9_.:-]{1,250}", "?*", "[A-Za-z0-9_.:%-]+", "#{0} <= 250")
KINDS: Mapping[str, KeyKind] = MappingProxyType({"record_id": RECORD_ID, "resolution": RESOLUTION})
"""The kinds of fields by name; every other field is a NAME: a class_id, an institution_id, a host."""

_Step = tuple[frozenset[int], bool]
"""The bytes that may come next in a name, and whether they may be repeated."""


@dataclass(frozen=True)
class Pattern:
    """A pattern of key names, such as ``waiting:{record_id}:{resolution}``."""

    text: str
    parts: tuple[str, ...]
    """Literals and fields alternately; the first and the last part are literals, which can be empty."""

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Parse *text*; raises Misuse if it is no pattern, or if names could match it in two ways."""
        made = cls(text, tuple(_FIELD.split(text)))
        if not text or not text.isprintable() or len(text) > 250:
            raise Misuse(
                "{text!r:.80} is no pattern of keys. Write 1 to 250 characters, no line breaks among them.", text=text
            )
        if any(brace in literal for literal in made.parts[::2] for brace in "{}"):
            raise Misuse(
                "{text}: a brace belongs to no field. Write fields as {{record_id}}, in lower case.", text=text
            )
        if "*" in text and not made.fields:
            raise Misuse(
                "{text}: a * is no wildcard here, so this fits one key at most. Write a field for what differs "
                "from key to key, for example waiting:{{class_id}}.",
                text=text,
            )
        doubled = {name for name in made.fields if made.fields.count(name) > 1}
        if doubled or len(made.fields) > MAX_FIELDS:
            wrong = msgid("{text}: each field may be named once, and at most {most} of them. Write it anew.")
            raise Misuse(wrong, text=text, most=MAX_FIELDS)
        if _meet(made.steps, made.steps, apart=True):
            raise Misuse(
                "{text}: a name could be taken apart in two ways. Put a character between its fields that neither "
                "of them may hold, for example | or /.",
                text=text,
            )
        return made

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields, in their order."""
        return self.parts[1::2]

    @property
    def steps(self) -> tuple[_Step, ...]:
        """The pattern as a chain of steps, by which overlaps and ambiguities are found."""
        made: list[_Step] = []
        for literal, kind in self._pairs():
            made += [(frozenset([byte]), False) for byte in literal.encode()]
            if kind is not None:
                made.append((frozenset(kind.letters.encode()), True))
                made += [(frozenset([byte]), False) for byte in kind.ending.encode()]
        return tuple(made)

    @cached_property
    def regex(self) -> re.Pattern[bytes]:
        """The regular expression, for fullmatch; its groups are the fields."""
        source = b""
        for at, part in enumerate(self.parts):
            kind = KINDS.get(part, NAME)
            source += f"(?P<{part}>{kind.regex})".encode() if at % 2 else re.escape(part.encode())
        return re.compile(source)

    @property
    def glob(self) -> str:
        """The glob for SCAN; it matches every name that fits, and some that do not.

        If names begin with a literal, the glob is only that prefix: the server matches longer globs far more slowly.
        """
        escaped = [(re.sub(r"([*?\[\]^\\])", r"\\\1", literal), kind) for literal, kind in self._pairs()]
        first, kind = escaped[0]
        if first and kind:
            return f"{first}*"
        return "".join(literal + (kind.glob if kind else "") for literal, kind in escaped)

    @property
    def lua(self) -> str:
        """The pattern for Lua's string.match; it captures the fields, which must be checked afterwards."""
        escaped = (
            re.sub(r"([^A-Za-z0-9\x80-\U0010ffff])", r"%\1", literal) + (f"({kind.lua})" if kind else "")
            for literal, kind in self._pairs()
        )
        return f"^{''.join(escaped)}$"

    def name(self, **values: object) -> str:
        """The name of the key with these *values*."""
        return self.text.format(**values)

    def values(self, name: bytes) -> dict[str, str] | None:
        """The fields in *name*, or None if it does not fit."""
        found = self.regex.fullmatch(name)
        return {field: value.decode() for field, value in found.groupdict().items()} if found else None

    def meets(self, other: "Pattern") -> bool:
        """Whether one name could fit both patterns; lengths and known resolutions are not checked."""
        return _meet(self.steps, other.steps, apart=False)

    def _pairs(self) -> Iterator[tuple[str, KeyKind | None]]:
        kinds = [KINDS.get(field, NAME) for field in self.fields]
        yield from zip(self.parts[::2], [*kinds, None], strict=True)


def _meet(one: tuple[_Step, ...], other: tuple[_Step, ...], *, apart: bool) -> bool:
    """Whether both chains of steps can match one name; with *apart*, only if they match it in different ways."""
    seen = {(0, 0, False)}
    todo = list(seen)
    while todo:
        at, there, parted = todo.pop()
        if (at, there) == (len(one), len(other)) and parted >= apart:
            return True
        for next_at, bytes_ in _moves(one, at):
            for next_there, others in _moves(other, there):
                state = (next_at, next_there, parted or next_at != next_there)
                if state not in seen and bytes_ & others:
                    seen.add(state)
                    todo.append(state)
    return False


def _moves(steps: tuple[_Step, ...], at: int) -> Iterator[tuple[int, frozenset[int]]]:
    if at < len(steps):
        yield at + 1, steps[at][0]
    if at and steps[at - 1][1]:
        yield at, steps[at - 1][0]


@dataclass(frozen=True)
class Rule:
    """A rule that renames keys from the pattern *old* to the pattern *new*."""

    old: Pattern
    new: Pattern

    @classmethod
    def parse(cls, old: str, new: str) -> "Rule":
        """A rule such as ``waiting:{record_id}:{resolution}`` to ``{record_id}_{resolution}``.

        Raises Misuse if the two differ in their fields, a pattern can match in two ways, or a renamed key would
        be renamed again.
        """
        made = cls(Pattern.parse(old), Pattern.parse(new))
        if set(made.old.fields) != set(made.new.fields):
            raise Misuse(
                "{made}: the fields of the two differ ({old} and {new}). Name the same fields on both sides, each "
                "once.",
                made=made,
                old=", ".join(made.old.fields) or "none",
                new=", ".join(made.new.fields) or "none",
            )
        if made.old.meets(made.new):
            raise Misuse(
                "{made}: a renamed key could be renamed again. Let the two differ in a fixed character.", made=made
            )
        return made

    @property
    def inverse(self) -> "Rule":
        """The rule that renames the keys back."""
        return Rule(self.new, self.old)

    def __str__(self) -> str:
        return f"{self.old.text} => {self.new.text}"


def rules_in(lines: Sequence[str], *, back: bool = False) -> list[Rule]:
    """Parse rules from *lines* ``OLD => NEW``, and check them against each other; with *back*, returns their inverses.

    Skips empty lines and lines that begin with #. Raises Misuse.
    """
    rules: list[Rule] = []
    for line in (one.strip() for one in lines):
        if line and not line.startswith("#"):
            old, arrow, new = (part.strip() for part in line.partition("=>"))
            if not arrow:
                raise Misuse(
                    "{line!r:.80} is no rule. Write OLD=>NEW, for example 'a:{{class_id}}=>b:{{class_id}}'.", line=line
                )
            rules.append(Rule.parse(old, new))
    check(rules)
    return [rule.inverse for rule in rules] if back else rules


def check(rules: Sequence[Rule]) -> None:
    """Raise Misuse unless each name fits one rule at most, as an old or as a new name."""
    if not rules:
        raise Misuse(Text("No rule is given. Write OLD=>NEW, for example 'w:{{record_id}}=>{{record_id}}'."))
    for one, other in combinations(rules, 2):
        for left, right in product((one.old, one.new), (other.old, other.new)):
            if left.meets(right):
                raise Misuse(
                    "{one} and {other}: a name could fit both {first} and {second}, and be renamed twice. Let "
                    "them differ in a fixed character, or run them one after the other.",
                    one=one,
                    other=other,
                    first=left.text,
                    second=right.text,
                )


async def type_faults(bus: Bus, settings: Settings) -> list[str]:
    """A sentence for each key of a host of these *settings* that has a wrong type: Redis would refuse what is sent."""
    hashes = [f"{settings.streamers_key}{part}" for part in ("", ":lease", ":claims", ":words")]
    streams = [settings.alarm_channel, settings.report_stream, settings.dead_letter_stream]
    if isinstance(settings, StreamerSettings):
        streams.append(settings.streamer_stream.format(name=settings.name))
    else:
        streams += [settings.order_result_channel, settings.change_result_channel]
        streams += [settings.cancel_result_channel, settings.class_event_channel]
        streams += [getattr(settings, one.comes_by) for one in PUBLISHED.values()]
    keys = dict.fromkeys(hashes, "hash") | dict.fromkeys(streams, "stream")
    found = await bus.types(list(keys))
    return [
        f"Redis: the key {name} is a {found[name]}, but must be a {kind}: 505 in RUNBOOK.md. Rename it "
        f"(redis-cli RENAMENX {name} {name}.old), or give the setting of that name another value."
        for name, kind in keys.items()
        if found[name] not in {kind, "none"}
    ]
