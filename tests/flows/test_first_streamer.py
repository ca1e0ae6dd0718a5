"""A teacher that is rolled out before its streamers keeps the bookings that come in between."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from flows.host import TeacherHost
from flows.teacher.membership import FIRST_STREAMER_S, Membership, alive_streamers
from lectern.db.engine import open_database
from lectern.errors import TryAgain
from lectern.model.tables.teacher import journal
from lectern.redis.client import Bus
from lectern.settings import TeacherSettings
from tests import laid, rows
from tests.rows import commit


class Beats:
    """A Redis in which some streamers have said that they are alive."""

    def __init__(self, *alive: str) -> None:
        self._alive = alive

    async def alive(self, _key: str, _within_s: float) -> Mapping[str, Any]:
        return dict.fromkeys(self._alive)


def teacher(folder: Path, *alive: str, listened_s: float) -> TeacherHost:
    url = f"sqlite:///{laid.database('teacher', folder / 'teacher.db')}"
    engine = open_database(url)
    settings = TeacherSettings(teacher_name="t1", teacher_database_url=url, transcode_sign_key="made-up")
    host = TeacherHost(settings, engine, journal, cast("Bus", Beats(*alive)), cast("Any", None))
    host.listens_since = time.monotonic() - listened_s
    return host


async def test_bookings_are_kept_for_some_minutes_until_the_first_streamer_is_heard_of(tmp_path: Path) -> None:
    with pytest.raises(TryAgain, match="about to be rolled out"):
        await alive_streamers(teacher(tmp_path, listened_s=60))
    assert await alive_streamers(teacher(tmp_path, listened_s=FIRST_STREAMER_S + 1)) == []
    assert await alive_streamers(teacher(tmp_path, "s1", listened_s=60)) == ["s1"]
    host = teacher(tmp_path, listened_s=60)
    commit(host.engine, rows.granted, "s1", "session", 60, time.time())
    with pytest.raises(TryAgain, match="s1 has just been given its lease"):
        await alive_streamers(host)


@pytest.mark.parametrize("ago_s", [3600, -3600], ids=["an hour ago", "before the clock was set back by an hour"])
async def test_without_a_leased_streamer_a_booking_is_refused_at_once(tmp_path: Path, ago_s: float) -> None:
    host = teacher(tmp_path, listened_s=60)
    commit(host.engine, rows.granted, "s1", "session", 60, time.time() - ago_s)
    assert await alive_streamers(host) == []


async def test_while_the_last_streamer_is_started_again_bookings_are_kept(tmp_path: Path) -> None:
    """It has said that it goes; only if it stays away are they refused."""
    host = teacher(tmp_path, listened_s=3600)
    commit(host.engine, rows.granted, "s1", "session", 60, time.time() - 3600)
    roll = Membership(host)
    now = time.time()
    await roll._take_in(now, {"s1": {"at": now - 1, "gone": True}}, {})
    with pytest.raises(TryAgain, match="s1 has just been stopped"):
        await alive_streamers(host)
    gone_s = host.settings.streamer_lost_after_s + 1
    await roll._take_in(now, {"s1": {"at": now - gone_s, "gone": True}}, {})
    assert await alive_streamers(host) == []
    await roll._take_in(now, {"s1": {"at": now}}, {})
    assert await alive_streamers(host) == ["s1"]


class Said(Beats):
    """A Redis in which one streamer has beaten some seconds ago."""

    def __init__(self, said_s_ago: float) -> None:
        super().__init__()
        self._beat = {"at": time.time() - said_s_ago}

    async def heard(self, _key: str) -> tuple[float, Mapping[str, Any], Mapping[str, Any]]:
        return time.time(), {"s1": self._beat}, {}


async def test_while_redis_takes_no_writes_no_booking_is_refused_for_want_of_a_streamer(tmp_path: Path) -> None:
    """It answers what was written before, but no heartbeat can come. Afterwards the streamers have seconds to beat."""
    host = teacher(tmp_path, listened_s=3600)
    commit(host.engine, rows.granted, "s1", "session", 60, time.time() - 3600)
    host.redis_away = True  # the lock of the queue could not be renewed
    with pytest.raises(TryAgain, match="Redis takes no heartbeats"):
        await alive_streamers(host)
    host.bus = cast("Bus", Said(40))
    with pytest.raises(TryAgain, match="takes no heartbeats"):
        await Membership(host).look()
    host.bus, host.redis_away = cast("Bus", Beats()), False
    with pytest.raises(TryAgain, match="no streamer was heard of yet"):
        await alive_streamers(host)


async def test_a_teacher_that_has_not_looked_again_since_redis_came_back_refuses_no_booking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look waits longer after each failure. The first one that succeeds may come before the first new heartbeat."""
    host, waited_s, clock = teacher(tmp_path, listened_s=3600), 0.0, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + waited_s)
    commit(host.engine, rows.granted, "s1", "session", 60, time.time() - 3600)
    host.bus, host.redis_away = cast("Bus", Said(120)), True
    with pytest.raises(TryAgain, match="takes no heartbeats"):
        await Membership(host).look()
    host.redis_away, waited_s = False, 10.0
    with pytest.raises(TryAgain, match="no streamer was heard of yet"):
        await alive_streamers(host)
    await Membership(host).look()
    with pytest.raises(TryAgain, match="no streamer was heard of yet"):
        await alive_streamers(host)
    waited_s = 40.0
    assert await alive_streamers(host) == []


async def test_while_redis_takes_heartbeats_their_silence_counts_although_our_lock_is_refused(tmp_path: Path) -> None:
    host = teacher(tmp_path, listened_s=3600)
    host.bus, host.redis_away, before = cast("Bus", Said(1)), True, host.listens_since
    await Membership(host).look()
    assert host.listens_since == before
