"""Of a recording it is told where it is black, where it stands still without sound, and where it is silent."""

from dataclasses import replace

import pytest

from lectern.decide.dead_air import faults, warning
from lectern.samples import Samples

LESSON_S = 300


def lesson(
    black: tuple[int, int] = (0, 0),
    still: tuple[int, int] = (0, 0),
    silent: tuple[int, int] = (0, 0),
    loudness: float = -20.0,
    key_s: int = 2,
) -> Samples:
    """A lesson of five minutes, with what is wrong in it from one second to another."""
    times = range(0, LESSON_S, key_s)

    def same(at: int) -> bool:
        return any(begin < at < end and at - key_s >= begin for begin, end in (black, still))

    pictures = tuple((float(at), 16 if black[0] <= at < black[1] else 200, same(at)) for at in times)
    sounds = tuple((float(at), -110.0 if silent[0] <= at < silent[1] else -22.0) for at in range(LESSON_S))
    return Samples(float(LESSON_S), pictures, sounds, loudness)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (lesson(), ""),
        (lesson(black=(100, 106)), ""),
        (lesson(black=(100, 120)), "black from 1:38 to 2:00"),
        (lesson(still=(60, 160)), ""),  # somebody speaks to a slide
        (lesson(silent=(60, 110)), ""),  # somebody writes on the board
        (lesson(silent=(60, 130)), "silent from 1:00 to 2:10"),
        (lesson(still=(60, 100), silent=(60, 100)), "frozen and silent from 1:00 to 1:40"),
        (lesson(still=(60, 80), silent=(60, 80)), ""),
        (lesson(black=(60, 100), silent=(60, 100)), "black from 0:58 to 1:40"),
        (replace(lesson(), holes=((3.0, 3603.0),)), "nothing recorded from 0:03 to 1:00:03"),
        (lesson(loudness=-45.0), "very quiet (-45 LUFS)"),
        (lesson(loudness=-2.0), "very loud (-2 LUFS)"),
    ],
)
def test_what_is_told_of_a_lesson(one: Samples, said: str) -> None:
    assert warning(one) == said


def test_a_recording_without_sound_is_silent_from_its_beginning_to_its_end() -> None:
    found = Samples(90.0, tuple((float(at), 200, False) for at in range(0, 90, 2)), (), None)
    assert [one.text() for one in faults(found)] == ["silent from 0:00 to 1:30"]


def test_what_comes_after_the_last_key_frame_counts_a_little() -> None:
    """A lesson that ends black is told, though no picture follows."""
    assert warning(lesson(black=(290, 300))) == "black from 4:48 to 5:00"


def test_key_frames_that_are_far_apart_do_not_make_a_short_blackout_long() -> None:
    assert warning(lesson(black=(100, 101), key_s=10)) == ""


def test_of_many_places_five_are_named() -> None:
    pictures = tuple((float(at), 16 if at // 20 % 2 else 200, False) for at in range(0, 300, 2))
    said = warning(Samples(300.0, pictures, tuple((float(at), -20.0) for at in range(300)), -20.0))
    assert said.count("black from") == 5
    assert said.endswith("; 2 more places")
