"""What the playout says of a class, its events and its parts, is read as it writes them."""

from typing import Any

import pytest

from lectern.decide.account import of_playout, without_playout
from lectern.decide.airing import as_run, event_text, lead_time
from lectern.model.facts import AsRun

START = 1_000.0


def test_the_run_of_a_class_begins_its_lead_before_the_start_or_now() -> None:
    assert lead_time(START, 300, now=0) == 700
    assert lead_time(START, 300, now=900) == 900


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "connected", "session": 1}, ("connected", "session 1 is ready to publish")),
        ({"event": "on_air", "session": 2, "position_s": 12.34}, ("on air", "at 12.3 s, session 2")),
        ({"event": "broke_off", "was_on_air": True, "why": "reset"}, ("push broke off", "reset")),
        ({"event": "broke_off", "was_on_air": False, "why": "no such app"}, ("push refused", "no such app")),
        ({"event": "slate", "slate": "/s.flv", "why": "it is missing"}, ("slate", "it is missing")),
        ({"event": "slate", "slate": None, "why": "it is missing"}, ("nothing to send", "it is missing")),
        (
            {"event": "back", "why": "it is there", "position_s": 5},
            ("recording again", "it is there; it goes on at 5.0 s"),
        ),
        ({"event": "behind", "behind_s": 3.0}, ("fell behind", "3.0 s late; it goes on at the clock's position")),
        ({"event": "fenced", "session": 2}, ("lease over", "session 2 was ended: this streamer may not push")),
        ({"event": "lease_over"}, None),
    ],
)
def test_an_event_of_the_playout_is_said_in_words(event: dict[str, object], words: tuple[str, str] | None) -> None:
    assert event_text(event) == words


def test_the_parts_of_a_class_are_read_as_the_playout_writes_them() -> None:
    row = {
        "url": 0,
        "session": 3,
        "source": "slate",
        "from": 1.0,
        "to": 2.5,
        "position_s": 7.0,
        "sent_s": 1.5,
        "open": True,
    }
    assert as_run([row]) == [AsRun(0, 3, "slate", 1.0, 2.5, 7.0, 1.5)]


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


def test_a_class_on_air_has_its_position_and_how_often_it_was_cut() -> None:
    found = of_playout(CLASS)
    assert (found.on_air, found.position_s, found.since, found.failures) == (True, 63.2, 1_764_010_000.0, 0)
    assert of_playout({**CLASS, "sessions": 4}).cuts == 3
    assert (of_playout(CLASS).behind_s, of_playout({**CLASS, "behind_s": 2.5}).behind_s) == (0.0, 2.5)
    assert of_playout({**CLASS, "sessions": 2, "pushes": CLASS["pushes"] * 2}).cuts == 0


def test_a_class_that_is_not_on_air_has_its_reason() -> None:
    refused = {**CLASS, "state": "trying", "why": "Connection refused", "pushes": [{"failures": 17}, {"failures": 3}]}
    found = of_playout(refused)
    assert (found.on_air, found.failures, found.why) == (False, 17, "Connection refused")
    lease = of_playout({**CLASS, "state": "no_lease"})
    assert (lease.on_air, lease.why) == (False, "this streamer holds no lease, so it may not push")
    assert "does not answer: no socket" in (without_playout("no socket").why or "")
    assert of_playout({**CLASS, "state": "ended", "why": "its recording is over"}).why is None
