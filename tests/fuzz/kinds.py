"""The kinds of odd messages, each drawn by a function."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from tests.fuzz import odd_values as odd
from tests.fuzz.odd_messages import (
    STREAMS,
    Draw,
    Fields,
    Here,
    Odd,
    Sending,
    booking,
    listed,
    prepare,
    report,
    result,
    specials,
    spoiled,
)
from tests.fuzz.odd_values import Pairs, Raw

Draws = Callable[[Draw], Odd]


def _one(draw: Draw, body: bytes, *, to: tuple[str, ...] = STREAMS) -> Odd:
    return Odd(draw.index, "", (draw.sending(body, to=to),))


def any_field(values: odd.Pick, draw: Draw) -> Odd:
    """One of *values* in any field of any message."""
    return spoiled(draw, draw.base(), values)


def its_field(draw: Draw) -> Odd:
    """In a field of a booking what is odd for it: times that never were, resolutions, hosts and ports that are none."""
    message = draw.chance.choice((booking(draw), listed(draw), listed(draw)))
    return spoiled(draw, {**message, "record_id": draw.record_id}, keep=("cmd", "class_id"))


def brackets(draw: Draw) -> Odd:
    """So deep that a reader falls over, alone or within a field."""
    deep = odd.brackets(draw.chance)
    if draw.chance.random() < 0.4:
        deep = odd.written({**draw.base(), draw.chance.choice(("x", "class_id", "video_url_list")): Raw(deep)})
    return _one(draw, deep)


def not_utf8(draw: Draw) -> Odd:
    """Bytes that are no text, somewhere in a message."""
    body = bytearray(odd.written(draw.base()))
    for _ in range(draw.chance.choice((1, 1, 3))):
        at = draw.chance.randrange(len(body) + 1)
        body[at:at] = odd.bad_bytes(draw.chance)
    return _one(draw, bytes(body))


def doubled_keys(draw: Draw) -> Odd:
    """A key that comes more than once, with another value."""
    pairs: list[tuple[object, object]] = list(draw.base().items())
    for key, _ in draw.chance.sample(pairs, k=2):
        value = draw.chance.choice((draw.chance.choice(odd.TYPES), draw.chance.choice(odd.NAMES)))
        pairs.insert(draw.chance.randrange(len(pairs) + 1), (key, value))
    return _one(draw, odd.written(Pairs(pairs)))


def commands(draw: Draw) -> Odd:
    """A command that nobody knows, or none."""
    odd_ones: tuple[object, ...] = (
        "",
        "ORDER",
        "order ",
        "dead_letter",
        "order_result",
        "alarm",
        "a" * 300,
        "é",
        "\0",
        None,
        0,
        [],
    )
    message = {**draw.base(), "cmd": draw.chance.choice(odd_ones)}
    if draw.chance.random() < 0.2:
        del message["cmd"]
    return _one(draw, odd.written(message))


def strangers(draw: Draw) -> Odd:
    """What only hosts say to each other, said by a stranger, to anybody; odd names and placements among it."""
    session = draw.chance.choice((f"s-{draw.index}", *odd.NAMES))
    grant: Fields = {"cmd": "grant", "streamer": draw.here.streamer, "session": session}
    message = draw.chance.choice((report(draw), report(draw), prepare(draw), grant))
    if message is grant and draw.chance.random() < 0.5:
        grant["streamer"] = draw.chance.choice(odd.NAMES)
    elif draw.chance.random() < 0.4 and message.get("class_id") == draw.class_id:
        message["class_id"] = draw.chance.choice(odd.NAMES)
    return _one(draw, odd.written(message), to=(*STREAMS, "report", "streamer"))


def results(draw: Draw) -> Odd:
    """Of renditions that nobody asked for; stale, doubled and contradicting ones of one that somebody did."""
    if draw.chance.random() < 0.5:
        return _one(draw, odd.written(result(draw)), to=("transcoding",))
    asked = booking(draw, record_id=draw.record_id, video_resolution="720P", video_url_list={})
    said = [result(draw, attempt=draw.chance.choice((None, 0, 1, 2, 10**9))) for _ in range(draw.chance.choice((2, 3)))]
    sendings = [draw.sending(odd.written(one), to=("transcoding",)) for one in [*said, said[0]]]
    return Odd(draw.index, "", (Sending("stream", "order", odd.written(asked)), *sendings), draw.class_id)


def again(draw: Draw) -> Odd:
    """A booking that is delivered a second time, differently."""
    first = booking(draw)
    name = draw.chance.choice(sorted(first.keys() - {"cmd", "class_id"}))
    second = {**first, name: draw.chance.choice((specials(name)(draw.chance), first[name]))}
    sendings = [draw.sending(odd.written(one), to=("order",)) for one in (first, second)]
    return Odd(draw.index, "", tuple(sendings), draw.class_id)


def cancels(draw: Draw) -> Odd:
    """Of classes that nobody booked."""
    class_id = draw.chance.choice((draw.class_id, draw.chance.choice(odd.NAMES)))
    return _one(draw, odd.written({"cmd": "cancel", "class_id": class_id}))


def names(draw: Draw) -> Odd:
    """Quotes, dots, colons, and 250 or 251 characters."""
    name = draw.chance.choice(("class_id", "class_id", "institution_id"))
    return _one(draw, odd.written({**booking(draw), name: draw.chance.choice(odd.NAMES)}), to=("order",))


def noise(draw: Draw) -> Odd:
    """No message at all."""
    junk = (b"", b" ", b"null", b"0", b'"order"', b"[]", b"{}", b"{", b"\0", b"\xef\xbb\xbf{}", b" " * 70_000)
    whole = odd.written(draw.base())
    cut = whole[: draw.chance.randrange(len(whole))]
    return _one(draw, draw.chance.choice((*junk, draw.chance.randbytes(40), cut, whole + whole, whole + b"\0")))


def entries(draw: Draw) -> Odd:
    """Entries of a stream that have no body, or several fields, or fields that are no text."""
    body = odd.written(draw.base())
    fields: tuple[dict[bytes, bytes], ...] = (
        *({b"": body}, {b"BODY": body}, {b"a": b"1", b"b": b"2"}, {b"body": b"", b"x": body}),
        *({b"\xff": b"\xfe", b"\0": b"\0"}, {b"message": body, b"\xed\xa0\x80": b"1"}),
        {name.encode(): odd.written(value) for name, value in draw.base().items()},
        {str(number).encode(): b"x" for number in range(300)},
    )
    return Odd(draw.index, "", (Sending("stream", draw.chance.choice(STREAMS), fields=draw.chance.choice(fields)),))


KINDS: Mapping[str, tuple[Draws, int]] = {
    "brackets": (brackets, 4),
    "surrogates": (partial(any_field, odd.of(odd.SURROGATES)), 4),
    "NULs": (partial(any_field, odd.of(odd.NULS)), 4),
    "numbers": (partial(any_field, odd.of(odd.NUMBERS)), 6),
    "types": (partial(any_field, odd.of(odd.TYPES)), 8),
    "long": (partial(any_field, odd.long_text), 2),
    "its field": (its_field, 17),
    "not UTF-8": (not_utf8, 4),
    "doubled keys": (doubled_keys, 4),
    "commands": (commands, 4),
    "strangers": (strangers, 8),
    "results": (results, 5),
    "differently again": (again, 5),
    "cancels": (cancels, 4),
    "names": (names, 5),
    "noise": (noise, 6),
    "entries": (entries, 4),
}
"""By the name of a kind: how it is drawn, and how often in comparison."""


TWO_WAYS = frozenset({"differently again", "names", "doubled keys"})
"""Kinds in which a class_id stands for two bookings: a refused one may be sent again, corrected."""


def drawn(here: Here, index: int) -> Odd:
    """The odd message number *index* of a seed; no other number has a say in it."""
    chance = random.Random(f"{here.seed} {index}")
    kind = chance.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    return replace(KINDS[kind][0](Draw(chance, index, here)), index=index, kind=kind)
