"""What the page shows, and how: the day's classes, alarms and heartbeats; its templates and calendar."""

import datetime
import hashlib
import re
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, pairwise
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from sqlalchemy import Connection

from lectern import formatting
from lectern.db import account as db_account
from lectern.db import events, incidents, timetable, transcodings
from lectern.decide import account as decide_account
from lectern.decide import timeline
from lectern.decide.account import MISSED, NEEDED, OVER, Account, Standing, stood
from lectern.decide.forecast import NEVER, will_be_there
from lectern.decide.leases import LISTED_S
from lectern.errors import CODES, LecternError, alarm_in
from lectern.i18n import Text, joined, translated, translator
from lectern.model.tables.teacher import ViewerRow
from lectern.model.views import Booked, ClassView, OpenAlarm, StreamerStatus
from lectern.page import strip as strips
from lectern.page.strip import Strip
from lectern.settings import TeacherSettings
from lectern.states import BookingState
from lectern.wire.fields import BACKUP

ROWS = 200
"""Number of classes of a day on one page."""

LISTED = 50
"""Greatest number of rows of each other list."""

DAY_S = 86_400.0
SEARCHED_S = 15 * DAY_S
"""Seconds from the beginning of today in which a search looks for classes."""

RATES_S = 600.0
SOON_S = 7_200.0
"""Seconds ahead for which the classes are listed that begin soon."""

CALENDAR_ROWS = 2_000


@dataclass(frozen=True)
class PageLine:
    """A class on the page: its booking, how it stands, and that in a sentence."""

    one: Booked
    standing: Standing
    sentence: str
    is_red: bool = False  # its last check says that it is not ready, or its recording will be late
    heading: int | None = None  # the code whose part of the RUNBOOK is about a class that is not on air
    ready_by: float | None = None  # when its recording will be there, if it is not yet (epoch seconds)


@dataclass(frozen=True)
class Day:
    """Everything that the page shows of a day; times are epoch seconds."""

    now: float
    begins: float
    page: int
    outcomes: Mapping[str, int]  # number of the day's classes by state
    lines: Sequence[PageLine]
    on_air: Sequence[PageLine] = ()
    missing: Sequence[PageLine] = ()
    unknown: Sequence[PageLine] = ()
    waiting: Sequence[tuple[Booked, str, float]] = ()  # each with what it waits for, and its deadline or start
    waiting_number: int = 0  # with those that are not listed
    due: Mapping[Standing, int] = field(default_factory=dict)  # all classes in their time, with those not listed
    alarms: Sequence[OpenAlarm] = ()
    alarms_number: int = 0
    words: Mapping[str, StreamerStatus] = field(default_factory=dict)
    is_deaf: bool = False  # Redis does not answer
    strip: Strip | None = None  # of another day there is none
    soon: Sequence[PageLine] = ()
    soon_number: int = 0
    refusals: Mapping[int, int] = field(default_factory=dict)  # number by code

    @property
    def pages(self) -> int:
        """Number of pages that the day's classes fill."""
        return max(1, -(-sum(self.outcomes.values()) // ROWS))

    def count(self, *standings: Standing) -> int:
        """Number of classes in their time that have one of *standings*."""
        return sum(self.due.get(one, 0) for one in standings)


class BitRates:
    """The bit rates of the classes on air in the last RATES_S seconds, in which somebody looked at the page."""

    def __init__(self) -> None:
        self._sent: dict[str, list[tuple[float, int]]] = {}  # by class: when its streamer said it, and bytes so far

    def note(self, words: Mapping[str, StreamerStatus]) -> None:
        """Keep what the streamers say now; a heartbeat that was heard before counts once."""
        said = [(word.at, word.sendings) for word in words.values() if word.silent_s is None]
        now = {class_id: (at, one.sent_bytes) for at, sent in said for class_id, one in sent.items() if one.on_air}
        self._sent = {
            class_id: [*(one for one in self._sent.get(class_id, ()) if at - RATES_S < one[0] < at), (at, size)]
            for class_id, (at, size) in now.items()
        }

    def of(self, class_id: str) -> list[float]:
        """The bits a second of a class from one heartbeat to the next, the newest last."""
        pairs = pairwise(self._sent.get(class_id, ()))
        return [max(0.0, 8 * (sent - before) / (at - since)) for (since, before), (at, sent) in pairs]


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
    connection: Connection,
    viewer: ViewerRow,
    words: Mapping[str, StreamerStatus] | None,
    settings: TeacherSettings,
    begins: float,
    page: int,
) -> Day:
    """What *viewer* sees of the day that begins at *begins*; *words* is None if Redis does not answer."""
    now, until, institution = time.time(), begin_of_day(begins + 1.5 * DAY_S), viewer.institution_id
    span, coming = timetable.Span(begins, until, institution), timetable.Span(now, now + SOON_S, institution)
    found = timetable.classes(connection, timetable.begins_in(span), ROWS, page * ROWS)
    made_at = transcodings.made_at(connection, settings, now)
    due = [
        stood(one, words, now, made_at)
        for one in timetable.due(connection, now)
        if institution in {None, one.institution_id}
    ]
    soon = timetable.classes(connection, timetable.not_dropped(coming), LISTED)
    day = Day(
        now,
        begins,
        page,
        timetable.outcomes(connection, span),
        [_line(*stood(one, words, now, made_at), now) for one in found],
        _listed(due, {Standing.ON_AIR}, now),
        _listed(due, MISSED, now),
        _listed(due, {Standing.SILENT}, now),
        [
            (booked, timeline.next_of_booking(booked, making, now)[0], deadline)
            for booked, making, deadline in timetable.waiting(connection, now, institution, LISTED)
        ],
        timetable.number(connection, timetable.waits(now, institution)),
        Counter(standing for _, standing in due),
        strip=_strip(connection, words, now, institution) if begins <= now < until else None,
        soon=[_line(*stood(one, words, now, made_at), now) for one in soon],
        soon_number=timetable.number(connection, timetable.not_dropped(coming)),
        refusals=timetable.refusals(connection, span),
    )
    return day if institution is not None else _whole(connection, day, words, settings.name)


def _strip(
    connection: Connection, words: Mapping[str, StreamerStatus] | None, now: float, institution: str | None
) -> Strip:
    """The strip around *now*; the streamers without a class are for viewers of all institutions."""
    span = timetable.Span(now - strips.BACK_S, now + strips.AHEAD_S, institution)
    found = timetable.classes(connection, timetable.overlapping(span), strips.MOST_BLOCKS + 1)
    names = set(words or ()) if institution is None else set[str]()
    streamers = names | {one.streamer for one in found if one.streamer}
    if len(found) > strips.MOST_BLOCKS or len(streamers) > strips.MOST_ROWS:
        idle: dict[str | None, dict[str, int]] = {name: {} for name in names}
        return strips.of_counts(idle | timetable.by_streamer(connection, span), now)
    parts = events.parts_of(connection, [one.class_id for one in found if one.start_time <= now])
    return strips.of_day((stood(one, words, now) for one in found), parts, streamers, now)


def _whole(connection: Connection, day: Day, words: Mapping[str, StreamerStatus] | None, host: str) -> Day:
    """The day with what only a viewer of all institutions sees besides the classes.

    The incidents of a streamer that was taken out go with it: nobody is left who would say that they are over.
    """
    there = {name: word for name, word in (words or {}).items() if (word.silent_s or 0.0) < LISTED_S}
    theirs = [alarm for word in there.values() for alarm in word.alarms]
    alarms = sorted([*incidents.open_now(connection, host), *theirs], key=lambda one: -one.last_at)
    number = len(alarms)
    return replace(day, alarms=alarms[:LISTED], alarms_number=number, words=there, is_deaf=words is None)


def _listed(classes: Iterable[tuple[ClassView, Standing]], wanted: Container[Standing], now: float) -> list[PageLine]:
    """Lines for the first LISTED classes in *wanted*: there may be thousands, and making a sentence takes long."""
    return [_line(*one, now) for one in islice((one for one in classes if one[1] in wanted), LISTED)]


def _line(known: ClassView, standing: Standing, now: float) -> PageLine:
    booked = known.booked
    assert booked is not None  # the timetable lists only bookings
    said = booked.message or "" if standing in OVER else decide_account.state_sentence(known, standing, now)
    is_to_come = standing in {Standing.READY, Standing.COMING}
    if known.dead_air and is_to_come:
        said = joined((said, Text("{thing}: {what}", thing=Text("recording faults"), what=known.dead_air)))
    reds = known.check.reds if known.check and is_to_come else ""
    if reds:
        said = joined((said, Text("It is not ready for its start: {reds}", reds=reds)))
    late = known.ready_by if known.ready_by is not None and known.ready_by > booked.start_time else None
    if late is not None:
        is_rough = decide_account.is_to_be_made(booked)
        said = joined((said, will_be_there(booked.stem, late, booked.start_time, now, is_rough=is_rough)))
    heading = decide_account.why_not(known)[1].number if standing is Standing.NOT_ON_AIR else booked.code
    return PageLine(booked, standing, said, bool(reds) or late is not None, heading, known.ready_by)


@dataclass(frozen=True)
class OneClass:
    """The page of one class, with the account that ``lectern explain`` also gives."""

    class_id: str
    account: Account
    known: ClassView
    strip: Strip | None

    def fields(self) -> dict[str, Any]:
        """The same for programs."""
        return decide_account.fields(self.known, self.account)


def of_class(
    connection: Connection,
    viewer: ViewerRow,
    words: Mapping[str, StreamerStatus] | None,
    settings: TeacherSettings,
    class_id: str,
) -> OneClass | str | None:
    """What *viewer* sees of a class; None if nothing is known of it, or it belongs to another institution.

    Nobody knows the institution of a message or a row that cannot be read, so only viewers of all institutions see it;
    of such a row, a sentence that says why.
    """
    try:
        found = db_account.at_teacher(connection, settings.name, class_id)
    except LecternError as error:
        return error.message if viewer.institution_id is None else None
    if found.booked is None and not found.is_malformed and found.kept_since is None:
        return None
    if viewer.institution_id is not None and (
        found.booked is None or found.booked.institution_id != viewer.institution_id
    ):
        return None
    now = time.time()
    made_at = transcodings.made_at(connection, settings, now) if decide_account.is_to_be_made(found.booked) else None
    known = decide_account.with_status(found, words, made_at)
    if viewer.institution_id is not None:  # what is of a rendition, or of an incident, may name classes of others
        events = [one for one in known.events if one.class_id == class_id]
        alarms = [
            one for one in known.alarms if one.classes and {class_id, f"{class_id}{BACKUP}"}.issuperset(one.classes)
        ]
        known = replace(known, events=events, alarms=alarms)
    account = decide_account.account(known, now)
    return OneClass(class_id, account, known, strips.of_class(known, account.standing, now))


def of_search(
    connection: Connection, viewer: ViewerRow, words: Mapping[str, StreamerStatus] | None, wanted: timetable.Search
) -> dict[str, Any]:
    """The first ROWS classes that *viewer* searches for, from today on, and their number."""
    now = time.time()
    since = begin_of_day(now)
    span = timetable.Span(since, since + SEARCHED_S, viewer.institution_id)
    found = timetable.found(connection, span, wanted, ROWS)
    lines = [_line(*stood(one, words, now), now) for one in found]
    return {"lines": lines, "number": timetable.number(connection, timetable.meant(span, wanted))}


def for_calendar(connection: Connection, viewer: ViewerRow, institution: str | None, now: float) -> list[Booked]:
    """The classes from yesterday to 30 days ahead that were not refused; at most CALENDAR_ROWS, and as many cancelled.

    The second airing of a class is none of them.
    """
    wanted = institution if viewer.institution_id is None else viewer.institution_id
    span = timetable.Span(now - DAY_S, now + 30 * DAY_S, wanted)
    cancelled = timetable.page(connection, span, BookingState.CANCELLED, (0.0, ""), CALENDAR_ROWS)
    classes = timetable.classes(connection, timetable.not_dropped(span), CALENDAR_ROWS)
    return [one for one in (*classes, *cancelled) if not one.class_id.endswith(BACKUP)]


def fields_of(day: Day) -> dict[str, Any]:
    """The variables of the day's template."""
    yesterday, tomorrow = begin_of_day(day.begins - 0.5 * DAY_S), begin_of_day(day.begins + 1.5 * DAY_S)
    needed = {name: max(one.ahead.get(NEEDED) or [0.0]) for name, one in day.words.items()}
    refused = [one for one in day.lines if one.standing is Standing.REFUSED][:LISTED]
    days = {"day": day, "yesterday": yesterday, "tomorrow": tomorrow, "drawn_at": strips.drawn_at(day.now)}
    return days | {"Standing": Standing, "NEVER": NEVER, "needed": needed, "refused": refused}


# The timetable as a calendar (RFC 5545), which phones and office programs subscribe to.


_ESCAPED = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", "\r": ""})
REFRESH = "PT15M"
"""How often a calendar program should read the timetable again."""

FOLD = 73
"""Bytes of a line before it is folded; the RFC allows 75, with the blank."""


def calendar(booked: Iterable[Booked], now: float, name: str, base: str) -> str:
    """The classes as a calendar called *name*, one event for each; *base* is the address of the page."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//lectern//timetable//EN", "CALSCALE:GREGORIAN"]
    lines += [f"NAME:{_text(name)}", f"X-WR-CALNAME:{_text(name)}"]
    lines += [f"REFRESH-INTERVAL;VALUE=DURATION:{REFRESH}", f"X-PUBLISHED-TTL:{REFRESH}"]
    for one in booked:
        changed_s = (one.decided_at or 0.0) - (one.received_at or 0.0)
        lines += [
            "BEGIN:VEVENT",
            f"UID:{_text(one.class_id)}@lectern",
            f"DTSTAMP:{_utc(now)}",
            f"SEQUENCE:{max(int(changed_s), 0)}",
            f"STATUS:{'CANCELLED' if one.state is BookingState.CANCELLED else 'CONFIRMED'}",
            f"DTSTART:{_utc(one.start_time)}",
            f"DTEND:{_utc(one.end_time)}",
            f"SUMMARY:{_text(f'{one.class_id} {one.stem}')}",
            f"DESCRIPTION:{_text(one.state + ', ' + (one.streamer or 'no streamer yet'))}",
            f"URL:{base}/class/{quote(one.class_id, safe='')}",
            "END:VEVENT",
        ]
    return "".join(f"{folded}\r\n" for line in [*lines, "END:VCALENDAR"] for folded in _folded(line))


def _text(text: str) -> str:
    return text.translate(_ESCAPED)


def _utc(at: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))


def _folded(line: str) -> Iterable[str]:
    """Lines of at most 75 bytes; no character is cut."""
    rest, first = line, True
    while rest:
        part = rest.encode()[:FOLD].decode(errors="ignore")
        yield part if first else f" {part}"
        rest, first = rest[len(part) :], False


# The templates of the page, which also make the report that stands in a file of its own.


def rendered(template: str, language: str = "en", **fields: Any) -> str:  # noqa: ANN401 (a template's variables)
    """The page that *template* makes of *fields*, in *language*."""
    given = {
        "t": translator(language),
        "codes": CODES,
        "read": partial(translated, language=language),
        "language": language,
        "tell": partial(alarm_in, language),
        "now": time.time(),
    }
    return _TEMPLATES.get_template(template).render(**given, **fields)


_FRAGMENT = re.compile(r'<(title|ul|section) id="[^"]*".*?</\1>', re.DOTALL)


def fragments(text: str) -> dict[str, str]:
    """The parts of a page that have an id, by a tag that another text of the part does not have."""
    return {hashlib.sha256(one[0].encode()).hexdigest()[:12]: one[0] for one in _FRAGMENT.finditer(text)}


_TEMPLATES = Environment(loader=PackageLoader("lectern.page"), autoescape=True, trim_blocks=True)
_TEMPLATES.filters |= {
    "moment": formatting.moment,
    "clock": formatting.clock,
    "span": formatting.span,
    "size": formatting.size,
    "when": formatting.when,
    "tenths": lambda at: formatting.tenths(at)[11:],
    "day": lambda at: formatting.moment(at)[:10],
}
