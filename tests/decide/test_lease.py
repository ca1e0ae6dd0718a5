"""How long a streamer may push on its own, and when it is lost."""

import math

from lectern.decide import lease


def test_nobody_takes_a_class_before_its_lease_has_run_out() -> None:
    """However soon a silent streamer is to be lost, and whatever Prefect has said to it."""
    for lost_after_s in (1.0, 20.0, 60.0):
        for lease_s in (6.0, 12.0, 45.0):
            assert lease.lost_after(lost_after_s, lease_s) >= lease.until(0.0, lease_s) + lease.MARGIN_S
    assert lease.NOTICE_S > lease.WITNESS_S


def test_a_lease_without_end_is_never_taken() -> None:
    assert lease.lost_after(60, 0) == math.inf
    assert lease.until(0.0, 0) == math.inf


def test_the_notice_is_over_when_the_streamer_is_lost() -> None:
    """With a moment to spare, in which the run begins that gives it."""
    assert lease.suspect_after(60, 5) + lease.NOTICE_S + lease.HASTE_S == 60


def test_a_beat_or_two_that_are_missing_are_no_suspicion() -> None:
    assert lease.suspect_after(12, 5) == 15


def test_who_fell_silent_in_the_same_moment_takes_no_class() -> None:
    """Whoever still beats may, also if its last beat is as old as it can be."""
    for lost_after_s, beat_s in ((6.0, 5.0), (20.0, 1.0), (50.0, 5.0), (60.0, 5.0), (600.0, 30.0)):
        for more_s in (0.01, 5.0, 100.0):
            silent_s = lease.suspect_after(lost_after_s, beat_s) + more_s
            assert beat_s < lease.heard_within(silent_s) < silent_s - beat_s


def test_what_was_not_said_while_nobody_listened_is_no_silence() -> None:
    assert lease.silence(100.0, 0.0, ears_open_s=3.0) == 3.0
    assert lease.silence(None, 7.0, ears_open_s=30.0) == 7.0
