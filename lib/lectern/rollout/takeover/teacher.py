"""Takes over the old program's waiting lists from Redis: their classes go on waiting here, with a deadline."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from lectern.model.facts import Attempt, Event, Rendition, RenditionKey
from lectern.model.tables.teacher import orders
from lectern.redis.key_patterns import Pattern
from lectern.redis.rename import Rule, in_words
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
class OldKeyNames:
    """The names of the old program's keys; *orders* is None if it keeps no bookings."""

    waiting: Pattern
    orders: Pattern | None

    @classmethod
    def parse(cls, waiting_key: str, order_key: str | None) -> "OldKeyNames":
        """Read both patterns; raises Misuse if one lacks a field that it must have."""
        waiting, orders = Pattern.parse(waiting_key), Pattern.parse(order_key) if order_key else None
        if set(waiting.fields) != {"record_id", "resolution"}:
            raise Misuse(
                "waiting_key {waiting_key}: write it with {{record_id}} and {{resolution}}.", waiting_key=waiting_key
            )
        if orders is not None and orders.fields != ("class_id",):
            raise Misuse("order_key {order_key}: write it with {{class_id}}, or leave it out.", order_key=order_key)
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


def waiters(client: redis.Redis, names: OldKeyNames) -> list[Waiter]:
    """The classes on all waiting lists, in the order of each list; a wrong list gives one without a name.

    To be read before a transaction is begun: a large Redis takes longer to look through than a session of PostgreSQL
    may stand still in one, and no other teacher writes meanwhile. Raises TryAgain and CallAPerson if Redis fails.
    """
    with in_words(lambda: Text("Nothing was adopted.")):
        return [*_waiters(client, names)]


def _waiters(client: redis.Redis, names: OldKeyNames) -> Iterator[Waiter]:
    for keys in redis_keys.slices_of(client, names.waiting):
        with client.pipeline(transaction=False) as pipe:
            for name, _ in keys:
                pipe.type(name)
                pipe.lrange(name, 0, redis_keys.SLICE - 1)
            answers = pipe.execute(raise_on_error=False)
        for (name, values), kind, first in zip(keys, answers[::2], answers[1::2], strict=True):
            wanted = first if kind == b"list" else kind
            if isinstance(wanted, Exception):
                raise wanted  # for example, the Redis user may not read it
            key, wrong = (int(values["record_id"]), Resolution(values["resolution"])), ""
            if names.waiting.name(record_id=key[0], resolution=key[1]).encode() != name or key[0] >= 2**63:
                wrong = Text("{id} is not how a record_id is written", id=values["record_id"])
            elif kind != b"list":
                wrong = Text("it is a {kind}, not a list", kind=kind.decode())
            classes = [""] if wrong else map(_class, _whole(client, name, first))
            yield from (Waiter(name.decode(), key, class_id, wrong) for class_id in classes)


def _whole(client: redis.Redis, name: bytes, first: list[bytes]) -> Iterator[bytes]:
    """The entries of a list of which the *first* are known, read in slices of SLICE entries."""
    start, most = 0, redis_keys.SLICE
    while first:
        yield from first
        start += len(first)
        first = cast("list[bytes]", client.lrange(name, start, start + most - 1)) if len(first) == most else []


def _class(entry: bytes) -> str:
    if entry.isascii() and is_name(entry.decode()):
        return entry.decode()
    return shown(entry[:250].decode(errors="surrogateescape"))


def booked_waiters(
    client: redis.Redis, names: OldKeyNames, slice_: Sequence[Waiter], now: float
) -> list[Booking | str]:
    """The old program's booking of each waiter; or why it is of no use: missing, damaged, over, or for another list."""
    if names.orders is None:
        return [Text("no order_key says where its booking is")] * len(slice_)
    real = [waiter.class_id for waiter in slice_ if is_name(waiter.class_id)]
    by_class = dict(zip(real, read_bookings(client, names.orders, real), strict=True))
    booked: list[Booking | str] = []
    for waiter in slice_:
        booking = by_class.get(waiter.class_id, Text("that is no class_id"))
        if not isinstance(booking, str) and booking.stem != waiter.stem:
            booking = Text("its booking is for {stem}", stem=booking.stem)
        elif not isinstance(booking, str) and booking.end_time <= now:
            booking = Text("it ended {ago_s:.0f} s ago", ago_s=now - booking.end_time)
        booked.append(booking)
    return booked


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


@dataclass
class TeacherAdoption:
    """What becomes, or would become, of the classes on old waiting lists that are not known here yet."""

    waiting: int = 0
    """Number of classes that go on waiting here."""
    bounded: int = 0
    """Other transcodings of the old program that got a deadline."""
    named: list[str] = field(default_factory=list)
    """A sentence for each class that cannot simply wait on."""

    @property
    def said(self) -> list[str]:
        """The adoption in sentences; none if there is nothing to adopt."""
        sentences, more = self.named[:NAMED], len(self.named) - NAMED
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
        if self.bounded:
            sentences.append(
                Text.many(
                    "{n:,} old transcoding without a waiting class got a deadline.",
                    "{n:,} old transcodings without a waiting class got a deadline.",
                    n=self.bounded,
                )
            )
        return sentences


@dataclass
class _Cases:
    """Some classes that are not known here, by what becomes of them."""

    waits: list[Booking] = field(default_factory=list)
    decided: list[Booking] = field(default_factory=list)
    begun: list[RenditionKey] = field(default_factory=list)
    """The renditions that they wait for, and that nobody here has begun."""


def before(key: str, rules: Sequence[Rule]) -> str:
    """The pattern under which *key* is found before *rules* are applied."""
    return next((rule.old.text for rule in rules if rule.new.text == key), key)


@dataclass(frozen=True)
class OldLists:
    """The *waiters* that the old program has left in Redis, at *now* (epoch seconds), and our database.

    Its methods raise TryAgain and CallAPerson if Redis fails.
    """

    connection: Connection
    client: redis.Redis
    names: OldKeyNames
    waiters: Sequence[Waiter]
    now: float

    def planned(self) -> TeacherAdoption:
        """What `adopt` would do; reads only, also a database that is not upgraded yet."""
        adoption = TeacherAdoption()
        with in_words(lambda: Text("Nothing was changed.")):
            for _ in self._sorted(adoption):
                pass  # iterating fills *adoption*
        return adoption

    def adopt(self, host: str, transcoding_time_out_s: float) -> list[str]:
        """Take the classes over, in the connection's transaction; returns sentences.

        A class with a booking waits here as if it had just been booked, and its rendition has until *now* +
        *transcoding_time_out_s*: then the sweeper looks for the output, and refuses with 207 if there is none. A class
        whose rendition nobody makes is put into the inbox, where the booking flow decides it by its table. A class
        without a booking stays on its list, and is answered with 211 by whatever settles the rendition. A second call
        changes nothing.
        """
        adoption, noted, sources = TeacherAdoption(), list[Event](), dict[RenditionKey, str]()
        with in_words(lambda: Text("Nothing was adopted.")):
            for cases in self._sorted(adoption):
                sources |= {key: "" for key in cases.begun if key not in sources}
                for booking in cases.waits:
                    if booking.key and booking.key in sources and (url := source(booking, booking.key[1])):
                        sources[booking.key] = url
                # They wait like those that the booking flow lets wait.
                bookings.add(self.connection, [(it, BookingState.WAITING) for it in cases.waits], self.now)
                arrived = [ReceivedMessage("rollout", booking.cmd, booking.to_json()) for booking in cases.decided]
                inbox.keep(self.connection, arrived, self.now)
                noted += [Event(ADOPTED, it.class_id, it.stem, Text("waits")) for it in cases.waits]
                why = Text("the booking flow decides it")
                noted += [Event(ADOPTED, it.class_id, it.stem, why) for it in cases.decided]
        # The old program's other transcodings, without those that this program has begun and will still ask for.
        endless = (row for row in transcodings.under_way(self.connection) if row.deadline is None and row.attempt == 0)
        others = {row.key: row.source_url or "" for row in endless if row.key not in sources}
        adoption.bounded = len(others)
        noted += self._begin(sources | others, self.now + transcoding_time_out_s)
        events.note(self.connection, host, noted, self.now)
        return adoption.said

    def _begin(self, sources: Mapping[RenditionKey, str], deadline: float) -> list[Event]:
        """Record the old program's transcodings as first attempts of the OSS transcoder, which was asked for them."""
        attempts = [Attempt(*key, 1, 1, self.now, Backend.OSS, deadline, url) for key, url in sources.items()]
        for first in range(0, len(attempts), _AT_ONCE):
            transcodings.begin(self.connection, attempts[first : first + _AT_ONCE], self.now)
        for key in sources:
            transcodings.requested(self.connection, key, self.now)
        detail = Text("the old program asked for it")
        return [Event(msgid("transcoding taken over"), stem=attempt.stem, detail=detail) for attempt in attempts]

    @property
    def _has_tables(self) -> bool:
        return inspect(self.connection).has_table(orders.name)

    def _sorted(self, adoption: TeacherAdoption) -> Iterator[_Cases]:
        """The classes that are not booked here, in slices; each slice sees what was adopted of those before."""
        left = iter(self.waiters)
        while slice_ := list(dict.fromkeys(islice(left, redis_keys.SLICE))):
            ids, cases = [waiter.class_id for waiter in slice_], _Cases()
            known = bookings.by_id(self.connection, ids) if self._has_tables else {}
            adoption.named += [
                Text("{name}: {wrong}; it is left alone.", name=waiter.name, wrong=waiter.wrong)
                for waiter in slice_
                if waiter.wrong
            ]
            new = [waiter for waiter in slice_ if not waiter.wrong and waiter.class_id not in known]
            booked = booked_waiters(self.client, self.names, new, self.now)
            rows = transcodings.states(self.connection, {waiter.key for waiter in new}) if self._has_tables else {}
            for waiter, booking in zip(new, booked, strict=True):
                self._sort(adoption, cases, waiter, booking, rows.get(waiter.key))
            yield cases

    def _sort(
        self, adoption: TeacherAdoption, cases: _Cases, waiter: Waiter, booking: Booking | str, row: Rendition | None
    ) -> None:
        """Sort one class; *booking* is the reason if there is no reliable one."""
        state = row.state if row else None
        if row is None or (state is RenditionState.TRANSCODING and row.attempt == 0):
            cases.begun.append(waiter.key)
        if isinstance(booking, str):
            adoption.named.append(_why_left(waiter, booking, state))
        elif state in {None, RenditionState.TRANSCODING} and not is_listed(booking):  # it is asked for already
            adoption.waiting += 1
            cases.waits.append(booking)
        elif not self._is_handed_over(booking):
            cases.decided.append(booking)
            text = msgid("{class_id}: already {state} is {stem}; the booking flow decides it at the start.")
            if booking.video_resolution in booking.urls:
                text = msgid("{class_id}: its booking has the URL of {stem}; the booking flow decides it at the start.")
            adoption.named.append(Text(text, class_id=booking.class_id, state=state or "", stem=booking.stem))

    def _is_handed_over(self, booking: Booking) -> bool:
        return self._has_tables and bool(events.named(self.connection, ADOPTED, [booking.class_id]))


def _why_left(waiter: Waiter, why: str, state: RenditionState | None) -> str:
    of = {"class_id": waiter.class_id, "stem": waiter.stem, "why": why, "name": waiter.name}
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
