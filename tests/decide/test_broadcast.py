"""What the playout says of a class, its events and its parts, is read as it writes them."""

from typing import Any

import pytest

from lectern.decide.account import of_playout, without_playout
from lectern.decide.airing import as_run, event_text, without_recording
from lectern.model.facts import AsRun
from tests.decide.test_endings import START, row


@pytest.mark.parametrize(("has_slate", "has_begun"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_class_without_its_recording_sends_its_slate_from_its_start_on(has_slate: bool, has_begun: bool) -> None:
    said = without_recording(has_slate=has_slate, has_begun=has_begun)
    assert ("no slate" in said, "will be" in said or "start" in said) == (not has_slate, not has_begun)


EVENTS: list[tuple[dict[str, object], tuple[str, str] | None]] = [
    ({"event": "connected", "session": 1}, ("connected", "session 1 is ready to publish")),
    ({"event": "on_air", "session": 2, "position_s": 12.34}, ("on air", "at 12.3 s, session 2")),
    ({"event": "broke_off", "was_on_air": True, "why": "reset"}, ("push broke off", "reset")),
    ({"event": "broke_off", "was_on_air": False, "why": "no such app"}, ("push refused", "no such app")),
    ({"event": "slate", "slate": "/s.flv", "why": "it is missing"}, ("slate", "it is missing")),
    ({"event": "slate", "slate": None, "why": "it is missing"}, ("nothing to send", "it is missing")),
    ({"event": "back", "why": "it is there", "position_s": 5}, ("recording again", "it is there; it goes on at 5.0 s")),
    ({"event": "behind", "behind_s": 3.0}, ("fell behind", "3.0 s late; it goes on at the clock's position")),
    ({"event": "fenced", "session": 2}, ("lease over", "session 2 was ended: this streamer may not push")),
    ({"event": "lease_over"}, None),
]


def test_an_event_of_the_playout_is_said_in_words() -> None:
    assert [(event, event_text(event)) for event, _ in EVENTS] == EVENTS


def test_the_parts_of_a_class_are_read_as_the_playout_writes_them() -> None:
    written = {**row(1, 2.5, "slate", 3), "open": True}
    assert as_run([written]) == [AsRun(0, 3, "slate", START + 1, START + 2.5, 1, 1.5, 1_000_000)]


CLASS: dict[str, Any] = {"state": "on_air", "position_s": 63.2, "first_byte_at": START, "pushes": [{"failures": 0}]}


def test_a_class_on_air_has_its_position_and_how_often_it_was_cut() -> None:
    found = of_playout(CLASS)
    assert (found.on_air, found.position_s, found.since, found.failures) == (True, 63.2, START, 0)
    assert of_playout({**CLASS, "sessions": 4}).cuts == 3
    assert (of_playout(CLASS).behind_s, of_playout({**CLASS, "behind_s": 2.5}).behind_s) == (0.0, 2.5)
    assert of_playout({**CLASS, "sessions": 2, "pushes": CLASS["pushes"] * 2}).cuts == 0


def test_a_class_that_is_not_on_air_has_its_reason() -> None:
    refused = {**CLASS, "state": "trying", "why": "Connection refused", "pushes": [{"failures": 17}, {"failures": 3}]}
    found = of_playout(refused)
    assert (found.on_air, found.failures, found.why) == (False, 17, "Connection refused")
    lease = of_playout({**CLASS, "state": "no_lease"})
    assert (lease.on_air, lease.why) == (False, "this streamer holds no lease, so it may not push")
    assert of_playout({**CLASS, "state": "no_lease", "why": "a cut long ago"}).why == lease.why
    assert "does not answer: no socket" in (without_playout("no socket").why or "")
    assert of_playout({**CLASS, "state": "ended", "why": "its recording is over"}).why is None
