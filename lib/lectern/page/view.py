"""What the page shows: the day's classes with their accounts, the alarms, and the streamers' last heartbeats."""

import datetime
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from lectern.decide import account as decide
from lectern.decide import day as hours
from lectern.decide import gathered, outlook
from lectern.decide.account import Account, Standing
from lectern.decide.tally import MISSED
from lectern.effects.rows import incidents, status, story, timetable
from lectern.errors import LecternError
from lectern.model.tables.teacher import ViewerRow, journal
from lectern.told import Booked, Found, OpenAlarm, Word
from lectern.wire import BACKUP

ROWS = 200
"""Number of classes of a day on one page."""

LISTED = 50
"""Greatest number of rows of each other list."""

DAY_S = 86_400.0
CALENDAR_ROWS = 2_000


@dataclass(frozen=True)
class Line:
    """A class on the page: its booking, how it stands, and that in a sentence."""

    one: Booked
    standing: Standing
    sentence: str


@dataclass(frozen=True)
class Waiting:
    """A class that waits: what it waits for, and its nearest deadline (epoch seconds), which may be its start."""

    one: Booked
    sentence: str
    deadline: float
    is_start: bool


@dataclass(frozen=True)
class Day:
    """Everything that the page shows of a day; times are epoch seconds."""

    now: float
    begins: float
    number: int  # of classes that begin on the day
    page: int
    outcomes: Mapping[str, int]
    lines: Sequence[Line]
    on_air: Sequence[Line] = ()
    missing: Sequence[Line] = ()
    unknown: Sequence[Line] = ()
    waiting: Sequence[Waiting] = ()
    waiting_number: int = 0  # with those that are not listed
    due: Mapping[Standing, int] = field(default_factory=dict)  # all classes in their time, with those not listed
    alarms: Sequence[OpenAlarm] = ()
    alarms_number: int = 0
    words: Mapping[str, Word] = field(default_factory=dict)
    is_deaf: bool = False  # Redis does not answer
    by_hour: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        """Number of pages that the day's classes fill."""
        return max(1, -(-self.number // ROWS))

    def count(self, *standings: Standing) -> int:
        """Number of classes in their time that have one of *standings*."""
        return sum(self.due.get(one, 0) for one in standings)

    def of(self, *standings: Standing) -> Sequence[Line]:
        """The classes shown that have one of *standings*."""
        return [one for one in self.lines if one.standing in standings][:LISTED]


def begin_of_day(now: float, text: str | None = None) -> float:
    """Begin (epoch seconds) of the local day *text* (``2026-11-26``); of the day of *now* if *text* is no such day."""
    local = datetime.datetime.fromtimestamp(now).astimezone().date()
    try:
        wanted = datetime.date.fromisoformat(text) if text else local
    except ValueError:
        wanted = local
    if not 2000 <= wanted.year <= 2100:
        wanted = local
    return datetime.datetime.combine(wanted, datetime.time()).timestamp()


def of_day(
    connection: Connection, viewer: ViewerRow, words: Mapping[str, Word] | None, host: str, begins: float, page: int
) -> Day:
    """What *viewer* sees of the day that begins at *begins*; *words* is None if Redis does not answer."""
    now, until, institution = time.time(), begin_of_day(begins + 1.5 * DAY_S), viewer.institution_id
    span = timetable.Span(begins, until, institution)
    outcomes = timetable.outcomes(connection, span)
    found = timetable.of_time(connection, span, ROWS, page * ROWS)
    due = [_stood(one, words, now) for one in timetable.due(connection, now) if _is_theirs(one, institution)]
    day = Day(
        now,
        begins,
        sum(outcomes.values()),
        page,
        outcomes,
        [_line(*_stood(one, words, now), now) for one in found],
        _listed(due, {Standing.ON_AIR}, now),
        _listed(due, MISSED, now),
        _listed(due, {Standing.SILENT}, now),
        [_waiting(one, now) for one in timetable.waiting(connection, now, institution, LISTED)],
        timetable.waiting_number(connection, now, institution),
        Counter(standing for _, standing in due),
    )
    return day if institution is not None else _whole(connection, day, words, host)


def _whole(connection: Connection, day: Day, words: Mapping[str, Word] | None, host: str) -> Day:
    """The day with what only a viewer of all institutions sees besides the classes."""
    theirs = [alarm for word in (words or {}).values() for alarm in word.alarms]
    alarms = sorted([*incidents.alarms(connection, journal, host), *theirs], key=lambda one: -one.last_at)
    first = (int(day.now // hours.HOUR_S) - hours.HOURS + 1) * hours.HOUR_S
    by_hour = hours.outcomes(status.by_hour(connection, first, hours.HOURS))
    return Day(
        **{
            **vars(day),
            "alarms": alarms[:LISTED],
            "alarms_number": len(alarms),
            "words": words or {},
            "is_deaf": words is None,
            "by_hour": by_hour,
        }
    )


def _is_theirs(one: Found, institution: str | None) -> bool:
    return institution is None or (one.booked is not None and one.booked.institution == institution)


def _stood(found: Found, words: Mapping[str, Word] | None, now: float) -> tuple[Found, Standing]:
    known = gathered.with_word(found, words)
    return known, decide.standing(known, now)


def _listed(stood: Iterable[tuple[Found, Standing]], wanted: Container[Standing], now: float) -> list[Line]:
    """Lines for the first LISTED classes in *wanted*: there may be thousands, and making a sentence takes long."""
    return [_line(*one, now) for one in islice((one for one in stood if one[1] in wanted), LISTED)]


def _line(known: Found, standing: Standing, now: float) -> Line:
    booked = known.booked
    assert booked is not None  # the timetable lists only bookings
    said = booked.message or "" if standing in _SAID else decide.state_sentence(known, standing, now)
    if known.dead_air and standing in {Standing.READY, Standing.COMING}:
        said += f"; recording faults: {known.dead_air}"
    return Line(booked, standing, said)


def _waiting(found: Found, now: float) -> Waiting:
    booked = found.booked
    assert booked is not None  # the timetable lists only bookings
    sentence = outlook.of_booking(booked, found.making, now)[0]
    return Waiting(booked, sentence, *outlook.nearest_deadline(booked, found.making))


_SAID = {Standing.REFUSED, Standing.BROKEN, Standing.AIRED, Standing.AIRED_WITH_GAPS, Standing.CANCELLED}


@dataclass(frozen=True)
class OneClass:
    """The page of one class, with the account that ``lectern explain`` also gives."""

    class_id: str
    account: Account


def of_class(
    connection: Connection, viewer: ViewerRow, words: Mapping[str, Word] | None, host: str, class_id: str
) -> OneClass | str | None:
    """What *viewer* sees of a class; None if nothing is known of it, or it belongs to another institution.

    Nobody knows the institution of a message or a row that cannot be read, so only viewers of all institutions see it;
    of such a row, a sentence that says why.
    """
    try:
        found = story.at_teacher(connection, host, class_id)
    except LecternError as error:
        return error.message if viewer.institution_id is None else None
    if found.booked is None and not found.is_malformed and found.kept_since is None:
        return None
    if viewer.institution_id is not None and (
        found.booked is None or found.booked.institution != viewer.institution_id
    ):
        return None
    known = gathered.with_word(found, words)
    if viewer.institution_id is not None:  # what is of a rendition, or of an incident, may name classes of others
        events = [one for one in known.events if one.class_id == class_id]
        alarms = [
            one for one in known.alarms if one.classes and {class_id, f"{class_id}{BACKUP}"}.issuperset(one.classes)
        ]
        known = replace(known, events=events, alarms=alarms)
    return OneClass(class_id, decide.account(known, time.time()))


def for_calendar(connection: Connection, viewer: ViewerRow, institution: str | None, now: float) -> list[Booked]:
    """The classes from yesterday to 30 days ahead that are neither refused nor cancelled; at most CALENDAR_ROWS rows.

    The second airing of a class is none of them.
    """
    wanted = institution if viewer.institution_id is None else viewer.institution_id
    found = timetable.not_dropped(connection, timetable.Span(now - DAY_S, now + 30 * DAY_S, wanted), CALENDAR_ROWS)
    return [one.booked for one in found if one.booked is not None and not one.class_id.endswith(BACKUP)]


def fields_of(day: Day) -> dict[str, Any]:
    """The variables of the day's template."""
    yesterday, tomorrow = begin_of_day(day.begins - 0.5 * DAY_S), begin_of_day(day.begins + 1.5 * DAY_S)
    return {"day": day, "yesterday": yesterday, "tomorrow": tomorrow, "Standing": Standing}
