"""What becomes of a booking."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import errors
from lectern.decide import booking as decide
from lectern.decide.booking import Again, BookingFacts, BookingVerdict
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
    again: list[Again] = field(default_factory=list)

    @property
    def attempts(self) -> list[Attempt]:
        return [one.attempt for one in self.verdicts if one.attempt is not None]


def plan(bookings: list[Booking], before: BookingFacts, settings: TeacherSettings, now: float) -> Planned:
    planned = Planned()
    for one in decide.plan(bookings, before, settings, now):
        if isinstance(one, Again):
            planned.again.append(one)
        else:
            planned.verdicts.append(one)
    return planned


# The booking decision as the rollout note and the design word it.
WORDS = [
    ("names no resolution", "not looked at", "proceed"),
    ("resolution in video_url_list", "not looked at", "proceed"),
    ("not in the list", "no row", "insert row as transcoding; request OSS transcoding; wait"),
    ("not in the list", "transcoding", "wait"),
    ("not in the list", "success", "alarm 501, refuse with 501"),
    ("not in the list", "timed out", "refuse with 207"),
    ("not in the list", "failed", "set row to transcoding; request OSS transcoding again; wait"),
]


NAMED: dict[str, dict[str, Any]] = {
    "names no resolution": {"video_resolution": None},
    "resolution in video_url_list": {"video_url_list": {"720P": "http://a.example/"}},
    "not in the list": {},
}


@pytest.mark.parametrize(("named", "found", "do"), WORDS)
def test_the_table_is_the_documented_one_row_for_row(named: str, found: str, do: str) -> None:
    """Every state of the rendition has its row; where it is not looked at, none makes a difference."""
    for state in (None, *RenditionState):
        rows = {(6666, Resolution.P720): Rendition(state)} if state else {}
        if found in {"not looked at", state or "no row"}:
            assert decide.action(booking(**NAMED[named]), rows) == do
    assert found in {"not looked at", "no row", *RenditionState}


def of(state: RenditionState | None, attempts_today: int = 0, since: float = 0.0) -> BookingFacts:
    """What is known before, if the rendition has a row."""
    its = Rendition(state, 9, attempts_today, since) if state else None
    return BookingFacts({}, {(6666, Resolution.P720): its} if its else {})


LISTED = {"720P": "http://origin.example/720", "480P": "http://origin.example/480"}
OVER: dict[str, Any] = {"start_time": NOW - 20, "end_time": NOW}
TAKEN = BookingFacts(taken={booking(**OVER).stream: [Slot("c-2", NOW - 100, NOW + 100)]})
NO_TRANSCODER = transcoders(oss=False, ecs=False)
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


def test_without_a_transcoder_what_has_to_be_transcoded_is_refused_at_once() -> None:
    planned = plan([booking()], BookingFacts(), NO_TRANSCODER, NOW)
    (verdict,) = planned.verdicts
    assert (verdict.code, verdict.alarm, planned.attempts) == (errors.NO_TRANSCODER, True, [])


@pytest.mark.parametrize(
    ("fields", "url", "stem"),
    [
        ({"video_resolution": None}, "http://origin.example/6666.flv", "6666"),
        ({"video_url_list": LISTED}, LISTED["720P"], "6666_720P"),
    ],
    ids=["of the old kind", "listed"],
)
def test_a_booking_proceeds_with_the_url_of_its_resolution(fields: dict[str, Any], url: str, stem: str) -> None:
    (verdict,) = plan([booking(**fields)], BookingFacts(), BOTH, NOW).verdicts
    assert (verdict.url, verdict.booking.stem) == (url, stem)


def test_a_thousand_bookings_of_one_rendition_make_one_transcoding() -> None:
    planned = plan([booking(f"c-{n}") for n in range(1_000)], BookingFacts(), BOTH, NOW)
    assert len(planned.attempts) == 1
    assert {verdict.state for verdict in planned.verdicts} == {BookingState.WAITING}
    assert len(planned.verdicts) == 1_000


def test_a_booking_that_comes_again_is_not_decided_again_but_another_is_told() -> None:
    planned = plan([booking(), booking()], BookingFacts(), BOTH, NOW)
    assert len(planned.verdicts) == len(planned.attempts) == len(planned.again) == 1
    assert not planned.again[0].differs
    planned = plan([booking()], BookingFacts({"c-1": Order.of(booking())}), BOTH, NOW)
    assert planned.again == [Again("c-1", [])]
    assert not planned.verdicts
    planned = plan([booking(), booking(record_id=7)], BookingFacts(), BOTH, NOW)
    assert len(planned.verdicts) == 1
    (again,) = planned.again
    assert again.differs == [f"record_id {booking().record_id} -> 7"]


@pytest.mark.parametrize(("oss", "ecs", "backend"), [(True, True, "oss"), (True, False, "oss"), (False, True, "ecs")])
def test_the_cloud_is_asked_first_and_our_server_where_there_is_no_cloud(oss: bool, ecs: bool, backend: str) -> None:
    settings = transcoders(oss=oss, ecs=ecs, transcoding_time_out_s=120)
    (attempt,) = plan([booking()], BookingFacts(), settings, NOW).attempts
    assert attempt.backend == Backend(backend)
    assert attempt.deadline == NOW + (120 if oss else 3600), "the OSS's time-out does not bound our own server"


@pytest.mark.parametrize(
    ("before", "since", "today", "from_"),
    [(5, NOW - 86_400, 1, NOW), (5, NOW + 9 * 365 * 86_400, 1, NOW), (4, NOW - 60, 5, NOW - 60)],
    ids=["the next day", "a day that began while the clock was years ahead", "a further one of the day"],
)
def test_attempts_are_counted_by_the_day(before: int, since: float, today: int, from_: float) -> None:
    """With a wrong date no certificate is valid, so all attempts fail: the recording would be refused for years."""
    (attempt,) = plan([booking()], of(FAILED, before, since), BOTH, NOW).attempts
    assert (attempt.attempt, attempt.attempts_today, attempt.attempts_since) == (10, today, from_)


@pytest.mark.parametrize(
    ("listed", "video_url", "wanted", "source"),
    [
        (["240P", "1080P", "720P"], True, "480P", "720P"),
        (["1080P", "240P"], True, "480P", "1080P"),
        (["240P"], True, "480P", "whole"),
        (["240P", "480P"], False, "1080P", "480P"),
        ([], True, "240P", "whole"),
        ([], False, "240P", None),
    ],
)
def test_the_source_is_the_smallest_that_is_large_enough_else_the_largest_there_is(
    listed: list[str], video_url: bool, wanted: str, source: str | None
) -> None:
    made = booking(
        video_url="http://origin.example/whole" if video_url else None,
        video_url_list={one: f"http://origin.example/{one}" for one in listed},
        video_resolution=wanted,
    )
    found = chosen_source(made, Resolution(wanted))
    assert found == (f"http://origin.example/{source}" if source else None)


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
    soon, later, too = (
        booking(start_time=NOW + in_s),
        booking("c-2", start_time=NOW + 900),
        booking("c-3", start_time=NOW + 300),
    )
    planned = plan([soon, later, too], BookingFacts(least_s=least_s), BOTH, NOW)
    assert [one.code and one.code.number for one in planned.verdicts] == [code, None, None]
    assert len(planned.attempts) == 1


Batch = tuple[list[Booking], dict[RenditionKey, Rendition], TeacherSettings]
batches = st.tuples(st.lists(strategies.bookings(), max_size=12), strategies.renditions, strategies.settings)


@given(batches)
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
        ([second], {first.stream: [Slot("c-1", first.start_time, first.end_time)]}),
    ):
        found = plan(batch, BookingFacts({}, {}, taken), BOTH, NOW).verdicts[-1]
        assert (found.booking.class_id, found.state, found.code) == ("c-2", BookingState.REFUSED, errors.CONFLICT)
        assert found.message == "c-1 is pushed to the same URL, and overlaps for 8 min"
        assert not found.alarm


def test_a_refused_class_begins_no_transcoding_and_takes_no_stream() -> None:
    ended = booking("c-0", push_url="rtmp://push.example/live/x", start_time=NOW - 900, end_time=NOW - 1)
    first = booking("c-1", push_url="rtmp://push.example/live/x")
    second = booking("c-2", push_url="rtmp://push.example/live/x", record_id=7)
    found = plan([ended, first, second], BookingFacts(), BOTH, NOW)
    assert [one.state for one in found.verdicts] == ["refused", "waiting", "refused"]
    assert [one.record_id for one in found.attempts] == [6666]


def test_a_class_may_begin_when_another_ends_and_may_come_twice() -> None:
    first = booking("c-1", push_url="rtmp://push.example/live/x")
    later = booking("c-2", push_url=first.push_url, start_time=first.end_time, end_time=first.end_time + 60)
    other = booking("c-3", push_url="rtmp://push.example/live/y")
    found = plan([first, later, other, first], BookingFacts(), BOTH, NOW)
    assert [one.state for one in found.verdicts] == ["waiting"] * 3
    assert [one.class_id for one in found.again] == ["c-1"]


def test_streams_are_looked_up_only_for_bookings_that_may_be_taken() -> None:
    waits, refused = booking("c-1"), booking("c-2", record_id=7)
    ended, known = booking("c-3", start_time=NOW - 9, end_time=NOW), booking("c-4")
    rows = {(7, Resolution.P720): Rendition(RenditionState.TIMED_OUT)}
    before = {"c-4": known.payload}
    assert decide.contenders([waits, refused, ended, known], before, rows, NOW) == [waits]
