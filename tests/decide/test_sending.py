"""What the playout says of a class is what its account says."""

from typing import Any

from lectern.decide.sending import of_playout, without_playout

CLASS: dict[str, Any] = {
    "class_id": "c-1",
    "state": "on_air",
    "slate": False,
    "position_s": 63.2,
    "first_byte_at": 1_764_010_000.0,
    "why": None,
    "sessions": 1,
    "pushes": [{"url": "rtmp://p/…", "state": "on_air", "why": None, "failures": 0}],
}


def test_a_class_on_air_has_its_position_and_since_when() -> None:
    found = of_playout(CLASS)
    assert (found.on_air, found.position_s, found.since, found.failures) == (True, 63.2, 1_764_010_000.0, 0)


def test_a_class_that_nobody_takes_counts_its_attempts_and_names_the_last_reason() -> None:
    refused = {**CLASS, "state": "trying", "why": "Connection refused", "pushes": [{"failures": 17}, {"failures": 3}]}
    found = of_playout(refused)
    assert (found.on_air, found.failures, found.why) == (False, 17, "Connection refused")


def test_a_class_that_was_cut_counts_its_sessions_beyond_the_first_of_each_url() -> None:
    assert of_playout({**CLASS, "sessions": 4}).cuts == 3
    assert of_playout({**CLASS, "sessions": 2, "pushes": CLASS["pushes"] * 2}).cuts == 0


def test_without_a_lease_and_without_a_playout_nothing_is_on_air_and_the_reason_is_said() -> None:
    lease = of_playout({**CLASS, "state": "no_lease"})
    assert (lease.on_air, lease.why) == (False, "this streamer holds no lease, so it may not push")
    assert "does not answer: no socket" in (without_playout("no socket").why or "")


def test_why_a_class_ended_is_not_the_last_error_of_a_good_one() -> None:
    assert of_playout({**CLASS, "state": "ended", "why": "its recording is over"}).why is None
