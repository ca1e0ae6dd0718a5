"""Takes over the old program's waiting lists from Redis: their classes go on waiting here, with a deadline."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import redis
from pydantic_core import from_json, to_json
from sqlalchemy import Connection, inspect

from lectern import errors
from lectern.db import bookings, events, inbox, transcodings
from lectern.db.inbox import ReceivedMessage
from lectern.decide.booking import is_listed
from lectern.decide.transcoding import source
from lectern.errors import Malformed, Misuse
from lectern.i18n import Text, msgid
from lectern.model.facts import Attempt, Event, RenditionKey
from lectern.model.tables.teacher import orders
from lectern.redis.key_patterns import Pattern
from lectern.redis.rename import Rule
from lectern.rendition_ids import stem
from lectern.rollout import redis_keys
from lectern.rollout.result import shown
from lectern.states import Backend, BookingState, RenditionState, Resolution
from lectern.wire.fields import is_name
from lectern.wire.messages import Booking
from lectern.wire.parser import MAX_BODY_BYTES, parse

_NOT_TEXT = ("record_id", "start_time", "end_time", "video_url_list")
"""Fields of a booking that a hash can only hold as JSON."""


@dataclass(frozen=True)
class Waiter:
    """A class on the waiting list *name* of a rendition; what is no class_id is written readably.

    *wrong* says why no program will ever read the list; it is empty if one will.
    """

    name: str
    key: RenditionKey
    class_id: str
    wrong: str = ""


def _class(entry: bytes) -> str:
    if entry.isascii() and is_name(entry.decode()):
        return entry.decode()
    return shown(entry[:250].decode(errors="surrogateescape"))


def read_bookings(client: redis.Redis, orders: Pattern, class_ids: Sequence[str]) -> list[Booking | str]:
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
        if kind == b"none":
            return Text("there is no {missing}", missing=name)
        return Text("{name} is a {kind}, no booking", name=name, kind=kind.decode())
    try:
        booking = parse(_wire(value), (Booking,))
    except (Malformed, ValueError) as error:
        return Text("{name} is no booking: {error}", name=name, error=error)
    if booking.class_id == class_id:
        return booking
    return Text("{name} is the booking of {class_id}", name=name, class_id=booking.class_id)


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


ADOPTED = "adopted from the old program"
NAMED = 10
"""Greatest number of classes that cannot simply go on waiting and that get a sentence of their own."""

_AT_ONCE = 1000
"""Number of transcodings that are begun at a time: a statement takes no more than some thousand keys."""


def before(key: str, rules: Sequence[Rule]) -> str:
    """The pattern under which *key* is found before *rules* are applied."""
    return next((rule.old.text for rule in rules if rule.new.text == key), key)


class OldLists:
    """The classes that the old program has left on waiting lists in Redis, and what becomes of them here.

    Redis is looked through at once, before a transaction is begun: a large one takes longer than a session of
    PostgreSQL may stand still in one, and no other teacher writes meanwhile.
    """

    def __init__(self, client: redis.Redis, waiting_key: str, order_key: str | None, now: float) -> None:
        """Read all lists as they are at *now* (epoch seconds); without an *order_key* there are no bookings.

        Raises Misuse if a pattern lacks a field that it must have.
        """
        self._client, self._now = client, now
        self._waiting = Pattern.parse(waiting_key)
        self._orders = Pattern.parse(order_key) if order_key else None
        if set(self._waiting.fields) != {"record_id", "resolution"}:
            raise Misuse(
                "waiting_key {waiting_key}: write it with {{record_id}} and {{resolution}}.", waiting_key=waiting_key
            )
        if self._orders is not None and self._orders.fields != ("class_id",):
            raise Misuse("order_key {order_key}: write it with {{class_id}}, or leave it out.", order_key=order_key)
        self._waiters = [*self._read()]
        self.waiting = 0  # the number of classes that go on waiting here
        self._named: list[str] = []  # a sentence for each class that cannot simply wait on

    def _read(self) -> Iterator[Waiter]:
        """The classes on all lists, in the order of each list; a wrong list gives one without a name."""
        for keys in redis_keys.slices_of(self._client, self._waiting):
            with self._client.pipeline(transaction=False) as pipe:
                for name, _ in keys:
                    pipe.type(name)
                    pipe.lrange(name, 0, redis_keys.SLICE - 1)
                answers = pipe.execute(raise_on_error=False)
            for (name, values), kind, first in zip(keys, answers[::2], answers[1::2], strict=True):
                wanted = first if kind == b"list" else kind
                if isinstance(wanted, Exception):
                    raise wanted  # for example, the Redis user may not read it
                key, wrong = (int(values["record_id"]), Resolution(values["resolution"])), ""
                if self._waiting.name(record_id=key[0], resolution=key[1]).encode() != name or key[0] >= 2**63:
                    wrong = Text("{id} is not how a record_id is written", id=values["record_id"])
                elif kind != b"list":
                    wrong = Text("it is a {kind}, not a list", kind=kind.decode())
                classes = [""] if wrong else map(_class, self._whole(name, first))
                yield from (Waiter(name.decode(), key, class_id, wrong) for class_id in classes)

    def _whole(self, name: bytes, first: list[bytes]) -> Iterator[bytes]:
        """The entries of a list of which the *first* are known, read in slices of SLICE entries."""
        start, most = 0, redis_keys.SLICE
        while first:
            yield from first
            start += len(first)
            is_more = len(first) == most
            first = cast("list[bytes]", self._client.lrange(name, start, start + most - 1)) if is_more else []

    def planned(self, connection: Connection) -> list[str]:
        """What `adopt` would do, in sentences; reads only, also a database that is not upgraded yet."""
        for _ in self._sorted(connection):
            pass  # iterating counts and names them
        return self._said(0)

    def adopt(self, connection: Connection, host: str, transcoding_time_out_s: float) -> list[str]:
        """Take the classes over, in the connection's transaction; returns sentences.

        A class with a booking waits here as if it had just been booked, and its rendition has until now +
        *transcoding_time_out_s*: then the sweeper looks for the output, and refuses with 207 if there is none. A class
        whose rendition nobody makes is put into the inbox, where the booking flow decides it by its table. A class
        without a booking stays on its list, and is answered with 211 by whatever settles the rendition. A second call
        changes nothing.
        """
        noted, sources = list[Event](), dict[RenditionKey, str]()
        for waits, decided, begun in self._sorted(connection):
            sources |= {key: "" for key in begun if key not in sources}
            for booking in waits:
                if booking.key and booking.key in sources and (url := source(booking, booking.key[1])):
                    sources[booking.key] = url
            # They wait like those that the booking flow lets wait.
            bookings.add(connection, [(it, BookingState.WAITING) for it in waits], self._now)
            arrived = [ReceivedMessage("rollout", booking.cmd, booking.to_json()) for booking in decided]
            inbox.keep(connection, arrived, self._now)
            noted += [Event(ADOPTED, it.class_id, it.stem, Text("waits")) for it in waits]
            why = Text("the booking flow decides it")
            noted += [Event(ADOPTED, it.class_id, it.stem, why) for it in decided]
        # The old program's other transcodings, without those that this program has begun and will still ask for.
        endless = (row for row in transcodings.under_way(connection) if row.deadline is None and row.attempt == 0)
        others = {row.key: row.source_url or "" for row in endless if row.key not in sources}
        noted += _begin(connection, sources | others, self._now, self._now + transcoding_time_out_s)
        events.note(connection, host, noted, self._now)
        return self._said(len(others))

    def _said(self, bounded: int) -> list[str]:
        """What becomes of the classes, and of *bounded* other transcodings; nothing if there is nothing to adopt."""
        sentences, more = self._named[:NAMED], len(self._named) - NAMED
        if more > 0:
            sentences.append(Text("... and {n:,} more like these.", n=more))
        if self.waiting:
            sentences.append(
                Text.many(
                    "{n:,} class of the old waiting lists waits on here.",
                    "{n:,} classes of the old waiting lists wait on here.",
                    n=self.waiting,
                )
            )
        if bounded:
            sentences.append(
                Text.many(
                    "{n:,} old transcoding without a waiting class got a deadline.",
                    "{n:,} old transcodings without a waiting class got a deadline.",
                    n=bounded,
                )
            )
        return sentences

    def _sorted(self, connection: Connection) -> Iterator[tuple[list[Booking], list[Booking], list[RenditionKey]]]:
        """The classes that are not booked here, in slices; each slice sees what was adopted of those before.

        Of each slice: those that wait on, those that the booking flow decides, and the renditions that they wait for
        and that nobody here has begun.
        """
        left, has_tables = iter(self._waiters), inspect(connection).has_table(orders.name)
        while slice_ := list(dict.fromkeys(islice(left, redis_keys.SLICE))):
            ids = [waiter.class_id for waiter in slice_]
            known = bookings.by_id(connection, ids) if has_tables else {}
            adopted = events.named(connection, ADOPTED, ids) if has_tables else {}
            self._named += [
                Text("{name}: {wrong}; it is left alone.", name=waiter.name, wrong=waiter.wrong)
                for waiter in slice_
                if waiter.wrong
            ]
            new = [waiter for waiter in slice_ if not waiter.wrong and waiter.class_id not in known]
            rows = transcodings.states(connection, {waiter.key for waiter in new}) if has_tables else {}
            waits, decided, begun = list[Booking](), list[Booking](), list[RenditionKey]()
            for waiter, booking in zip(new, self._booked(new), strict=True):
                row = rows.get(waiter.key)
                state = row.state if row else None
                if row is None or (state is RenditionState.TRANSCODING and row.attempt == 0):
                    begun.append(waiter.key)
                if isinstance(booking, str):
                    self._named.append(_why_left(waiter, booking, state))
                elif state in {None, RenditionState.TRANSCODING} and not is_listed(booking):  # it is asked for already
                    waits.append(booking)
                elif booking.class_id not in adopted:
                    decided.append(booking)
                    self._named.append(_why_decided(booking, state))
            self.waiting += len(waits)
            yield waits, decided, begun

    def _booked(self, slice_: Sequence[Waiter]) -> list[Booking | str]:
        """The booking of each waiter; or why it is of no use: missing, damaged, over, or for another list."""
        if self._orders is None:
            return [Text("no order_key says where its booking is")] * len(slice_)
        real = [waiter.class_id for waiter in slice_ if is_name(waiter.class_id)]
        by_class = dict(zip(real, read_bookings(self._client, self._orders, real), strict=True))
        booked: list[Booking | str] = []
        for waiter in slice_:
            booking = by_class.get(waiter.class_id, Text("that is no class_id"))
            if not isinstance(booking, str) and booking.stem != stem(*waiter.key):
                booking = Text("its booking is for {stem}", stem=booking.stem)
            elif not isinstance(booking, str) and booking.end_time <= self._now:
                booking = Text("it ended {ago_s:.0f} s ago", ago_s=self._now - booking.end_time)
            booked.append(booking)
        return booked


def _begin(connection: Connection, sources: Mapping[RenditionKey, str], now: float, deadline: float) -> list[Event]:
    """Record the old program's transcodings as first attempts of the OSS transcoder, which was asked for them."""
    attempts = [Attempt(*key, 1, 1, now, Backend.OSS, deadline, url) for key, url in sources.items()]
    for first in range(0, len(attempts), _AT_ONCE):
        transcodings.begin(connection, attempts[first : first + _AT_ONCE], now, requested_at=now)
    detail = Text("the old program asked for it")
    return [Event(msgid("transcoding taken over"), stem=attempt.stem, detail=detail) for attempt in attempts]


def _why_decided(booking: Booking, state: RenditionState | None) -> str:
    text = msgid("{class_id}: already {state} is {stem}; the booking flow decides it at the start.")
    if booking.video_resolution in booking.urls:
        text = msgid("{class_id}: its booking has the URL of {stem}; the booking flow decides it at the start.")
    return Text(text, class_id=booking.class_id, state=state or "", stem=booking.stem)


def _why_left(waiter: Waiter, why: str, state: RenditionState | None) -> str:
    of = {"class_id": waiter.class_id, "stem": stem(*waiter.key), "why": why, "name": waiter.name}
    if state in {None, RenditionState.TRANSCODING}:
        text = msgid(
            "{class_id} waits for {stem}, but {why}. It stays on the list {name}, and is answered with {code} when the "
            "result comes."
        )
        return Text(text, **of, code=errors.ORPHANED_WAITER.number)
    text = msgid(
        "{class_id} waits for {stem}, but {why}. It stays on the list {name}, but the rendition is {state}, and no "
        "result will come. Answer the platform, then: {typed}"
    )
    typed = shlex.join(["redis-cli", "LREM", waiter.name, "0", waiter.class_id])
    return Text(text, **of, state=state, typed=typed)
