"""A teacher that is rolled out before its streamers keeps the bookings that come in between."""

import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from flows.host import TeacherHost
from flows.teacher.membership import FIRST_STREAMER_S, Membership, alive_streamers
from lectern.errors import TryAgain
from lectern.redis.client import Bus
from tests import rows
from tests.rows import commit


class Beats:
    """A Redis in which some streamers are alive, and s1 has beaten some seconds ago."""

    def __init__(self, *alive: str, said_s_ago: float = 0.0) -> None:
        self._alive, self._said_s_ago = alive, said_s_ago

    async def alive(self, _key: str, _within_s: float) -> Mapping[str, Any]:
        return dict.fromkeys(self._alive)

    async def heard(self, _key: str) -> tuple[float, Mapping[str, Any], Mapping[str, Any]]:
        return time.time(), {"s1": {"at": time.time() - self._said_s_ago}}, {}


def hears(host: TeacherHost, *alive: str, listened_s: float = 3600, said_s_ago: float = 0.0) -> None:
    """The teacher has listened to its Redis for so long."""
    host.bus = cast("Bus", Beats(*alive, said_s_ago=said_s_ago))
    host.listens_since, host.membership_cache = time.monotonic() - listened_s, (0.0, ())


def leased(host: TeacherHost, ago_s: float = 3600) -> None:
    commit(host.engine, rows.granted, "s1", "session", 60, time.time() - ago_s)


async def test_bookings_are_kept_for_some_minutes_until_the_first_streamer_is_heard_of(teacher: TeacherHost) -> None:
    hears(teacher, listened_s=60)
    with pytest.raises(TryAgain, match="about to be rolled out"):
        await alive_streamers(teacher)
    hears(teacher, listened_s=FIRST_STREAMER_S + 1)
    assert await alive_streamers(teacher) == []
    hears(teacher, "s1", listened_s=60)
    assert await alive_streamers(teacher) == ["s1"]
    hears(teacher, listened_s=60)
    leased(teacher, 0)
    with pytest.raises(TryAgain, match="s1 has just been given its lease"):
        await alive_streamers(teacher)


@pytest.mark.parametrize("ago_s", [3600, -3600], ids=["an hour ago", "before the clock was set back by an hour"])
async def test_without_a_leased_streamer_a_booking_is_refused_at_once(teacher: TeacherHost, ago_s: float) -> None:
    hears(teacher, listened_s=60)
    leased(teacher, ago_s)
    assert await alive_streamers(teacher) == []


async def test_while_the_last_streamer_is_started_again_bookings_are_kept(teacher: TeacherHost) -> None:
    """It has said that it goes; only if it stays away are they refused."""
    hears(teacher)
    leased(teacher)
    roll = Membership(teacher)
    now = time.time()
    await roll._take_in(now, {"s1": {"at": now - 1, "gone": True}}, {})
    with pytest.raises(TryAgain, match="s1 has just been stopped"):
        await alive_streamers(teacher)
    gone_s = teacher.settings.streamer_lost_after_s + 1
    await roll._take_in(now, {"s1": {"at": now - gone_s, "gone": True}}, {})
    assert await alive_streamers(teacher) == []
    await roll._take_in(now, {"s1": {"at": now}}, {})
    assert await alive_streamers(teacher) == ["s1"]


async def test_while_redis_takes_no_writes_no_booking_is_refused_for_want_of_a_streamer(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers what was written before, but no heartbeat can come. Afterwards the streamers have seconds to beat.

    The look waits longer after each failure, and the first one that succeeds may come before the first new heartbeat.
    """
    waited_s, clock = 0.0, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + waited_s)
    hears(teacher, said_s_ago=120)
    leased(teacher)
    teacher.redis_away = True  # the lock of the queue could not be renewed
    with pytest.raises(TryAgain, match="Redis takes no heartbeats"):
        await alive_streamers(teacher)
    with pytest.raises(TryAgain, match="takes no heartbeats"):
        await Membership(teacher).look()
    teacher.redis_away, waited_s = False, 10.0
    with pytest.raises(TryAgain, match="no streamer was heard of yet"):
        await alive_streamers(teacher)
    await Membership(teacher).look()
    with pytest.raises(TryAgain, match="no streamer was heard of yet"):
        await alive_streamers(teacher)
    waited_s = 40.0
    assert await alive_streamers(teacher) == []


async def test_while_redis_takes_heartbeats_silence_counts_though_our_lock_is_refused(teacher: TeacherHost) -> None:
    hears(teacher, said_s_ago=1)
    teacher.redis_away, before = True, teacher.listens_since
    await Membership(teacher).look()
    assert teacher.listens_since == before
