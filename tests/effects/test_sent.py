"""What a streamer's rows say of a class in its time, and how its teacher hears of it."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from flows.streamer.readiness import ahead, word
from lectern.db import account, airings, events, incidents
from lectern.db.engine import reading, transaction
from lectern.decide.account import NEEDED
from lectern.model.facts import Event
from lectern.model.tables.streamer import journal
from lectern.model.views import OpenAlarm, Sending
from lectern.redis.client import Bus
from lectern.settings import StreamerSettings
from lectern.states import AiringState
from tests import laid, rows
from tests.effects.redis_servers import redis_server, url_of
from tests.rows import commit

NOW = 1_764_010_000.0


@pytest.fixture
def streamer_engine(tmp_path: Path) -> Iterator[Engine]:
    """A streamer with a class that should be on air."""
    made = laid.opened("streamer", tmp_path / "task_list.db")
    wanted = rows.prepare("c-1", 1, NOW - 60, 660, push_url="rtmp://push.example/live/secret")
    commit(made, rows.add, wanted, AiringState.ON_AIR, "/v/1.flv", NOW)
    yield made
    made.dispose()


def happens(engine: Engine, *whats: str) -> Sending:
    with transaction(engine) as connection:
        for number, what in enumerate(whats):
            at = NOW - 50 + number
            events.note(connection, journal, "streamer1", [Event(what, "c-1", "1", f"because {number}")], at)
        (due,) = airings.live(connection)
        return account.sendings(connection, [due])["c-1"]


def test_a_class_is_on_air_from_when_its_receiver_took_it(streamer_engine: Engine) -> None:
    assert happens(streamer_engine, "connected", "on air") == Sending(on_air=True, since=NOW - 49)


def test_refused_pushes_are_counted_with_their_last_reason(streamer_engine: Engine) -> None:
    found = happens(streamer_engine, *["push refused"] * 17)
    assert (found.on_air, found.failures, found.why, found.why_at) == (False, 17, "because 16", NOW - 34)


def test_a_class_that_was_cut_is_not_on_air_until_it_is_taken_again(streamer_engine: Engine) -> None:
    assert not happens(streamer_engine, "on air", "push broke off", "push refused").on_air
    again = happens(streamer_engine, "on air")
    assert (again.on_air, again.cuts, again.failures, again.why) == (True, 1, 0, "because 2")


def test_a_class_that_comes_and_goes_hides_no_other(streamer_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its receiver takes it and cuts it each second; the page called all other classes not on air after an hour."""
    monkeypatch.setattr(account, "_MOST", 40)
    monkeypatch.setattr(account, "_MOST_OF_ONE", 10)
    happens(streamer_engine, "connected", "on air")
    with transaction(streamer_engine) as connection:
        (quiet,) = airings.live(connection)
        for number in range(100):
            what = ("push broke off", "on air")[number % 2]
            events.note(connection, journal, "streamer1", [Event(what, "c-2", "2", "cut")], NOW + number)
        found = account.sendings(connection, [quiet, replace(quiet, class_id="c-2")])
    assert found["c-1"] == Sending(on_air=True, since=NOW - 49)
    assert (found["c-2"].on_air, found["c-2"].cuts) == (True, 9)


def test_the_slate_is_told(streamer_engine: Engine) -> None:
    assert happens(streamer_engine, "on air", "slate").slate
    assert not happens(streamer_engine, "recording again").slate


def test_a_class_of_which_nothing_was_tried_has_no_sending(streamer_engine: Engine) -> None:
    with reading(streamer_engine) as connection:
        assert account.sendings(connection, airings.live(connection)) == {}


def test_the_last_check_counts(streamer_engine: Engine) -> None:
    with transaction(streamer_engine) as connection:
        for what, why in ((account.NOT_READY, "its file is gone"), (account.CHECKED, "")):
            events.note(connection, journal, "streamer1", [Event(what, "c-1", "1", why)], NOW)
            assert account.checks(connection, ["c-1"])["c-1"].reds == why


def test_a_streamers_word_reaches_its_teacher_whole_and_grows_old(streamer_engine: Engine, tmp_path: Path) -> None:
    happens(streamer_engine, "push refused")
    settings = StreamerSettings.load(streamer_name="streamer1", video_root=tmp_path, max_video_num=12)
    with reading(streamer_engine) as connection:
        own = replace(word(connection, settings, NOW), ahead=ahead(connection, NOW))
    assert (own.due, own.bound.num, own.sendings["c-1"].why) == (1, 12, "because 0")
    assert set(own.ahead[NEEDED]) == {0}  # nothing is cached, so nothing is pinned

    async def told(url: str) -> None:
        bus = Bus.open(url)
        before = int(time.time())  # a beat's time is Redis', in whole seconds
        await bus.say("streamers", "streamer1", own)
        found = await bus.words("streamers", 5)
        assert list(found) == ["streamer1"]  # the other one cannot be read
        heard = found["streamer1"]
        assert before <= heard.at <= time.time()
        assert (heard.sendings, heard.ahead, heard.silent_s) == (own.sendings, own.ahead, None)
        await asyncio.sleep(2.1)  # it says nothing for longer than the teacher waits
        old = (await bus.words("streamers", 1))["streamer1"]
        assert old.silent_s is not None
        await bus.close()

    with redis_server(tmp_path) as client:
        client.hset("streamers:words", "streamer2", "not JSON")
        asyncio.run(told(url_of(client)))


def test_of_an_alarm_with_many_classes_the_newest_are_told() -> None:
    many = OpenAlarm(321, "s", 1, NOW, "m", tuple(map(str, range(99))))
    assert incidents.shortened(many, 20).classes == tuple(map(str, range(79, 99)))
