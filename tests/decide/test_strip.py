"""The strip: classes that overlap are drawn beside each other, and nothing is drawn outside of its line."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.account import Standing
from lectern.model.facts import AsRun
from lectern.model.views import Booked, ClassView
from lectern.page import strip
from lectern.states import BookingState

NOW = 1_764_010_800.0
TIMES = st.floats(NOW - 9e4, NOW + 9e4)


def lesson(begins: float, ends: float) -> tuple[ClassView, Standing]:
    booked = Booked("c-1", BookingState.READY, "6666", begins, ends, None, None, "streamer1", answered=True)
    return ClassView("c-1", booked), Standing.READY


@given(st.lists(st.tuples(TIMES, st.floats(1, 9e4))))
def test_no_two_blocks_of_a_lane_overlap(times: list[tuple[float, float]]) -> None:
    drawn = strip.of_day((lesson(begins, begins + length) for begins, length in times), {}, ["streamer1"], NOW)
    (row,) = drawn.rows
    assert len(row.blocks) == len(times)
    lanes: dict[int, float] = {}
    for block in row.blocks:
        assert lanes.get(block.lane, 0.0) <= block.begins
        lanes[block.lane] = block.ends
        assert 0 <= drawn.x(block.begins) <= drawn.x(block.ends) <= 100
        assert (block.lane + 1) * row.lane_px <= row.height_px


@given(TIMES, st.floats(1, 1e6))
def test_the_line_of_time_has_some_marks_within_it(begins: float, length: float) -> None:
    marks = strip.Strip(begins, begins + length, NOW, ()).marks
    assert len(marks) <= strip.MOST_MARKS + 1
    assert all(begins <= at <= begins + length for at in marks)
    assert marks or length < 2 * strip.MARKS[0]


def test_the_strip_of_a_class_is_its_as_run() -> None:
    """A row a session, each part a block; what no part of the recording covers is a hole of the class."""
    view, _ = lesson(NOW, NOW + 2700)
    parts = [
        AsRun(0, 1, "recording", NOW, NOW + 900, 0, 900),
        AsRun(0, 1, "slate", NOW + 900, NOW + 1000, 0, 100),
        AsRun(0, 2, "recording", NOW + 1300, NOW + 2700, 1300, 1400),
        AsRun(1, 1, "recording", NOW + 1300, NOW + 2700, 1300, 1400),
    ]
    drawn = strip.of_class(replace(view, as_run=parts), Standing.AIRED_WITH_GAPS, NOW + 9000)
    assert drawn is not None
    booked, *sessions = drawn.rows
    assert [row.name for row in sessions] == ["session 1", "session 2", "session 1 of the second push URL"]
    blocks = sorted((block.begins, block.ends, block.kind) for row in sessions for block in row.blocks)
    assert blocks == sorted((one.begins, one.ends, one.source.replace("recording", "sent")) for one in parts)
    (block,) = booked.blocks
    slate, hole = [(hole.begins - NOW, hole.ends - NOW, hole.kind) for hole in block.holes]
    assert (slate, hole) == ((900, 1000, "slate"), (1000, 1300, "hole"))
    assert [block.share(hole) for hole in block.holes] == [(33.333, 3.704), (37.037, 11.111)]


def test_the_strip_of_a_class_that_was_moved_has_a_row_for_each_session_of_each_streamer() -> None:
    """Each numbers its own from 1."""
    view, _ = lesson(NOW, NOW + 2700)
    first = AsRun(0, 1, "recording", NOW, NOW + 900, 0, 900, streamer="streamer1")
    second = AsRun(0, 1, "recording", NOW + 910, NOW + 2700, 910, 1790, streamer="streamer2")
    drawn = strip.of_class(replace(view, as_run=[first, second]), Standing.AIRED_WITH_GAPS, NOW + 9000)
    assert drawn is not None
    assert [row.name for row in drawn.rows[1:]] == ["streamer1: session 1", "streamer2: session 1"]


def test_streamers_are_in_the_order_of_their_numbers_without_classes_of_no_length() -> None:
    names = ["streamer10", "streamer2", "a", "streamer1", "9"]
    drawn = [strip.of_day((), {}, names, NOW), strip.of_counts({name: {"ready": 1} for name in (*names, None)}, NOW)]
    for one in drawn:
        assert [row.name for row in one.rows][:5] == ["9", "a", "streamer1", "streamer2", "streamer10"]
    view, standing = lesson(NOW, NOW)
    assert strip.of_class(view, standing, NOW) is None
    assert strip.of_class(ClassView("c-2"), Standing.UNKNOWN, NOW) is None
