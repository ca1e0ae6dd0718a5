"""Every state of a class has a sentence that says what comes next, or what to type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.timeline import nearest_deadline, next_of_airing, next_of_booking, next_of_unbooked
from lectern.errors import CODES
from lectern.model.views import Booked, StreamerView, TranscodeView
from lectern.states import AiringState, Backend, BookingState, RenditionState

NOW = 1_764_010_000.0
times = st.floats(NOW - 1e6, NOW + 1e6)
makings = st.none() | st.builds(
    TranscodeView, st.sampled_from(RenditionState), st.sampled_from(Backend), st.integers(1, 9), st.none() | times
)
codes = st.none() | st.sampled_from(sorted(CODES)) | st.integers(0, 999)
texts = st.none() | st.just("ffmpeg said no")


def booked(state: BookingState, **fields: object) -> Booked:
    defaults = {
        "class_id": "c-1",
        "stem": "6666_720P",
        "start_time": NOW + 7200,
        "end_time": NOW + 9000,
        "code": None,
        "message": None,
        "streamer": "streamer1",
        "answered": True,
    }
    return Booked(state=state, **{**defaults, **fields})  # type: ignore[arg-type]


@given(
    st.builds(
        Booked,
        st.just("c-1"),
        st.sampled_from(BookingState),
        st.just("6666"),
        times,
        times,
        codes,
        texts,
        st.just("streamer1"),
        st.booleans(),
    ),
    makings,
)
def test_every_booking_has_a_sentence(one: Booked, making: TranscodeView | None) -> None:
    said = next_of_booking(one, making, NOW)
    assert said
    assert all(sentence and not sentence.isspace() for sentence in said)


@given(
    st.builds(StreamerView, st.just("c-1"), st.sampled_from(AiringState), st.just("6666"), times, times, codes, texts)
)
def test_every_class_of_a_streamer_has_a_sentence(one: StreamerView) -> None:
    said = next_of_airing(one, NOW)
    assert all(said)
    assert said or one.start_time <= NOW < one.end_time  # then its account says whether it is on air


def test_who_waits_is_told_by_whom_it_is_made_and_until_when() -> None:
    making = TranscodeView(RenditionState.TRANSCODING, Backend.OSS, 1, NOW + 90)
    (said,) = next_of_booking(booked(BookingState.WAITING), making, NOW)
    assert "attempt 1, by the OSS transcoder; without a result in 90 s" in said


def test_who_waits_for_a_free_ecs_host_is_told_so() -> None:
    making = TranscodeView(RenditionState.TRANSCODING, Backend.ECS, 2, None, queued=True)
    (said,) = next_of_booking(booked(BookingState.WAITING), making, NOW)
    assert said == "It waits for 6666_720P: attempt 2, by an ECS host as soon as one is free."


def test_who_was_given_to_a_streamer_waits_for_its_download() -> None:
    (said,) = next_of_booking(booked(BookingState.PLACED), None, NOW)
    assert said.startswith("It waits for streamer1, which downloads 6666_720P unless it has it.")


DEADLINES: dict[str, tuple[BookingState, RenditionState, float | None, bool]] = {
    "the result is due before the class begins": (BookingState.WAITING, RenditionState.TRANSCODING, NOW + 90, True),
    "the class begins first": (BookingState.WAITING, RenditionState.TRANSCODING, NOW + 1e6, False),
    "no transcoder was asked yet": (BookingState.WAITING, RenditionState.TRANSCODING, None, False),
    "nobody makes it": (BookingState.WAITING, RenditionState.FAILED, NOW + 90, False),
    "it is made already": (BookingState.PLACED, RenditionState.SUCCESS, NOW - 90, False),
}


@pytest.mark.parametrize("case", DEADLINES)
def test_the_nearest_deadline_is_that_of_the_rendition_or_the_start(case: str) -> None:
    state, rendition, due, is_first = DEADLINES[case]
    one = booked(state, start_time=NOW + 3600)
    wanted = (due, False) if is_first else (NOW + 3600, True)
    assert nearest_deadline(one, TranscodeView(rendition, Backend.OSS, 1, due)) == wanted
    assert nearest_deadline(one, None) == (NOW + 3600, True)


def test_a_class_that_begins_soon_and_is_not_ready_is_in_danger_and_says_what_to_type() -> None:
    for state in (BookingState.WAITING, BookingState.PLACED):
        said = " ".join(next_of_booking(booked(state, start_time=NOW + 300), None, NOW))
        assert "begins in 5 min" in said
        assert "lectern cancel c-1" in said
        assert "In danger" not in " ".join(next_of_booking(booked(state), None, NOW))


@pytest.mark.parametrize("code", CODES.values(), ids=str)
def test_a_refusal_names_its_cause_its_heading_and_what_the_platform_should_do(code: object) -> None:
    number = code.number  # type: ignore[attr-defined]
    said = next_of_booking(booked(BookingState.REFUSED, code=number, message="because"), None, NOW)
    assert said[0] == "Cause: because"
    assert f"RUNBOOK.md: {CODES[number].runbook}" in said
    assert said[-1].startswith("The platform should: ")
    over = next_of_booking(booked(BookingState.REFUSED, code=number, end_time=NOW - 1), None, NOW)
    assert not any("should" in one for one in over)


def test_a_ready_class_says_where_and_when_it_is_aired() -> None:
    assert next_of_booking(booked(BookingState.READY), None, NOW) == ["streamer1 has 6666_720P. It is aired in 2 h."]


def test_an_answer_that_waits_for_redis_is_named_and_one_that_is_being_sent_is_not() -> None:
    late = booked(BookingState.REFUSED, code=208, answered=False, decided_at=NOW - 40)
    assert "has not left for 40 s: see whether Redis answers" in next_of_booking(late, None, NOW)[-1]
    fresh = booked(BookingState.REFUSED, code=208, answered=False, decided_at=NOW - 2)
    assert next_of_booking(fresh, None, NOW)[-1] == "Its answer is being sent."


@pytest.mark.parametrize("state", [BookingState.PLACED, BookingState.READY])
def test_a_class_of_a_lost_streamer_is_not_said_to_be_aired(state: BookingState) -> None:
    said = next_of_booking(booked(state, lost_since=NOW - 70), None, NOW)
    assert said[:2] == [
        ("streamer1 is lost, as its teacher noted 70 s ago. Its classes are moved to other streamers if possible."),
        "RUNBOOK.md: 322: a streamer is lost",
    ]
    over = next_of_booking(booked(BookingState.AIRED, lost_since=NOW - 70), None, NOW)
    assert over == next_of_booking(booked(BookingState.AIRED), None, NOW)


def test_a_class_that_is_only_in_the_inbox_is_known() -> None:
    """Prefect may be away for hours; who asks is not told that his class_id is wrong."""
    said = next_of_unbooked(NOW - 20, malformed=False, now=NOW)
    waits = "A message about it has waited in the inbox for 20 s"
    assert said == [
        f"{waits}: it is handled within a minute if its servers answer.",
        "RUNBOOK.md: messages wait in the inbox",
    ]
    said = next_of_unbooked(NOW - 600, malformed=False, now=NOW)
    assert "which is too long: ask this host's /health what is wrong" in said[0]
    assert said[-1] == "RUNBOOK.md: messages wait in the inbox"
    assert next_of_unbooked(None, malformed=True, now=NOW) == ["It is not booked: RUNBOOK.md: 400: malformed booking"]
    assert next_of_unbooked(None, malformed=False, now=NOW) == []
