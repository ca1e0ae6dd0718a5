"""Reads what the old program left in Redis: its waiting lists, and the bookings of their classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import redis
from pydantic_core import from_json, to_json

from lectern.commands import MAX_BODY_BYTES, parse
from lectern.effects.redis.key_patterns import Pattern
from lectern.errors import Malformed, Misuse
from lectern.facts import RenditionKey
from lectern.messages import Booking
from lectern.rollout.wording import shown
from lectern.states import Resolution
from lectern.stems import stem
from lectern.wire import is_name

SLICE = 200
"""Number of classes that are looked at together: each booking can have 64 KiB."""

_NOT_TEXT = ("record_id", "start_time", "end_time", "video_url_list")
"""Fields of a booking that a hash can only hold as JSON."""


@dataclass(frozen=True)
class Names:
    """The names of the old program's keys; *orders* is None if it keeps no bookings."""

    waiting: Pattern
    orders: Pattern | None

    @classmethod
    def parse(cls, waiting_key: str, order_key: str | None) -> "Names":
        """Read both patterns; raises Misuse if one lacks a field that it must have."""
        waiting, orders = Pattern.parse(waiting_key), Pattern.parse(order_key) if order_key else None
        if set(waiting.fields) != {"record_id", "resolution"}:
            raise Misuse(f"waiting_key {waiting_key}: write it with {{record_id}} and {{resolution}}.")
        if orders is not None and orders.fields != ("class_id",):
            raise Misuse(f"order_key {order_key}: write it with {{class_id}}, or leave it out.")
        return cls(waiting, orders)


@dataclass(frozen=True)
class Waiter:
    """A class on the waiting list *name* of a rendition; what is no class_id is written readably.

    *wrong* says why no program will ever read the list; it is empty if one will.
    """

    name: str
    key: RenditionKey
    class_id: str
    wrong: str = ""

    @property
    def stem(self) -> str:
        """The rendition's id on a streamer."""
        return stem(*self.key)


def waiters(client: redis.Redis, names: Names) -> Iterator[list[Waiter]]:
    """The classes on all waiting lists, in slices, in the order of each list; a wrong list gives one without a name."""
    found = _waiters(client, names)
    while some := list(islice(found, SLICE)):
        yield list(dict.fromkeys(some))


def _waiters(client: redis.Redis, names: Names) -> Iterator[Waiter]:
    for found in slices_of(client, names.waiting):
        with client.pipeline(transaction=False) as pipe:
            for name, _ in found:
                pipe.type(name)
                pipe.lrange(name, 0, SLICE - 1)
            answers = pipe.execute(raise_on_error=False)
        for (name, values), kind, first in zip(found, answers[::2], answers[1::2], strict=True):
            wanted = first if kind == b"list" else kind
            if isinstance(wanted, Exception):
                raise wanted  # for example, the Redis user may not read it
            key, wrong = (int(values["record_id"]), Resolution(values["resolution"])), ""
            if names.waiting.name(record_id=key[0], resolution=key[1]).encode() != name or key[0] >= 2**63:
                wrong = f"{values['record_id']} is not how a record_id is written"
            elif kind != b"list":
                wrong = f"it is a {kind.decode()}, not a list"
            classes = [""] if wrong else map(_class, _whole(client, name, first))
            yield from (Waiter(name.decode(), key, one, wrong) for one in classes)


def _whole(client: redis.Redis, name: bytes, first: list[bytes]) -> Iterator[bytes]:
    """The entries of a list of which the *first* are known, read in slices of SLICE entries."""
    start = 0
    while first:
        yield from first
        start += len(first)
        first = cast("list[bytes]", client.lrange(name, start, start + SLICE - 1)) if len(first) == SLICE else []


def _class(entry: bytes) -> str:
    if entry.isascii() and is_name(entry.decode()):
        return entry.decode()
    return shown(entry[:250].decode(errors="surrogateescape"))


def slices_of(client: redis.Redis, pattern: Pattern) -> Iterator[list[tuple[bytes, dict[str, str]]]]:
    """The keys that match, with the values of their fields, in slices."""
    scanned = ((name, pattern.values(name)) for name in client.scan_iter(match=pattern.glob, count=1000))
    fitting = ((name, values) for name, values in scanned if values is not None)
    while found := list(islice(fitting, SLICE)):
        yield found


def booked(client: redis.Redis, names: Names, some: Sequence[Waiter], now: float) -> list[Booking | str]:
    """The old program's booking of each waiter; or why it is of no use: missing, damaged, over, or for another list."""
    if names.orders is None:
        return ["no order_key says where its booking is"] * len(some)
    real = [one.class_id for one in some if is_name(one.class_id)]
    found = dict(zip(real, bookings(client, names.orders, real), strict=True))
    return [_for_list(found.get(one.class_id, "that is no class_id"), one, now) for one in some]


def _for_list(found: Booking | str, waiter: Waiter, now: float) -> Booking | str:
    if isinstance(found, str):
        return found
    if found.stem != waiter.stem:
        return f"its booking is for {found.stem}"
    return found if found.end_time > now else f"it ended {now - found.end_time:.0f} s ago"


def bookings(client: redis.Redis, orders: Pattern, class_ids: Sequence[str]) -> list[Booking | str]:
    """The old program's booking of each class, from a JSON string or a hash; if there is none, the reason."""
    names = [orders.name(class_id=class_id) for class_id in class_ids]
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.type(name)
        kinds: list[bytes] = pipe.execute()
        for name, kind in zip(names, kinds, strict=True):
            if kind == b"hash":
                pipe.hgetall(name)
            elif kind == b"string":
                pipe.getrange(name, 0, MAX_BODY_BYTES)
            else:
                pipe.exists(name)  # so that each class has an answer
        values = pipe.execute()
    return [
        _booking(class_id, name, kind, value)
        for class_id, name, kind, value in zip(class_ids, names, kinds, values, strict=True)
    ]


def _booking(class_id: str, name: str, kind: bytes, value: Any) -> Booking | str:  # noqa: ANN401 (what Redis holds)
    if kind not in {b"hash", b"string"}:
        return f"there is no {name}" if kind == b"none" else f"{name} is a {kind.decode()}, no booking"
    try:
        booking = parse(_wire(value), (Booking,))
    except Malformed as error:
        return f"{name} is no booking: {error.message}"
    except ValueError as error:
        return f"{name} is no booking: {error}"
    return booking if booking.class_id == class_id else f"{name} is the booking of {booking.class_id}"


def _wire(value: bytes | dict[bytes, bytes]) -> bytes:
    """The booking as a message; it may be kept without its ``cmd``, and a hash holds texts only."""
    if isinstance(value, bytes):
        fields = from_json(value, allow_inf_nan=False) if len(value) <= MAX_BODY_BYTES else None
        return value if not isinstance(fields, dict) or "cmd" in fields else to_json({"cmd": "order", **fields})
    fields = {name.decode(errors="replace"): text.decode(errors="replace") for name, text in value.items()}
    for name in _NOT_TEXT:
        if name in fields:
            fields[name] = from_json(fields[name], allow_inf_nan=False)
    return to_json({"cmd": "order", **fields})
