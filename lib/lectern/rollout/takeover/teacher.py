"""Takes over the old program's waiting lists: their classes go on waiting here, and renditions get a deadline."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import redis
from sqlalchemy import Connection, inspect

from lectern import errors
from lectern.decide.attempts import source
from lectern.decide.booking import Do, Named, action, named_by
from lectern.effects.redis.rekey import Rule, in_words
from lectern.effects.rows import bookings, events, inbox, renditions, transcodings
from lectern.effects.rows.inbox import Arrived
from lectern.facts import Attempt, Event, Rendition, RenditionKey
from lectern.messages import Booking
from lectern.model.tables.teacher import journal, orders
from lectern.rollout.takeover import old_waiting
from lectern.rollout.takeover.old_waiting import Names, Waiter
from lectern.states import Backend, BookingState, RenditionState
from lectern.words import counted

ADOPTED = "adopted from the old program"
NAMED = 10
"""Greatest number of classes that cannot simply go on waiting and that get a sentence of their own."""
_WAIT_ON = frozenset({Do.WAIT, Do.INSERT_REQUEST_WAIT})
"""Booking decisions with which a class goes on waiting: the old program has asked for its rendition already."""

_AT_ONCE = 1000
"""Number of transcodings that are begun at a time: a statement takes no more than some thousand keys."""


@dataclass
class Adoption:
    """What becomes, or would become, of the classes on old waiting lists that are not known here yet."""

    waiting: int = 0
    """Number of classes that go on waiting here."""
    decided: int = 0
    """Classes whose rendition is not under way, or whose booking has its URL: the booking flow decides them."""
    bounded: int = 0
    """Other transcodings of the old program that got a deadline."""
    named: list[str] = field(default_factory=list)
    """A sentence for each class that cannot simply wait on."""

    @property
    def said(self) -> list[str]:
        """The adoption in sentences; none if there is nothing to adopt."""
        said, more = self.named[:NAMED], len(self.named) - NAMED
        if more > 0:
            said.append(f"... and {more} more like these.")
        if self.waiting:
            said.append(f"{counted(self.waiting, 'class', 'classes')} of the old waiting lists wait on here.")
        if self.bounded:
            said.append(f"{counted(self.bounded, 'old transcoding')} without a waiting class got a deadline.")
        return said


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
    """The waiting lists that the old program has left in Redis, at *now* (epoch seconds), and our database.

    Its methods raise TryAgain and CallAPerson if Redis fails.
    """

    connection: Connection
    client: redis.Redis
    names: Names
    now: float

    def planned(self) -> Adoption:
        """What `adopt` would do; reads only, also a database that is not upgraded yet."""
        adoption = Adoption()
        with in_words(lambda: "Nothing was changed."):
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
        adoption, noted = Adoption(), list[Event]()
        sources: dict[RenditionKey, str] = {}
        with in_words(lambda: "Nothing was adopted."):
            for cases in self._sorted(adoption):
                sources |= {key: "" for key in cases.begun if key not in sources}
                for one in cases.waits:
                    if one.key and one.key in sources and (url := source(one, one.key[1])):
                        sources[one.key] = url
                self._wait_on(cases.waits)
                arrived = [Arrived("rollout", one.cmd, one.to_json()) for one in cases.decided]
                inbox.keep(self.connection, journal, arrived, self.now)
                noted += [Event(ADOPTED, one.class_id, one.stem, "waits") for one in cases.waits]
                why = "the booking flow decides it"
                noted += [Event(ADOPTED, one.class_id, one.stem, why) for one in cases.decided]
        others = self._endless(sources)
        adoption.bounded = len(others)
        noted += self._begin(sources | others, self.now + transcoding_time_out_s)
        events.note(self.connection, journal, host, noted, self.now)
        return adoption.said

    def _wait_on(self, waits: Sequence[Booking]) -> None:
        """Let the bookings wait, like those that the booking flow lets wait."""
        bookings.add(self.connection, [(one, BookingState.RECEIVED) for one in waits], self.now)
        for order in bookings.by_id(self.connection, [one.class_id for one in waits]).values():
            bookings.close(self.connection, order, BookingState.WAITING, self.now)

    def _endless(self, sources: Mapping[RenditionKey, str]) -> dict[RenditionKey, str]:
        """The old program's other transcodings, without those that this program has begun and will still ask for."""
        found = (one for one in transcodings.under_way(self.connection) if one.deadline is None and one.attempt == 0)
        return {one.key: one.source_url or "" for one in found if one.key not in sources}

    def _begin(self, sources: Mapping[RenditionKey, str], deadline: float) -> list[Event]:
        """Record the old program's transcodings as first attempts of the OSS transcoder, which was asked for them."""
        attempts = [Attempt(*key, 1, 1, self.now, Backend.OSS, deadline, url) for key, url in sources.items()]
        for first in range(0, len(attempts), _AT_ONCE):
            renditions.begin(self.connection, attempts[first : first + _AT_ONCE], self.now)
        for key in sources:
            renditions.requested(self.connection, key, self.now)
        detail = "the old program asked for it"
        return [Event("transcoding taken over", stem=one.stem, detail=detail) for one in attempts]

    @property
    def _has_tables(self) -> bool:
        return inspect(self.connection).has_table(orders.name)

    def _known(self, class_ids: Sequence[str]) -> set[str]:
        return set(bookings.by_id(self.connection, class_ids)) if self._has_tables else set()

    def _sorted(self, adoption: Adoption) -> Iterator[_Cases]:
        """The classes that are not booked here, in slices; each slice sees what was adopted of those before."""
        for some in old_waiting.waiters(self.client, self.names):
            known, cases = self._known([one.class_id for one in some]), _Cases()
            adoption.named += [f"{one.name}: {one.wrong}; it is left alone." for one in some if one.wrong]
            new = [one for one in some if not one.wrong and one.class_id not in known]
            booked = old_waiting.booked(self.client, self.names, new, self.now)
            rows = renditions.states(self.connection, {one.key for one in new}) if self._has_tables else {}
            for waiter, booking in zip(new, booked, strict=True):
                self._sort(adoption, cases, waiter, booking, rows.get(waiter.key))
            yield cases

    def _sort(
        self, adoption: Adoption, cases: _Cases, waiter: Waiter, booking: Booking | str, row: Rendition | None
    ) -> None:
        """Sort one class; *booking* is the reason if there is no reliable one."""
        state = row.state if row else None
        if row is None or (state is RenditionState.TRANSCODING and row.attempt == 0):
            cases.begun.append(waiter.key)
        if isinstance(booking, str):
            adoption.named.append(_why_left(waiter, booking, state))
        elif action(named_by(booking), state) in _WAIT_ON:
            adoption.waiting += 1
            cases.waits.append(booking)
        elif not self._is_handed_over(booking):
            adoption.decided += 1
            cases.decided.append(booking)
            in_list = named_by(booking) is Named.IN_LIST
            why = "its booking has the URL of" if in_list else f"already {state} is"
            adoption.named.append(
                f"{booking.class_id}: {why} {booking.stem}; the booking flow decides it at the start."
            )

    def _is_handed_over(self, booking: Booking) -> bool:
        if not self._has_tables:
            return False
        past = events.of_thing(self.connection, journal, class_id=booking.class_id, stems=[])
        return any(one.what == ADOPTED for one in past)


def _why_left(waiter: Waiter, why: str, state: RenditionState | None) -> str:
    said = f"{waiter.class_id} waits for {waiter.stem}, but {why}. It stays on the list {waiter.name}"
    if state in {None, RenditionState.TRANSCODING}:
        return f"{said}, and is answered with {errors.ORPHANED_WAITER.number} when the result comes."
    typed = shlex.join(["redis-cli", "LREM", waiter.name, "0", waiter.class_id])
    return f"{said}, but the rendition is {state}, and no result will come. Answer the platform, then: {typed}"
