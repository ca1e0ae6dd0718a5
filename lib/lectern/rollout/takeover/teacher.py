"""Honours the waiting lists that the old program left: their classes wait on here, and nothing waits for ever."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import redis
from sqlalchemy import Connection, inspect

from lectern import errors
from lectern.decide.attempts import source
from lectern.decide.booking import Do, Named, action, named_by
from lectern.effects.redis.rekey import Rule, in_words
from lectern.effects.rows import bookings, events, inbox, renditions, transcodings
from lectern.effects.rows.inbox import Arrived
from lectern.effects.rows.tables.teacher import journal, orders
from lectern.facts import Attempt, Event, Rendition, RenditionKey
from lectern.messages import Booking
from lectern.rollout.takeover import old_waiting
from lectern.rollout.takeover.adoption import Adoption
from lectern.rollout.takeover.old_waiting import Names, Waiter
from lectern.states import Backend, BookingState, RenditionState

ADOPTED = "adopted from the old program"
_WAIT_ON = frozenset({Do.WAIT, Do.INSERT_REQUEST_WAIT})
"""Where the booking decision comes to this, a class waits on: the old program has asked for its rendition already."""


@dataclass(frozen=True)
class _Case:
    """A class of an old list that is not known here; *booking* says why, where there is none to rely on."""

    waiter: Waiter
    booking: Booking | str
    rendition: Rendition | None

    @property
    def state(self) -> RenditionState | None:
        return self.rendition.state if self.rendition else None

    @property
    def is_old(self) -> bool:
        """Whether nobody here has begun the rendition."""
        found = self.rendition
        return found is None or (found.state is RenditionState.TRANSCODING and found.attempt == 0)


@dataclass
class _Cases:
    """Some of them, sorted by what becomes of them."""

    all: list[_Case]
    waits: list[Booking] = field(default_factory=list)
    decided: list[Booking] = field(default_factory=list)


def before(key: str, rules: Sequence[Rule]) -> str:
    """The pattern under which *key* is found before *rules* are applied."""
    return next((rule.old.text for rule in rules if rule.new.text == key), key)


@dataclass(frozen=True)
class OldLists:
    """The waiting lists that the old program has left in Redis, at *now* (epoch seconds), and our database.

    Its methods raise TryAgain and CallAPerson where Redis will not.
    """

    connection: Connection
    client: redis.Redis
    names: Names
    now: float

    def planned(self) -> Adoption:
        """What `adopt` would do; reads only, also a database that is not upgraded yet.

        It also counts the old program's bookings that are on no list; `adopt` does not, because a rollout waits for it.
        """
        adoption = Adoption()
        with in_words(lambda: "Nothing was changed."):
            for _ in self._sorted(adoption):
                pass  # it counts and names on its way
            adoption.placed = max(0, self._not_over() - adoption.waiting - adoption.decided)
        return adoption

    def adopt(self, host: str, transcoding_time_out_s: float) -> list[str]:
        """Take the classes over, in the connection's transaction; returns sentences.

        A class with a booking waits here as if it had just been booked, and its rendition has until *now* +
        *transcoding_time_out_s*: then the sweeper looks for the output, and else refuses with 207. A class whose
        rendition is not under way is put into the inbox, for the booking flow to decide by its table. One without a
        booking stays on its list, and is answered with 211 by whatever settles the rendition. A second call changes
        nothing.
        """
        adoption = Adoption()
        adopter = _Adopter(self.connection, host, self.now + transcoding_time_out_s, self.now)
        with in_words(lambda: "Nothing was adopted."):
            for cases in self._sorted(adoption):
                adopter.take_over(cases)
                adopter.wait_on(cases.waits)
                adopter.hand_over(cases.decided)
        adoption.bounded = adopter.bound()
        return adoption.said

    @property
    def _tables(self) -> Connection | None:
        """The database, if it has our tables already."""
        return self.connection if inspect(self.connection).has_table(orders.name) else None

    def _known(self, class_ids: Sequence[str]) -> Collection[str]:
        return bookings.by_id(self.connection, class_ids) if self._tables else ()

    def _sorted(self, adoption: Adoption) -> Iterator[_Cases]:
        """The classes that are not known here, some at a time; what was adopted of those before, is seen."""
        tables = self._tables
        for some in old_waiting.waiters(self.client, self.names):
            known = self._known([one.class_id for one in some])
            wrong = [one.waiting for one in some if one.waiting.wrong]
            adoption.named += [f"{one.name}: {one.wrong}; it is left alone." for one in wrong]
            new = [one for one in some if not one.waiting.wrong and one.class_id not in known]
            booked = old_waiting.booked(self.client, self.names, new, self.now)
            rows = renditions.states(tables, {one.waiting.key for one in new}) if tables else {}
            cases = _Cases([_Case(one, b, rows.get(one.waiting.key)) for one, b in zip(new, booked, strict=True)])
            for case in cases.all:
                _sort(tables, adoption, cases, case)
            yield cases

    def _not_over(self) -> int:
        """How many of the old program's bookings are whole, not over, and not known here."""
        number, pattern = 0, self.names.orders
        if pattern is None:
            return 0
        for found in old_waiting.slices_of(self.client, pattern):
            class_ids = [values["class_id"] for _, values in found]
            known = self._known(class_ids)
            booked = old_waiting.bookings(self.client, pattern, [one for one in class_ids if one not in known])
            number += sum(1 for one in booked if isinstance(one, Booking) and one.end_time > self.now)
        return number


def _sort(connection: Connection | None, adoption: Adoption, cases: _Cases, case: _Case) -> None:
    booking = case.booking
    if isinstance(booking, str):
        adoption.named.append(_why_left(case))
    elif action(named_by(booking), case.state) in _WAIT_ON:
        adoption.waiting += 1
        cases.waits.append(booking)
    elif not (connection and _is_handed_over(connection, booking)):
        adoption.decided += 1
        cases.decided.append(booking)
        in_list = named_by(booking) is Named.IN_LIST
        why = "its booking has the URL of" if in_list else f"already {case.state} is"
        adoption.named.append(f"{booking.class_id}: {why} {booking.stem}; the booking flow decides it at the start.")


def _why_left(case: _Case) -> str:
    waiting, class_id = case.waiter.waiting, case.waiter.class_id
    said = f"{class_id} waits for {waiting.stem}, but {case.booking}. It stays on the list {waiting.name}"
    if case.state in {None, RenditionState.TRANSCODING}:
        return f"{said}, and is answered with {errors.ORPHANED_WAITER.number} when the result comes."
    typed = shlex.join(["redis-cli", "LREM", waiting.name, "0", class_id])
    return f"{said}, but the rendition is {case.state}, and no result will come. Answer the platform, then: {typed}"


def _is_handed_over(connection: Connection, booking: Booking) -> bool:
    past = events.of_thing(connection, journal, class_id=booking.class_id, stems=[])
    return any(one.what == ADOPTED for one in past)


@dataclass
class _Adopter:
    """Writes what one call of `adopt` finds, with the functions that the flows write with."""

    connection: Connection
    host: str
    deadline: float
    now: float
    without_source: set[RenditionKey] = field(default_factory=set)
    """Renditions that were just taken over though no booking told where their recording is."""

    def take_over(self, cases: _Cases) -> None:
        """See that the renditions are under way, with a deadline; what is settled stays so."""
        old = {case.waiter.waiting.key for case in cases.all if case.is_old}
        told: dict[RenditionKey, str] = {}
        for one in cases.waits:
            if one.key and (url := source(one, one.key[1])):
                told[one.key] = url
        urls = {key: told.get(key, "") for key in old | (self.without_source & told.keys())}
        self._begin(urls)
        self.without_source -= told.keys()
        self.without_source |= {key for key, url in urls.items() if not url}

    def wait_on(self, waits: Sequence[Booking]) -> None:
        """The bookings wait, as those do that the booking flow makes wait."""
        bookings.add(self.connection, [(one, BookingState.RECEIVED) for one in waits], self.now)
        added = bookings.by_id(self.connection, [one.class_id for one in waits])
        for order in added.values():
            bookings.close(self.connection, order, BookingState.WAITING, self.now)
        self._note(waits, "waits")

    def hand_over(self, decided: Sequence[Booking]) -> None:
        """The bookings come in once more, as messages."""
        arrived = [Arrived("rollout", one.cmd, one.to_json()) for one in decided]
        inbox.keep(self.connection, journal, arrived, self.now)
        self._note(decided, "the booking flow decides it")

    def bound(self) -> int:
        """Give the old program's other transcodings a deadline too; returns how many there were.

        What this program has begun, and not asked for yet, it still will.
        """
        number = 0
        while endless := [
            one for one in transcodings.under_way(self.connection) if one.deadline is None and one.attempt == 0
        ]:
            self._begin({one.key: one.source_url or "" for one in endless})
            number += len(endless)
        return number

    def _begin(self, urls: Mapping[RenditionKey, str]) -> None:
        """The old program's transcoding counts as the first attempt of the OSS, which was asked for it already."""
        attempts = [Attempt(*key, 1, 1, self.now, Backend.OSS, self.deadline, url) for key, url in urls.items()]
        renditions.begin(self.connection, attempts, self.now)
        for key in urls:
            renditions.requested(self.connection, key, self.now)
        detail = "the old program asked for it"
        taken = [Event("transcoding taken over", stem=one.stem, detail=detail) for one in attempts]
        events.note(self.connection, journal, self.host, taken, self.now)

    def _note(self, adopted: Sequence[Booking], detail: str) -> None:
        noted = [Event(ADOPTED, one.class_id, one.stem, detail) for one in adopted]
        events.note(self.connection, journal, self.host, noted, self.now)
