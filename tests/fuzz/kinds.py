"""The kinds of odd messages, each drawn by a function."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

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


def brackets(draw: Draw) -> Odd:
    """So deep that a reader falls over, alone or within a field."""
    deep = odd.brackets(draw.chance)
    if draw.chance.random() < 0.4:
        deep = odd.written({**draw.base(), draw.chance.choice(("x", "class_id", "video_url_list")): Raw(deep)})
    return _one(draw, deep)


def surrogates(draw: Draw) -> Odd:
    """Half a pair in any field."""
    return spoiled(draw, draw.base(), odd.of(odd.SURROGATES))


def nuls(draw: Draw) -> Odd:
    """A NUL in any field, written as JSON may."""
    return spoiled(draw, draw.base(), odd.of(odd.NULS))


def numbers(draw: Draw) -> Odd:
    """Numbers too long, too large, or no numbers at all."""
    return spoiled(draw, draw.base(), odd.of(odd.NUMBERS))


def types(draw: Draw) -> Odd:
    """A value of the wrong type in any field."""
    return spoiled(draw, draw.base(), odd.of(odd.TYPES))


def long(draw: Draw) -> Odd:
    """Near and above 64 KiB."""
    return spoiled(draw, draw.base(), odd.long_text)


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
        *("", "ORDER", "order ", "dead_letter", "order_result", "alarm", "changes", "teacher", "a" * 300, "é"),
        *("\0", None, 0, []),
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


def places(draw: Draw) -> Odd:
    """Hosts and ports that are none, in the URLs of a booking."""
    message = booking(draw) if draw.chance.random() < 0.5 else listed(draw)
    name = draw.chance.choice(("push_url", "push_url", "video_url", "video_url_list"))
    if name == "video_url_list":
        message |= {"video_resolution": "720P", name: {"720P": odd.url(draw.chance, "http", "https")}}
    else:
        schemes = ("rtmp", "rtmps") if name == "push_url" else ("http", "https")
        message[name] = odd.url(draw.chance, *schemes)
    if name != "push_url":
        message["record_id"] = draw.record_id
    body = odd.written(message)
    due = draw.class_id if odd.is_readable(body) else None
    return replace(_one(draw, body, to=("order",)), due=due)


def times(draw: Draw) -> Odd:
    """Times that never were, and classes that end before they begin."""
    message = booking(draw)
    chance = draw.chance.random()
    if chance < 0.2:
        message["end_time"] = message["start_time"] - draw.chance.choice((0, 0.001, 1, 1e6))
    elif chance < 0.6:
        message["end_time"] = draw.chance.choice(odd.TIMES)
    else:
        message["start_time"] = draw.chance.choice(odd.TIMES)
        if draw.chance.random() < 0.7:  # else one that began long ago is on air until far away
            message["end_time"] = draw.chance.choice((1, 2, 1_764_010_801, *odd.TIMES))
    body = odd.written(message)
    return replace(_one(draw, body, to=("order",)), due=draw.class_id if odd.is_readable(body) else None)


def resolutions(draw: Draw) -> Odd:
    """Resolutions that are none, alone and as keys."""
    message = {**listed(draw), "video_resolution": draw.chance.choice(odd.RESOLUTIONS)}
    if draw.chance.random() < 0.5:
        message["video_url_list"] = {str(draw.chance.choice(odd.RESOLUTIONS))[:1_000]: message["video_url"]}
    message["record_id"] = draw.record_id
    body = odd.written(message)
    return replace(_one(draw, body, to=("order",)), due=draw.class_id if odd.is_readable(body) else None)


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
    message = booking(draw)
    message[draw.chance.choice(("class_id", "class_id", "institution_id"))] = draw.chance.choice(odd.NAMES)
    return _one(draw, odd.written(message), to=("order",))


def noise(draw: Draw) -> Odd:
    """No message at all."""
    junk = (
        *(b"", b" ", b"null", b"0", b'"order"', b"[]", b"{}", b"{", b"\0", b"\xef\xbb\xbf{}"),
        draw.chance.randbytes(40),
    )
    whole = odd.written(draw.base())
    body = draw.chance.choice(
        (*junk, whole[: draw.chance.randrange(len(whole))], whole + whole, whole + b"\0", b" " * 70_000)
    )
    return _one(draw, body)


def entries(draw: Draw) -> Odd:
    """Entries of a stream that have no body, or several fields, or fields that are no text."""
    body = odd.written(draw.base())
    fields = draw.chance.choice(
        (
            {b"": body},
            {b"BODY": body},
            {b"a": b"1", b"b": b"2"},
            {b"body": b"", b"x": body},
            {b"\xff": b"\xfe", b"\0": b"\0"},
            {b"message": body, b"\xed\xa0\x80": b"1"},
            {name.encode(): odd.written(value) for name, value in draw.base().items()},
            {str(number).encode(): b"x" for number in range(300)},
        )
    )
    return Odd(draw.index, "", (Sending("stream", draw.chance.choice(STREAMS), fields=fields),))


KINDS: Mapping[str, tuple[Draws, int]] = {
    "brackets": (brackets, 4),
    "surrogates": (surrogates, 4),
    "NULs": (nuls, 4),
    "numbers": (numbers, 6),
    "types": (types, 8),
    "long": (long, 2),
    "not UTF-8": (not_utf8, 4),
    "doubled keys": (doubled_keys, 4),
    "commands": (commands, 4),
    "strangers": (strangers, 8),
    "hosts and ports": (places, 5),
    "times": (times, 6),
    "resolutions": (resolutions, 6),
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


def shown(one: Odd) -> str:
    """What was sent, as a person may read and send it again."""
    said = [f"{one.index} ({one.kind})"]
    for sending in one.sendings:
        content = repr(dict(sending.entry)) if sending.via == "stream" else repr(sending.body)
        said.append(f"  {sending.via} {sending.target}: {content[:2_000]}{'…' if len(content) > 2_000 else ''}")
    return "\n".join(said)
