"""What is checked before a class begins, and what is faulty in a recording."""

from dataclasses import replace

import pytest

from lectern.decide import readiness as decide
from lectern.decide.readiness import Seen, dead_air_warning, reds
from lectern.formatting import minutes
from lectern.model.facts import Samples

GOOD = Seen(True, 1, 100, 100, unreadable=None, damaged=None, unreachable=None, skew_s=0.01, lease=True)


NOW = 10_000.0
DUE: list[tuple[float, float | None, float | None]] = [  # the seconds left, the check that was done, that which is due
    (7200, None, None),
    (3600, None, 3600),
    (1000, None, 3600),
    (1000, 3600, None),
    (900, 3600, 900),
    (299, 900, 300),
    (299, None, 300),
    (299, 300, None),
    (-1, None, None),
]


def test_a_check_is_due_once_for_each_class_by_itself() -> None:
    starts = {case: NOW + left for case, (left, *_) in enumerate(DUE)}
    done = {case: its for case, (_, its, _) in enumerate(DUE) if its is not None}
    found = decide.checks_due(starts, NOW, done)
    assert [(left, its, found.get(case)) for case, (left, its, _) in enumerate(DUE)] == DUE


def test_a_class_that_is_ready_has_no_reds_and_any_other_all_at_once() -> None:
    assert reds(GOOD) == []
    assert reds(replace(GOOD, skew_s=None)) == []
    assert len(reds(Seen(False, 0, 100, None, None, None, "refused", 9.0, lease=False))) == 5
    assert decide.sentence("c-1", "6666", 300, ["a", "b"]) == "c-1 begins in 5 min and is not ready with 6666: a; b"
    assert minutes(40) == "40 s"


FAULTS = {
    "its rendition is not there yet": replace(GOOD, state_ready=False),
    "its file is gone": replace(GOOD, found_bytes=None),
    "its file has 99 bytes, not 100": replace(GOOD, found_bytes=99),
    "cannot be read: Input/output error": replace(GOOD, unreadable="Input/output error"),
    "nothing pins its rendition": replace(GOOD, num_cite=0),
    "its push URL cannot be reached: live:1935: refused": replace(GOOD, unreachable="live:1935: refused"),
    "clock is off by -3.0 s": replace(GOOD, skew_s=-3.0),
    "holds no lease": replace(GOOD, lease=False),
}


def test_each_fault_is_one_reason() -> None:
    found = {said: reds(seen) for said, seen in FAULTS.items()}
    assert [said for said, its in found.items() if len(its) != 1 or said not in its[0]] == []


def test_a_file_that_is_lost_or_damaged_is_to_be_downloaded_again() -> None:
    """Not one that cannot be read just now, nor one that was never here."""
    damaged, never_here = replace(GOOD, damaged="it ends early"), replace(GOOD, state_ready=False, found_bytes=None)
    lost = [why for seen in FAULTS.values() if (why := decide.lost_file(seen)) is not None]
    assert lost == ["it is not on the disk", "it has 99 bytes, not 100"]
    assert [decide.lost_file(one) for one in (GOOD, damaged, never_here)] == [None, "it ends early", None]


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

    pictures = tuple((float(at), 40 if black[0] <= at < black[1] else 41, same(at)) for at in times)
    sounds = tuple((float(at), -60.0 if silent[0] <= at < silent[1] else -59.0) for at in range(LESSON_S))
    return Samples(float(LESSON_S), pictures, sounds, loudness)


LESSONS = [
    (lesson(), ""),
    (lesson(black=(100, 106)), ""),
    (lesson(black=(100, 120)), "black from 1:38 to 2:00"),
    (lesson(black=(0, 20)), "black from 0:00 to 0:20"),
    (lesson(black=(290, 300)), "black from 4:48 to 5:00"),  # it is told though no picture follows
    (lesson(black=(100, 101), key_s=10), ""),
    (lesson(still=(60, 160)), ""),  # somebody speaks to a slide
    (lesson(silent=(60, 110)), ""),  # somebody writes on the board
    (lesson(silent=(60, 117)), ""),
    (lesson(silent=(60, 118)), "silent from 1:00 to 1:58"),
    (lesson(still=(60, 88), silent=(60, 88)), "frozen and silent from 1:00 to 1:28"),
    (lesson(still=(60, 88), silent=(60, 87)), ""),
    (lesson(black=(60, 130), silent=(54, 134)), "black from 0:58 to 2:10"),
    (lesson(black=(60, 100), silent=(60, 170)), "black from 0:58 to 1:40; silent from 1:00 to 2:50"),
    (lesson(black=(60, 100), silent=(9, 100)), "silent from 0:09 to 1:40; black from 0:58 to 1:40"),
    (replace(lesson(), holes=((3.0, 3603.0),)), "nothing recorded from 0:03 to 1:00:03"),
    (lesson(loudness=-45.0), "very quiet (-45 LUFS)"),
    *((lesson(loudness=loudness), "") for loudness in (-36.0, -6.0)),
    (lesson(loudness=-2.0), "very loud (-2 LUFS)"),
    (Samples(90.0, tuple((float(at), 200, False) for at in range(0, 90, 2)), (), None), "silent from 0:00 to 1:30"),
    (Samples(9.0, (), ((0.0, -20.0),), None), ""),  # it has no picture
]


def test_what_is_told_of_a_lesson() -> None:
    """From end to end."""
    assert [dead_air_warning(one) for one, _ in LESSONS] == [said for _, said in LESSONS]


@pytest.mark.parametrize(("length_s", "end"), [(220, "to 3:20"), (300, "; 2 more places")])
def test_of_many_places_five_are_named(length_s: int, end: str) -> None:
    pictures = tuple((float(at), 16 if at // 20 % 2 else 200, False) for at in range(0, length_s, 2))
    said = dead_air_warning(Samples(length_s, pictures, tuple((float(at), -20.0) for at in range(length_s)), -20.0))
    assert said.count("black from") == 5
    assert said.endswith(end)
