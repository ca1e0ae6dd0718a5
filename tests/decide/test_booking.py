"""What becomes of a booking."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lectern import errors
from lectern.decide import booking as decide
from lectern.decide.booking import BookingFacts, BookingVerdict
from lectern.decide.transcoding import source as chosen_source
from lectern.model.facts import Attempt, Order, Rendition, RenditionKey, Slot
from lectern.settings import TeacherSettings
from lectern.states import Backend, BookingState, RenditionState, Resolution
from lectern.wire.messages import Booking
from tests import strategies
from tests.strategies import NOW, booking, transcoders

BOTH = transcoders(max_attempts_a_day=5, transcoding_time_out_s=120)
"""The settings of a teacher that has two transcoders."""


@dataclass
class Planned:
    """What was decided about a batch of bookings."""

    verdicts: list[BookingVerdict] = field(default_factory=list)
    again: list[tuple[str, str]] = field(default_factory=list)
    """Each class that was booked already, and why it is refused; empty if it is the same."""

    @property
    def attempts(self) -> list[Attempt]:
        return [one.attempt for one in self.verdicts if one.attempt is not None]


def plan(bookings: list[Booking], before: BookingFacts, settings: TeacherSettings, now: float) -> Planned:
    found = decide.plan(bookings, before, settings, now)
    verdicts = [one for one in found if isinstance(one, BookingVerdict)]
    again = [(its.class_id, one) for its, one in zip(bookings, found, strict=True) if isinstance(one, str)]
    return Planned(verdicts, again)


def of(state: RenditionState | None, attempts_today: int = 0, since: float = 0.0) -> BookingFacts:
    """What is known before, if the rendition has a row."""
    its = Rendition(state, 9, attempts_today, since) if state else None
    return BookingFacts({}, {(6666, Resolution.P720): its} if its else {})


LISTED = {"720P": "http://origin.example/720", "480P": "http://origin.example/480"}
OVER: dict[str, Any] = {"start_time": NOW - 20, "end_time": NOW}
TAKEN = BookingFacts(taken={booking(**OVER).streams[0]: [Slot("c-2", NOW - 100, NOW + 100)]})
FAILED, TIMED_OUT = RenditionState.FAILED, RenditionState.TIMED_OUT
LONE: dict[str, tuple[dict[str, Any], BookingFacts, str, int | None, bool]] = {
    "no resolution": ({"video_resolution": None}, of(FAILED), "placed", None, False),
    "listed": ({"video_url_list": LISTED}, of(TIMED_OUT), "placed", None, False),
    "no row": ({}, of(None), "waiting", None, False),
    "transcoding": ({}, of(RenditionState.TRANSCODING), "waiting", None, False),
    "made, and not listed": ({}, of(RenditionState.SUCCESS), "refused", 501, True),
    "timed out": ({}, of(TIMED_OUT), "refused", 207, False),
    "failed": ({}, of(FAILED), "waiting", None, False),
    "no source": ({"video_url": None}, of(None), "refused", 210, True),
    "five attempts in a day": ({}, of(FAILED, 5, NOW - 86_399), "refused", 209, True),
    "ended": ({"start_time": NOW - 9000, "end_time": NOW - 7200}, of(None), "refused", 410, False),
    "ends now": (OVER, of(None), "refused", 410, False),
    "ended, so that no other push URL could help it": (OVER, TAKEN, "refused", 410, False),
    "should be on air already": ({"start_time": NOW - 20, "end_time": NOW + 20}, of(None), "waiting", None, False),
}


@pytest.mark.parametrize("case", LONE)
def test_a_lone_booking_follows_its_row(case: str) -> None:
    """An alarm is raised of what cannot happen or cannot be helped alone."""
    fields, before, state, code, alarm = LONE[case]
    planned = plan([booking(**fields)], before, BOTH, NOW)
    (verdict,) = planned.verdicts
    assert (verdict.state, verdict.code.number if verdict.code else None, bool(verdict.alarm)) == (state, code, alarm)
    assert len(planned.attempts) == (state == "waiting" and case != "transcoding")
    assert case != "ended" or "2 h" in verdict.message


def test_a_booking_that_comes_again_is_not_decided_again_but_another_is_told() -> None:
    planned = plan([booking(), booking()], BookingFacts(), BOTH, NOW)
    assert len(planned.verdicts) == len(planned.attempts) == len(planned.again) == 1
    assert planned.again == [("c-1", "")]
    planned = plan([booking()], BookingFacts({"c-1": Order.of(booking())}), BOTH, NOW)
    assert planned.again == [("c-1", "")]
    assert not planned.verdicts
    planned = plan([booking(), booking(record_id=7)], BookingFacts(), BOTH, NOW)
    assert len(planned.verdicts) == 1
    why = f"it is booked already with other content: record_id {booking().record_id} -> 7"
    assert planned.again == [("c-1", why)]


def test_a_transcoding_is_forecast_for_the_first_class_that_needs_it() -> None:
    batch = [booking(f"c-{n}", start_time=NOW + in_s) for n, in_s in enumerate((900, 600, 1200))]
    decided = decide.plan([*batch, batch[0], booking("c-9", video_resolution=None)], BookingFacts(), BOTH, NOW)
    assert [(one.stem, one.start) for one in decide.transcodings(decided)] == [("6666_720P", NOW + 600)]


@pytest.mark.parametrize(("oss", "ecs"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_cloud_is_asked_first_then_our_server_and_without_both_a_class_is_refused(oss: bool, ecs: bool) -> None:
    planned = plan([booking()], BookingFacts(), transcoders(oss=oss, ecs=ecs, transcoding_time_out_s=120), NOW)
    refused = [(one.code, one.alarm) for one in planned.verdicts if one.code is not None]
    assert refused == ([] if oss or ecs else [(errors.NO_TRANSCODER, True)])
    asked = [(one.backend, one.deadline) for one in planned.attempts]
    # The OSS's time-out does not bound our own server.
    assert asked == ([(Backend.OSS, NOW + 120)] if oss else [(Backend.ECS, NOW + 3600)] if ecs else [])


@pytest.mark.parametrize(
    ("before", "since", "today", "from_"),
    [(5, NOW - 86_400, 1, NOW), (5, NOW + 9 * 365 * 86_400, 1, NOW), (4, NOW - 60, 5, NOW - 60)],
    ids=["the next day", "a day that began while the clock was years ahead", "a further one of the day"],
)
def test_attempts_are_counted_by_the_day(before: int, since: float, today: int, from_: float) -> None:
    """With a wrong date no certificate is valid, so all attempts fail: the recording would be refused for years."""
    (attempt,) = plan([booking()], of(FAILED, before, since), BOTH, NOW).attempts
    assert (attempt.attempt, attempt.attempts_today, attempt.attempts_since) == (10, today, from_)


SOURCES: list[tuple[list[str], str | None, str, str | None]] = [  # the list, the whole one, what is wanted, its source
    (["240P", "1080P", "720P"], "whole", "480P", "720P"),
    (["1080P", "240P"], "whole", "480P", "1080P"),
    (["240P"], "whole", "480P", "whole"),
    (["240P", "480P"], None, "1080P", "480P"),
    ([], "whole", "240P", "whole"),
    ([], None, "240P", None),
]


def test_the_source_is_the_smallest_that_is_large_enough_else_the_largest_there_is() -> None:
    def at(name: str | None) -> str | None:
        return name and f"http://origin.example/{name}"

    for listed, whole, wanted, source in SOURCES:
        made = booking(video_url=at(whole), video_url_list={one: at(one) for one in listed}, video_resolution=wanted)
        assert chosen_source(made, Resolution(wanted)) == at(source)


@pytest.mark.parametrize(
    ("in_s", "least_s", "code"),
    [
        (300, 0, None),  # nobody knows how long it takes
        (300, 300, None),
        (300, 304, None),  # what a class may lack that is aired whole
        (300, 310, 324),
        (-10, 310, None),  # it is booked after its start, and aired from the clock's position
    ],
)
def test_a_class_is_refused_if_even_a_quick_transcoding_would_end_after_its_start(
    in_s: float, least_s: float, code: int | None
) -> None:
    """Nothing is transcoded for it; one that begins later is taken, and one whose transcoding is begun already."""
    batch = [booking(f"c-{at_s}", start_time=NOW + at_s) for at_s in (in_s, 900, 301)]
    planned = plan(batch, BookingFacts(least_s=least_s), BOTH, NOW)
    assert [one.code and one.code.number for one in planned.verdicts] == [code, None, None]
    assert len(planned.attempts) == 1


Batch = tuple[list[Booking], dict[RenditionKey, Rendition], TeacherSettings]
batches = st.tuples(st.lists(strategies.bookings(), max_size=12), strategies.renditions, strategies.settings)
TWINS: Batch = ([booking(f"c-{number}") for number in (1, 2, 1)], {}, BOTH)


@given(batches)
@example(TWINS)
def test_each_booking_gets_one_decision_with_what_it_needs(drawn: Batch) -> None:
    """What is placed has a URL, what is refused a code, what waits a transcoding; what was given is left as it was."""
    batch, rows, settings = drawn
    known: dict[str, Order] = {}
    before = json.dumps([[one.to_json() for one in batch], str(rows)])
    planned = plan(batch, BookingFacts(known, rows), settings, NOW)
    assert (known, json.dumps([[one.to_json() for one in batch], str(rows)])) == ({}, before)
    decided = [verdict.booking.class_id for verdict in planned.verdicts]
    assert sorted(decided) == sorted({one.class_id for one in batch})
    assert len(decided) + len(planned.again) == len(batch)
    under_way = {key for key, row in rows.items() if row.state is RenditionState.TRANSCODING}
    begun = [(one.record_id, one.resolution) for one in planned.attempts]
    assert len(begun) == len({*begun} - under_way), "at most one attempt for a rendition, and never a second one"
    under_way |= {*begun}
    for verdict in planned.verdicts:
        assert (verdict.url is not None) == (verdict.state is BookingState.PLACED)
        assert (verdict.code is not None) == (verdict.state is BookingState.REFUSED) == bool(verdict.message)
        if verdict.state is BookingState.WAITING:
            assert (verdict.booking.record_id, verdict.booking.video_resolution) in under_way


@given(batches)
@example(TWINS)
def test_a_batch_decided_at_once_equals_the_same_bookings_decided_one_at_a_time(drawn: Batch) -> None:
    batch, rows, settings = drawn
    at_once = plan(batch, BookingFacts({}, rows), settings, NOW)
    known: dict[str, Order] = {}
    rows = dict(rows)
    singly = Planned()
    for one in batch:
        step = plan([one], BookingFacts(known, rows), settings, NOW)
        singly.verdicts += step.verdicts
        singly.again += step.again
        for verdict in step.verdicts:  # what the commit of the step leaves in the database
            known[verdict.booking.class_id] = Order.of(one)
        for begun in step.attempts:
            its = (begun.attempt, begun.attempts_today, begun.attempts_since)
            rows[begun.record_id, begun.resolution] = Rendition(RenditionState.TRANSCODING, *its)
    assert at_once == singly


def test_of_two_classes_on_one_stream_at_the_same_time_the_second_is_refused() -> None:
    """In one batch, or beside one that is booked; whatever the spelling of the push URL."""
    first = booking("c-1", push_url="rtmp://push.example/live/x")
    second = booking("c-2", push_url="RTMP://PUSH.example:1935/live/x?auth_key=1", start_time=NOW + 3_000)
    for batch, taken in (
        ([first, second], {}),
        ([second], {first.streams[0]: [Slot("c-1", first.start_time, first.end_time)]}),
    ):
        found = plan(batch, BookingFacts({}, {}, taken), BOTH, NOW).verdicts[-1]
        assert (found.booking.class_id, found.state, found.code) == ("c-2", BookingState.REFUSED, errors.CONFLICT)
        assert found.message == "c-1 is pushed to the same URL, and overlaps for 8 min"
        assert not found.alarm


def test_a_stream_is_taken_by_who_is_accepted_until_its_end_and_only_for_those_is_anything_transcoded() -> None:
    """So is the stream of its second airing."""
    url, backup = "rtmp://push.example/live/x", "rtmp://backup.example/live/x"
    ended = booking("c-0", push_url=url, start_time=NOW - 900, end_time=NOW - 1)
    first = booking("c-1", push_url=url, push_url_backup=backup)
    second = booking("c-2", push_url=url, end_time=first.end_time + 600, record_id=7)
    later = booking("c-3", push_url=url, start_time=first.end_time, end_time=first.end_time + 60)
    beside = booking("c-4", push_url=backup, record_id=7)
    found = plan([ended, first, second, later, beside, booking("c-5"), first], BookingFacts(), BOTH, NOW)
    assert [one.state for one in found.verdicts] == ["refused", "waiting", "refused", "waiting", "refused", "waiting"]
    assert [one.record_id for one in found.attempts] == [6666]
    assert found.again == [("c-1", "")]


def test_streams_are_looked_up_only_for_bookings_that_may_be_taken() -> None:
    waits, refused = booking("c-1"), booking("c-2", record_id=7)
    ended, known = booking("c-3", start_time=NOW - 9, end_time=NOW), booking("c-4")
    rows = {(7, Resolution.P720): Rendition(RenditionState.TIMED_OUT)}
    before = {"c-4": known.payload}
    assert decide.contenders([waits, refused, ended, known], before, rows, NOW) == [waits]
