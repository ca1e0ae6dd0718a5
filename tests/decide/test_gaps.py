"""What was not sent of a class is found from its as-run and its events, to the second, each gap with both ends."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import formatting
from lectern.decide.gaps import SentAccount, as_run, both, line, longest, merged, report, sent
from lectern.model.facts import AsRun
from lectern.model.views import Booked, EventView
from lectern.states import BookingState

START, LENGTH = 1_000.0, 1_000.0
END = START + LENGTH
REFUSED, BROKE_OFF = "push refused", "push broke off"


def part(begins: float, ends: float, source: str = "recording", session: int = 1, sent_s: float | None = None) -> AsRun:
    """A part between two seconds of the class."""
    length = ends - begins if sent_s is None else sent_s
    return AsRun(0, session, source, START + begins, START + ends, begins, length)


def event(at: float, what: str, detail: str = "") -> EventView:
    return EventView(START + at, what, "c-1", None, "s1", detail)


def found(*parts: AsRun, events: tuple[EventView, ...] = (), message: str = "") -> SentAccount:
    return sent(START, END, parts, events, message)


stretches = st.tuples(st.floats(-50, 1_050), st.floats(0, 400), st.sampled_from(["recording", "slate", "a hymn"]))
happenings = st.tuples(
    st.floats(-10, 1_010), st.sampled_from([REFUSED, BROKE_OFF, "slate", "fell behind", "connected"])
)


@given(st.lists(stretches, max_size=12), st.lists(happenings, max_size=12), st.booleans())
def test_what_was_sent_and_what_was_not_make_up_the_class(
    drawn: list[tuple[float, float, str]], said: list[tuple[float, str]], is_over: bool
) -> None:
    parts = [part(begins, begins + length, source) for begins, length, source in drawn]
    events = tuple(event(at, what) for at, what in said)
    known = found(*parts, events=events, message="its recording is over" if is_over else "")
    assert known.recording_s + sum(one.missing_s for one in known.gaps) == pytest.approx(LENGTH)
    assert known.missing_s == pytest.approx(sum(one.missing_s for one in known.gaps), abs=1e-6)
    assert 0 <= known.slate_s <= known.missing_s + 1e-6
    ends = [bound for one in known.gaps for bound in (one.begins, one.ends)]
    assert ends == sorted(ends)
    assert all(START <= bound <= END for bound in ends)
    assert all(one.missing_s <= one.ends - one.begins + 1e-6 for one in known.gaps)


def test_each_gap_is_told_with_both_ends_and_its_reason() -> None:
    known = found(
        part(0, 300),
        part(417, 600, session=2),
        part(600, 640, "slate", session=2),
        part(640, 800, session=2),
        events=(
            event(300, BROKE_OFF, "the server closed the connection"),
            event(305, REFUSED, "no such stream (so far 10 times)"),
            event(599.5, "slate", "the recording is missing"),
            event(799, "lease over"),
        ),
    )
    clock = [formatting.clock(START + at) for at in (300, 417, 600, 640, 800, 1_000)]
    assert [one.text() for one in known.gaps] == [
        f"{clock[0]}-{clock[1]} the push was refused: no such stream (so far 10 times)",
        f"{clock[2]}-{clock[3]} the slate was sent: the recording is missing",
        f"{clock[4]}-{clock[5]} its streamer held no lease",
    ]
    assert known.sentence() == (
        f"5 min 57 s of 16 min 40 s were not sent: {'; '.join(one.text() for one in known.gaps)}; 2 sessions"
    )
    assert not known.is_whole


def test_nothing_that_is_sent_after_the_slate_is_a_gap_of_its_own() -> None:
    """A moment between two parts of the slate is none."""
    known = found(part(0, 300), part(300, 400, "slate"), part(401, 500, "slate"), part(700, 1_000, session=2))
    slate, nothing = [(one.begins - START, one.ends - START, one.is_slate) for one in known.gaps]
    assert (slate, nothing) == ((300, 500, True), (500, 700, False))


def test_each_end_of_sending_has_the_reason_of_its_gap() -> None:
    known = found(part(0, 500), part(501, 700), message="aired whole; 1 session; its recording is over")
    assert [one.why for one in known.gaps] == ["no reason is known", "its recording was over"]
    known = found(part(0, 500, sent_s=490), part(500, 1_000), events=(event(500, "fell behind", "10.0 s late"),))
    assert (known.missing_s, [one.why for one in known.gaps]) == (10, ["its receiver took less than it was sent"])


def test_a_push_that_is_taken_for_moments_only_is_one_gap() -> None:
    tries = [part(at, at + 0.5, session=at) for at in range(100, 200, 2)]
    known = found(part(0, 100), *tries, part(200, 1_000), events=(event(101, REFUSED, "no"),))
    (gap,) = known.gaps
    assert (gap.begins - START, gap.ends - START, gap.missing_s, gap.detail) == (100.5, 200, 75, "no")


def test_stretches_that_touch_are_one_and_empty_ones_are_none() -> None:
    assert merged([(1, 1), (2, 3), (3, 4), (5, 6)]) == [(2, 4), (5, 6)]
    assert both([(0, 2)], [(2, 3), (1, 4)]) == [(1, 2)]


@pytest.mark.parametrize(("length", "missing_s"), [(2_700, 5), (300, 3), (60, 2)])
@pytest.mark.parametrize("more_s", [0, 0.1])
def test_a_class_is_whole_if_it_lacks_at_most_5_s_and_1_percent(length: int, missing_s: float, more_s: float) -> None:
    """Of a short class, 1 % would be a moment that nobody notices."""
    missing_s += more_s
    known = sent(START, START + length, [part(missing_s, length)])
    assert known.is_whole is (more_s == 0)
    assert known.sentence().startswith("aired" if known.is_whole else f"{formatting.length(missing_s)} of ")


def test_many_gaps_are_counted_and_of_many_parts_the_longest_are_kept() -> None:
    parts = [part(at, at + 90 - at / 50) for at in range(0, 1_000, 100)]
    said = found(*parts).missing()
    assert said.count("no reason is known") == 5
    assert said.endswith("; 5 more gaps")
    parts = [part(at, at + 1 + at / 100) for at in range(0, 100, 10)]
    assert longest(parts, 3) == parts[-3:]
    assert longest(parts, 20) == parts


def test_what_was_sent_is_said_with_its_times_its_slate_and_its_bytes() -> None:
    parts = [replace(part(0, 300), sent_bytes=10**6), part(300, 301, "slate"), part(301, 302, "slate", session=2)]
    clock = [formatting.clock(START + at) for at in (0, 302)]
    said = f"5 min of the recording, {clock[0]} to {clock[1]}; "
    assert as_run(found(*parts), parts) == f"{said}2 s of the slate; 2 sessions; 1.0 MB"
    assert as_run(found(*parts[:2]), [part(0, 302)]) == f"{said}1 s of the slate; 1 session"
    assert as_run(found(), ()) == ""


def test_a_class_that_was_booked_after_its_start_says_so() -> None:
    """Its teacher notes when it was placed, its streamer when it came."""
    for what in ("placed", "prepare: proceed"):
        known = found(part(90, 1_000), events=(event(88, what, "on s1"), event(89, "connected")))
        assert [one.reason() for one in known.gaps] == ["it was booked too late"]
    early = found(part(90, 1_000), events=(event(-500, "placed"), event(3, REFUSED, "no such stream")))
    assert [one.reason() for one in early.gaps] == ["the push was refused: no such stream"]


def planned(class_id: str, state: BookingState, whose: str | None = "i", message: str | None = None) -> Booked:
    return Booked(class_id, state, "6", START, END, None, message, "s1", answered=True, institution_id=whose)


def test_the_figures_of_an_institution_are_of_what_was_to_be_aired_and_has_ended() -> None:
    """What is pushed counts for its bytes and hours, whatever became of it."""
    slate, early = part(250, 500, "slate"), part(-2, 250)
    sent_of = {"c-1": [part(0.9, 1_000)], "c-2": [early, slate], "c-3~backup": [part(0, 1_000)], "c-4": [part(0, 10)]}
    aired, gaps, over = BookingState.AIRED, BookingState.AIRED_WITH_GAPS, BookingState.CANCELLED
    booked = [planned("c-1", aired), planned("c-2", gaps, message="why"), planned("c-3~backup", aired)]
    booked += [planned("c-4", over), planned("c-5", BookingState.READY), planned("c-6", BookingState.REFUSED, None)]
    parts = {class_id: [replace(one, sent_bytes=5) for one in its] for class_id, its in sent_of.items()}
    found = report(booked, parts, {"i": 90, "k": 30}, END - 1)
    assert found.totals["i"].told() == {
        "classes": 2,
        "punctuality_percent": 50,
        "availability_percent": pytest.approx(100 * 1_249.1 / 2_000, abs=1e-3),
        "sent_s": 1_249.1,
        "slate_s": 250,
        "missing_s": 750.9,
        "push_hours": pytest.approx((999.1 + 502 + 1_000 + 10) / 3600, abs=1e-3),
        "size_bytes": 25,
        "transcoding_minutes": 1.5,
    }
    assert (found.told()["classes"], found.transcoding_s) == (2, 120)
    assert [found.totals[one].told()["availability_percent"] for one in ("", "k")] == [None, None]
    times = (START, END, START - 2, START + 500)
    assert [*found.lines[1]] == ["c-2", "i", "6", "s1", *times, 250, 250, 750, 1, 10, gaps, "why", "", 502, False]
    assert [one.missing_s for one in found.lines[3:]] == [0, 0, 0]
    assert line(planned("c-5", BookingState.READY), (), END).missing_s == LENGTH


def test_a_class_is_punctual_that_begins_within_a_second() -> None:
    sent_of: list[list[AsRun]] = [*([part(at, 1_000)] for at in (-1, 1, 1.1)), []]
    assert [line(planned("c-1", BookingState.AIRED), its).punctual for its in sent_of] == [True, True, False, False]


def test_what_was_never_sent_is_missing_but_not_what_was_cancelled_or_of_an_odd_source() -> None:
    """A streamer of a newer release has sent it; its time is known, and neither recording nor slate is."""
    broken = line(planned("c-1", BookingState.BROKEN), ())
    assert (broken.began, broken.ended, broken.missing_s, broken.sessions) == (None, None, LENGTH, 0)
    cancelled = line(planned("c-1", BookingState.CANCELLED), [part(0, 5)])
    assert (cancelled.missing_s, cancelled.counts, cancelled.sent_s) == (0, False, 5)
    assert not line(planned("c-1~backup", BookingState.AIRED), ()).counts
    odd = line(planned("c-1", BookingState.AIRED), [part(0, 20), part(20, 30, "a hymn")])
    assert (odd.began, odd.ended, odd.sent_s, odd.slate_s, odd.missing_s) == (START, START + 30, 20, 0, LENGTH - 20)
