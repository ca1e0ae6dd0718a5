"""What to do with a booking: the table of the design, row for row, its use on a batch, and the answers."""

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from lectern import errors, formatting
from lectern.decide.forecast import Transcoding
from lectern.decide.gaps import LOST_S
from lectern.decide.placement import Ends, Loads, answer_again, cancel, proceed, refuse_other, without_cancelled
from lectern.decide.transcoding import next_attempt
from lectern.errors import ErrorCode
from lectern.i18n import Text, msgid
from lectern.model.facts import Attempt, Order, Rendition, RenditionKey, Slot
from lectern.model.plan import Changes
from lectern.rendition_ids import source
from lectern.settings import TeacherSettings
from lectern.states import BOOKING_OVER, BookingState, RenditionState
from lectern.wire.fields import read_resolution
from lectern.wire.messages import Booking, Cancel

_TIMES = frozenset({"start_time", "end_time"})
_SHOWN = frozenset({"record_id", "video_resolution", "institution_id"})
"""Fields whose values are shown; a URL may hold a secret, and an unknown field may be long."""


def is_same(stored: str, booking: Booking) -> bool:
    """Whether *booking* says the same as the payload that was *stored*, however each of them is written.

    A recording's URL with a new signature is another URL: the old signature may have expired.
    """
    return stored == booking.payload or not changed_fields(stored, booking, str)


def contradiction(stored: Sequence[str], booking: Booking) -> str:
    """Why *booking* is refused beside the payloads *stored* of its class; empty if it says the same as one of them.

    The order of keys, the spelling of numbers and URLs, the signature of a recording's URL, and null entries make no
    difference.
    """
    differing: list[str] = []
    for payload in stored:
        if payload == booking.payload or not (differing := changed_fields(payload, booking)):
            return ""
    return Text("it is booked already with other content: {differs}", differs=", ".join(differing))


def changed_fields(payload: str, booking: Booking, identity: Callable[[str], str] = source) -> list[str]:
    """In what *booking* differs from the one that was kept as *payload*: the name of each field, and its new value.

    *identity* is what two URLs of one recording have in common.
    """
    try:
        before = _said(Booking.model_validate_json(payload), identity)
    except ValidationError:  # an older version accepted what this one does not
        return ["what an older release accepted"]
    now = _said(booking, identity)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [_in_words(name, before.get(name), now.get(name)) for name in names]


def _said(booking: Booking, identity: Callable[[str], str]) -> dict[str, Any]:
    fields = booking.model_dump(exclude={"video_url_list", "video_url", "by"})
    listed = {key: where for key, where in booking.video_url_list.items() if where}
    others = {key: where for key, where in listed.items() if read_resolution(key) not in booking.urls}
    return {
        **{name: value for name, value in fields.items() if value is not None},
        **({} if booking.video_url is None else {"video_url": identity(booking.video_url)}),
        "video_url_list": {key: identity(where) for key, where in (*booking.urls.items(), *others.items())},
    }


def _in_words(name: str, before: Any, now: Any) -> str:  # noqa: ANN401 (any value of a field)
    if name in _TIMES:
        return f"{name} {formatting.moment(before)} -> {formatting.when(now, before)}"
    return f"{name} {before} -> {now}" if name in _SHOWN else name


def is_listed(booking: Booking) -> bool:
    """Whether *booking* has the URL of what it wants, so that nobody needs to look at renditions."""
    return booking.video_resolution is None or booking.video_resolution in booking.urls


@dataclass(frozen=True)
class BookingVerdict:
    """What was decided about one new booking, and the transcoding that begins for it."""

    booking: Booking
    state: BookingState
    url: str | None = None
    code: ErrorCode | None = None
    message: str = ""
    alarm: bool = False
    attempt: Attempt | None = None


@dataclass(frozen=True)
class BookingFacts:
    """What the database says before a batch of bookings or changes."""

    orders: Mapping[str, Order] = field(default_factory=dict)  # the classes that are booked already
    renditions: dict[RenditionKey, Rendition] = field(default_factory=dict)
    taken: dict[str, list[Slot]] = field(default_factory=dict)  # the live classes of each stream
    least_s: float = 0.0  # seconds that a new transcoding will surely take
    loads: Loads = field(default_factory=dict)
    early: Collection[str] = ()  # classes whose cancel arrived before their booking
    ends: Ends = field(default_factory=dict)  # what the platform was told of the end of classes that are cancelled
    unconfirmed: Collection[str] = ()  # classes whose cancel their streamer has not confirmed

    def take(self, verdict: BookingVerdict) -> None:
        """Note for the next bookings what is taken by *verdict*: streams, and the transcoding that begins."""
        booking, attempt = verdict.booking, verdict.attempt
        if verdict.state is not BookingState.REFUSED:
            slot = Slot(booking.class_id, booking.start_time, booking.end_time)
            for stream in booking.streams:
                self.taken.setdefault(stream, []).append(slot)
        if attempt is not None:
            its = attempt.attempt, attempt.attempts_today, attempt.attempts_since
            self.renditions[attempt.record_id, attempt.resolution] = Rendition(RenditionState.TRANSCODING, *its)


def plan(
    bookings: Iterable[Booking], before: BookingFacts, settings: TeacherSettings, now: float
) -> list[BookingVerdict | str]:
    """Decide a batch in its order; each booking is decided with what the bookings before it have begun.

    Of a booking whose class is booked already, only its `contradiction` is found.
    """
    taken = {stream: list(slots) for stream, slots in before.taken.items()}
    facts = replace(before, renditions=dict(before.renditions), taken=taken)
    decided: list[BookingVerdict | str] = []
    new: dict[str, Booking] = {}
    for booking in bookings:
        class_id = booking.class_id
        if class_id in new or class_id in facts.orders:
            known = (new[class_id].payload,) if class_id in new else facts.orders[class_id].payloads
            decided.append(contradiction(known, booking))
            continue
        verdict = verdict_on(booking, facts, settings, now)
        facts.take(verdict)
        new[class_id] = booking
        decided.append(verdict)
    return decided


def transcodings(decided: Iterable[BookingVerdict | str]) -> list[Transcoding]:
    """The transcodings that begin, as a forecast needs them."""
    starts: dict[str, float] = {}
    begun: list[Attempt] = []
    for verdict in decided:
        if isinstance(verdict, BookingVerdict):
            its = verdict.booking
            starts[its.stem] = min(its.start_time, starts.get(its.stem, its.start_time))
            begun += [verdict.attempt] if verdict.attempt is not None else []
    return [Transcoding(one.stem, one.record_id, one.backend, starts[one.stem]) for one in begun]


def contenders(
    bookings: Iterable[Booking],
    known: Container[str],
    renditions: Mapping[RenditionKey, Rendition],
    now: float,
) -> list[Booking]:
    """The bookings that the table does not refuse: the streams of these must be compared with those already taken."""
    refusing = {RenditionState.TIMED_OUT, RenditionState.SUCCESS}
    refused = {key for key, row in renditions.items() if row.state in refusing}
    return [
        booking
        for booking in bookings
        if booking.end_time > now
        and booking.class_id not in known
        and (is_listed(booking) or booking.key not in refused)
    ]


def _too_late(booking: Booking, least_s: float, now: float) -> BookingVerdict | None:
    """The refusal of a class whose transcoding would surely end after its start; None if it can be in time.

    A class that is booked after its start is aired from the clock's position, however late its recording comes.
    """
    late_s = now + least_s - booking.start_time
    if booking.start_time <= now or late_s <= LOST_S:
        return None
    text = msgid(
        "{stem} is yet to be transcoded, and will surely not be there at the start: "
        "half of the last transcodings took more than {least_s:span}, and the class begins in {left_s:span}"
    )
    why = Text(text, stem=booking.stem, least_s=least_s, left_s=booking.start_time - now)
    return _refusal(booking, errors.NOT_READY_FOR_START, why)


def verdict_on(booking: Booking, facts: BookingFacts, settings: TeacherSettings, now: float) -> BookingVerdict:
    """What is decided about a new booking, by the table, its times and its streams."""
    if booking.end_time <= now:
        return _refusal(booking, errors.ENDED, Text("it ended {ago_s:span} ago", ago_s=now - booking.end_time))
    # While no stream is taken there is nothing to compare, so the URLs of refused bookings need no parsing.
    streams = booking.streams if facts.taken else ()
    for slot in [live for stream in streams for live in facts.taken.get(stream, ())]:
        overlap_s = min(booking.end_time, slot.end_time) - max(booking.start_time, slot.start_time)
        if overlap_s > 0:
            text = msgid("{class_id} is pushed to the same URL, and overlaps for {overlap_s:span}")
            why = Text(text, class_id=slot.class_id, overlap_s=overlap_s)
            return _refusal(booking, errors.CONFLICT, why)
    if is_listed(booking):
        url = booking.urls[booking.video_resolution] if booking.video_resolution else booking.video_url
        return BookingVerdict(booking, BookingState.PLACED, url=url)
    key = booking.key
    assert key is not None  # a booking that names a resolution names a record
    row = facts.renditions.get(key)
    match row and row.state:
        case RenditionState.TRANSCODING:
            return BookingVerdict(booking, BookingState.WAITING)
        case RenditionState.TIMED_OUT:
            text = Text("transcoding of {stem} timed out", stem=booking.stem)
            return _refusal(booking, errors.TRANSCODE_TIMED_OUT, text)
        case RenditionState.SUCCESS:
            text = Text("{stem} is transcoded, but video_url_list lacks it", stem=booking.stem)
            return _refusal(booking, errors.URL_MISSING, text, alarm=True)
    attempt = next_attempt(booking, key, row, settings, now)
    if isinstance(attempt, Attempt):
        waits = BookingVerdict(booking, BookingState.WAITING, attempt=attempt)
        return _too_late(booking, facts.least_s, now) or waits
    return _refusal(booking, attempt.code, attempt.message, alarm=True)


def _refusal(booking: Booking, code: ErrorCode, message: str, *, alarm: bool = False) -> BookingVerdict:
    return BookingVerdict(booking, BookingState.REFUSED, code=code, message=message, alarm=alarm)


def decide_orders(
    changes: Changes, booked: Sequence[Booking], cancelled: Sequence[Cancel], facts: BookingFacts
) -> None:
    """Decide cancels of known classes, bookings in their order, then the other cancels.

    ``changes.orders`` has the classes that are booked already. The streams of those that are cancelled are free for the
    bookings.
    """
    first = [message for message in cancelled if message.class_id in changes.orders]
    later = [message for message in cancelled if message.class_id not in changes.orders]
    for message in first:
        cancel(changes, message, facts.ends, facts.unconfirmed)
    if first:
        over = {class_id for class_id, order in changes.orders.items() if order.state in BOOKING_OVER}
        taken = {stream: [it for it in slots if it.class_id not in over] for stream, slots in facts.taken.items()}
        facts = replace(facts, taken=taken)
    others = without_cancelled(changes, booked, facts.early) if facts.early else booked
    decided = plan(others, replace(facts, orders=changes.orders), changes.settings, changes.now)
    verdicts = [one for one in decided if isinstance(one, BookingVerdict)]
    going: list[tuple[Order, str]] = []
    for verdict in verdicts:
        order = changes.book(verdict.booking)
        if verdict.state is BookingState.PLACED:
            going.append((order, verdict.url or ""))
        elif verdict.state is BookingState.WAITING:
            changes.move(order, BookingState.WAITING)
            changes.joins[changes.waiting_key(order)].append(order.class_id)
            changes.note("waits", order)
            changes.row(order.class_id, "wait", detail=order.stem)
        else:
            assert verdict.code is not None  # the table gives every refusal its code
            changes.refuse(order, verdict.code, verdict.message, alarm=verdict.alarm)
    proceed(changes, going, facts.loads)
    for attempt in [verdict.attempt for verdict in verdicts if verdict.attempt is not None]:
        changes.begin(attempt)
    again = [(it.class_id, why) for it, why in zip(others, decided, strict=True) if isinstance(why, str)]
    for class_id, why in again:
        if why:
            refuse_other(changes, changes.orders[class_id], why)
        else:
            answer_again(changes, changes.orders[class_id])
    for message in later:
        cancel(changes, message, facts.ends, facts.unconfirmed)
