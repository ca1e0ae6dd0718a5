"""How the events and parts of a class are read as the playout writes them."""

import pytest

from lectern.decide.broadcast import as_run, lead_time, said
from lectern.facts import AsRun

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
    assert said(event) == words


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
