"""The strip: classes that overlap are drawn beside each other, and nothing is drawn outside of its line."""

from hypothesis import given
from hypothesis import strategies as st

from lectern.decide.account import Standing
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


def test_a_class_without_a_length_has_no_strip() -> None:
    view, standing = lesson(NOW, NOW)
    assert strip.of_class(view, standing, NOW) is None
    assert strip.of_class(ClassView("c-2"), Standing.UNKNOWN, NOW) is None
