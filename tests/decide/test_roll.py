"""Streamers that go: a drained one gives away what it can, one that is rolled back keeps its classes."""

from pathlib import Path

import pytest

from lectern.changes import Changes
from lectern.decide import roll
from lectern.decide.verdicts import Choice, proceed
from lectern.messages import Prepare, Release
from lectern.settings import TeacherSettings
from lectern.states import BookingState
from tests import strategies

URL = "http://origin.example/6666.flv"


@pytest.fixture
def changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Changes:
    """Two classes on s1: one that begins in a minute, one in an hour."""
    monkeypatch.chdir(tmp_path)
    found = Changes(TeacherSettings.load(_env_file=None, transcode_sign_key="made-up"), strategies.NOW)
    for class_id, in_s in (("soon", 60), ("later", 3600)):
        start = int(found.now) + in_s
        order = found.book(strategies.booking(class_id, start_time=start, end_time=start + 600))
        proceed(found, [(order, URL)], {"s1": 0})
    found.sends.clear()
    found.taken.clear()
    return found


def streamers(changes: Changes) -> dict[str, str | None]:
    return {class_id: order.streamer for class_id, order in changes.orders.items()}


def test_a_drained_streamer_keeps_what_begins_within_two_minutes(changes: Changes) -> None:
    """It may not have read yet that a class is another's, and would push it, too."""
    roll.drain(changes, "s1", list(changes.orders.values()), Choice({"s2": 0}, {}))
    assert streamers(changes) == {"soon": "s1", "later": "s2"}
    assert [(one.target, type(one.message), one.class_id) for one in changes.sends] == [
        ("streamer:s1", Release, "later"),
        ("streamer:s2", Prepare, "later"),
    ]


@pytest.mark.parametrize("others", [{}, {"s2": 0}], ids=["nobody is alive", "the other one has refused it"])
def test_a_drained_streamer_keeps_what_nobody_else_can_take(changes: Changes, others: dict[str, int]) -> None:
    roll.drain(changes, "s1", list(changes.orders.values()), Choice(others, {"later": {"s2"}, "soon": {"s2"}}))
    assert streamers(changes) == {"soon": "s1", "later": "s1"}
    assert not changes.sends
    assert {order.state for order in changes.orders.values()} == {BookingState.PLACED}


def test_a_streamer_that_is_rolled_back_keeps_all(changes: Changes) -> None:
    said = roll.withdraw(changes, "s1", list(changes.orders.values()))
    assert streamers(changes) == {"soon": "s1", "later": "s1"}
    assert (changes.withdrawn, changes.sends, changes.taken) == (["s1"], [], [])
    assert "its 2 classes" in said
