"""Streamers that go: a drained or lost one gives away what it can, one that is rolled back keeps its classes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.decide import leases
from lectern.decide.placement import Choice, chosen_for, proceed, ranking, reassign
from lectern.model.plan import Changes
from lectern.model.tables import teacher as rows
from lectern.model.tables.teacher import StreamerRow
from lectern.states import BookingState
from lectern.wire.fields import revision_id
from lectern.wire.messages import Prepare, Release
from tests import strategies

URL = "http://origin.example/6666.flv"


def _there(session: str | None = "session", lease_s: float = 12.0, **since: float) -> StreamerRow:
    return StreamerRow(name="s1", session=session, lease_s=lease_s, granted_at=strategies.NOW, **since)


@pytest.fixture
def changes() -> Changes:
    """Two classes on s1: one that begins in a minute, one in an hour."""
    found = Changes(strategies.transcoders(), strategies.NOW)
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
    leases.drain(changes, "s1", list(changes.orders.values()), Choice({"s2": 0}, {}), "ann@s1")
    assert streamers(changes) == {"soon": "s1", "later": "s2"}
    assert [(one.target, type(one.message), one.class_id) for one in changes.sends] == [
        ("streamer:s1", Release, "later"),
        ("streamer:s2", Prepare, "later"),
    ]
    assert changes.notes[-1].detail == "from s1 to s2: s1 is drained by ann@s1"


@pytest.mark.parametrize(
    ("class_id", "no", "where"), [("soon", {}, "s1"), ("later", {"later": {"s2"}}, "s1"), ("later", {}, "s2")]
)
def test_a_change_stays_at_a_drained_streamer_as_long_as_its_class(
    changes: Changes, class_id: str, no: dict[str, set[str]], where: str
) -> None:
    """Another one would download the recording in vain, and meanwhile the class begins as it was."""
    start = int(changes.now) + 7200
    asked = strategies.booking(class_id, start_time=start, end_time=start + 600).under(revision_id(class_id, 1))
    revision = changes.book(asked)
    proceed(changes, [(revision, URL)], {})
    leases.drain(changes, "s1", list(changes.orders.values()), Choice({"s2": 0}, no))
    assert [changes.orders[one].streamer for one in (class_id, revision.class_id)] == [where, where]


def test_a_change_goes_with_its_class_to_the_same_streamer(changes: Changes) -> None:
    """Another one may have its recording, or be the best for it; its want of room would refuse the change."""
    others = ("s2", "s3")
    best = ranking(changes.orders["later"].stem, others)[0]
    record = next(number for number in range(1, 99) if ranking(f"{number}_720P", others)[0] != best)
    start, urls = int(changes.now) + 1800, {"720P": f"http://origin.example/{record}.flv"}
    asked = strategies.booking("later", record_id=record, video_url_list=urls, start_time=start, end_time=start + 600)
    revision = changes.book(asked.under(revision_id("later", 1)))
    proceed(changes, [(revision, URL)], {})
    going = [changes.orders[one] for one in (revision.class_id, "later")]
    reassign(changes, going, Choice(dict.fromkeys(others, 0), {}), "s1 is lost", refused=False)
    assert [changes.orders[one].streamer for one in ("later", revision.class_id)] == [best, best]


@pytest.mark.parametrize("others", [{}, {"s2": 0}], ids=["nobody is alive", "the other one has refused it"])
def test_a_drained_streamer_keeps_what_nobody_else_can_take(changes: Changes, others: dict[str, int]) -> None:
    leases.drain(changes, "s1", list(changes.orders.values()), Choice(others, {"later": {"s2"}, "soon": {"s2"}}))
    assert streamers(changes) == {"soon": "s1", "later": "s1"}
    assert not changes.sends
    assert {order.state for order in changes.orders.values()} == {BookingState.PLACED}


def test_a_streamer_that_is_rolled_back_keeps_all(changes: Changes) -> None:
    said = leases.withdraw(changes, "s1", list(changes.orders.values()))
    assert streamers(changes) == {"soon": "s1", "later": "s1"}
    assert (list(changes.rows), changes.sends, changes.taken) == ([(rows.streamers, "s1")], [], [])
    assert "its 2 classes" in said


def test_a_lost_streamer_keeps_what_begins_in_an_hour_and_nobody_else_can_take(changes: Changes) -> None:
    """It may come back until then, or another one may have room; unless a person is sure that it is off."""
    cases: list[tuple[dict[str, int], bool]] = [({}, False), ({"s2": 0}, False), ({}, True)]
    its = list(changes.orders.values())
    found = [leases.leaving_lost(changes, its, Choice(others, {}), force=force) for others, force in cases]
    assert found == [its[:1], its, its]


HOLDERS: dict[str, tuple[StreamerRow | None, list[str]]] = {
    "drained, but there": (_there(), ["soon", "later"]),
    "lost": (_there(lost_at=strategies.NOW), ["later"]),
    "its lease was taken": (_there(session=None), ["later"]),
    "lost, without an end": (_there(session=None, lease_s=0.0), []),
    "rolled back": (_there(withdrawn_at=strategies.NOW), []),
    "unknown": (None, []),
}


def test_a_class_may_go_back_to_who_is_there_or_has_time_to_come_back(changes: Changes) -> None:
    """But not to who has refused it, or is just refusing it: tried there once more, its alarm would come late."""
    reassign(changes, list(changes.orders.values()), Choice({"s2": 0}, {}), "it is drained", refused=False)
    before = dict.fromkeys(("soon", "later", "gone"), "s1")
    nobody = {class_id: set[str]() for class_id in before}
    for case, (holder, returns) in HOLDERS.items():
        holders = {"s1": holder} if holder is not None else {}
        assert leases.came_back(changes, before, holders, nobody) == dict.fromkeys(returns, "s1"), case
    refused = {**nobody, "soon": {"s1"}, "later": {"s2"}}
    assert leases.came_back(changes, before, {"s1": _there()}, refused) == {"later": "s1"}
    assert leases.came_back(changes, dict.fromkeys(before, "s2"), {"s2": _there()}, nobody) == {}


BEATS = {  # by what it says, and the seconds since then
    ((), 60): leases.Presence.ALIVE,
    ((), 61): leases.Presence.LOST,
    (("full",), 0): leases.Presence.FULL,
    (("full", "stale"), 0): leases.Presence.HANGS,
    (("stale",), 61): leases.Presence.LOST,
    (("stale", "gone"), 61): leases.Presence.STOPPED,
    (("drains", "gone"), 61): leases.Presence.DRAINED,
}


def test_a_last_beat_says_what_a_streamer_is() -> None:
    assert {(beat, at): leases.presence(dict.fromkeys(beat, True), at, 60) for beat, at in BEATS} == BEATS


def test_a_streamer_is_listed_until_it_is_back_or_was_taken_out_a_day_ago() -> None:
    out = {"lost": 2 * leases.LISTED_S, "drained": leases.LISTED_S - 1, "stopped": leases.LISTED_S, "ahead": -9}
    words = {"drained": {"drains": True}, "stopped": {"gone": True}}
    beats = {name: {"at": strategies.NOW - age_s, **words.get(name, {})} for name, age_s in out.items()}
    assert leases.listed(beats, strategies.NOW, 60) == {
        "ahead": (leases.Presence.ALIVE, 0),
        "drained": (leases.Presence.DRAINED, leases.LISTED_S - 1),
        "lost": (leases.Presence.LOST, 2 * leases.LISTED_S),
    }


@pytest.mark.parametrize(
    ("others", "movable", "said"),
    [
        (["s2"], True, "2 classes to be moved to others"),
        (["s2"], False, "2 classes stay with it, because its lease has no end"),
        ([], True, "2 classes stay with it, because no streamer is alive that it asks before it goes on alone"),
    ],
)
def test_the_alarm_of_a_lost_streamer_says_what_becomes_of_its_classes(
    changes: Changes, others: list[str], movable: bool, said: str
) -> None:
    assert leases.lose(changes, _there(), 2, others, movable=movable).endswith(f"; {said}")
    assert [(one.target, getattr(one.message, "code", None)) for one in changes.sends] == [("alarm", 322)]
    assert (changes.rows[rows.streamers, "s1"].after or {})["lost_at"] == changes.now


STREAMERS = [f"streamer{number}" for number in range(1, 6)]
IDLE = dict.fromkeys(STREAMERS, 0)
UNBOUNDED = 1e9
stems = st.lists(st.from_regex(r"[1-9][0-9]{0,3}_720P", fullmatch=True), max_size=40)
loads = st.dictionaries(st.sampled_from(STREAMERS), st.integers(0, 50), min_size=1)


def placed(wanted: Sequence[str], before: Mapping[str, int], slack: float) -> list[str]:
    """The streamers of classes whose renditions are *wanted*; none has more than its share at any moment."""
    now, names = Counter(before), list[str]()
    for stem in wanted:
        name = chosen_for(stem, now, slack)
        assert name is not None
        now[name] += 1
        assert now[name] <= math.ceil(slack * sum(now.values()) / len(before))
        names.append(name)
    return names


def test_classes_of_one_rendition_meet_while_their_streamer_has_its_share() -> None:
    assert chosen_for("1_720P", {}, 1.25) is None
    assert len(set(placed(["6666_720P"] * 20, IDLE, UNBOUNDED))) == 1
    assert len(set(placed(["6666_720P"] * 100, IDLE, 1.25))) > 1
    counts = Counter(placed([f"{number}_720P" for number in range(1_000)], IDLE, 1.25))
    assert set(counts) == set(STREAMERS)


def test_each_class_of_a_batch_counts_for_those_behind_it() -> None:
    found, now = Changes(strategies.transcoders(), strategies.NOW), {"s1": 0, "s2": 0}
    proceed(found, [(found.book(strategies.booking(f"c-{number}")), URL) for number in range(10)], now)
    assert Counter(streamers(found).values()) == now
    assert max(now.values()) <= math.ceil(found.settings.streamer_load_slack * 10 / 2)


@given(stems, st.sampled_from(STREAMERS))
def test_a_streamer_that_dies_moves_only_its_own_renditions(wanted: list[str], dead: str) -> None:
    before = placed(wanted, IDLE, UNBOUNDED)
    after = placed(wanted, {name: 0 for name in STREAMERS if name != dead}, UNBOUNDED)
    assert all(new == old for old, new in zip(before, after, strict=True) if old != dead)


@given(st.permutations(STREAMERS))
def test_the_ranking_does_not_depend_on_the_order_in_which_streamers_are_named(named: list[str]) -> None:
    assert ranking("6666_720P", tuple(named)) == ranking("6666_720P", tuple(STREAMERS))


@given(stems, loads, st.floats(1, 4))
def test_every_class_finds_a_living_streamer_within_its_share(
    wanted: list[str], before: dict[str, int], slack: float
) -> None:
    assert len(placed(wanted, before, slack)) == len(wanted)
