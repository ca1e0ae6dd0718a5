"""What a streamer's rows say of a class in its time, and how its teacher hears of it."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine

from flows.streamer.readiness import ahead, word
from lectern.db import account, airings, bookings, events, metrics, timetable
from lectern.db.engine import reading, transaction
from lectern.db.timetable import Span
from lectern.db.writer import write
from lectern.decide.account import NEEDED
from lectern.errors import ENDED
from lectern.i18n import Text, translated
from lectern.model.facts import Event
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import journal
from lectern.model.views import Check, EventView, Gap, OpenAlarm, Sending, StreamerStatus
from lectern.redis.client import Bus
from lectern.settings import StreamerSettings
from lectern.states import AiringState, BookingState
from lectern.wire.messages import Report
from lectern.wire.parser import parse
from tests import rows, strategies
from tests.rows import commit, look, prepare

NOW = 1_764_010_000.0


@pytest.fixture
def streamer_engine(streamer_engine: Engine) -> Engine:
    """A streamer with a class that should be on air."""
    wanted = prepare("c-1", 1, NOW - 60, 660, push_url="rtmp://push.example/live/secret")
    commit(streamer_engine, rows.add, wanted, AiringState.ON_AIR, "/v/1.flv", NOW)
    return streamer_engine


def happens(engine: Engine, *whats: str, class_id: str = "c-1") -> None:
    with transaction(engine) as connection:
        for number, what in enumerate(whats):
            noted = [Event(what, class_id, "1", f"because {number}")]
            events.note(connection, "streamer1", noted, NOW - 50 + number)


def pushed(engine: Engine) -> float:
    text = look(engine, lambda connection: metrics.exposition("streamer", "streamer1", connection, now=NOW)).decode()
    return float(text.partition("\nlectern_pushes_on_air ")[2].partition("\n")[0])


def test_a_class_is_on_air_from_when_its_receiver_took_it_until_it_was_cut(streamer_engine: Engine) -> None:
    happens(streamer_engine, "connected", "on air")
    assert pushed(streamer_engine) == 1
    happens(streamer_engine, "push broke off", *["push refused"] * 17)
    assert pushed(streamer_engine) == 0
    happens(streamer_engine, "on air")
    assert pushed(streamer_engine) == 1
    happens(streamer_engine, "lease over")
    assert pushed(streamer_engine) == 0


def test_a_class_that_has_nothing_to_send_is_on_air_again_with_its_recording(streamer_engine: Engine) -> None:
    """Its session went on, so no *on air* comes: until its end, an alert called a class off the air that was sent."""
    for what, is_on_air in (("push broke off", False), ("recording again", True), ("slate", True), ("on air", True)):
        happens(streamer_engine, "on air", "nothing to send", what)
        assert pushed(streamer_engine) == is_on_air
    happens(streamer_engine, "nothing to send")
    assert pushed(streamer_engine) == 0
    happens(streamer_engine, "push broke off", "recording again")
    assert pushed(streamer_engine) == 0


def test_a_class_that_comes_and_goes_hides_no_other(streamer_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its receiver takes it and cuts it each second; the page called all other classes not on air after an hour."""
    monkeypatch.setattr(account, "_MOST", 10)
    happens(streamer_engine, "push refused", "on air")
    happens(streamer_engine, *["push broke off", "on air"] * 50, class_id="c-2")
    failed = look(streamer_engine, account.newest, ["c-2", "c-1"], ["push refused", "push broke off"])
    assert {class_id: one.detail for class_id, one in failed.items()} == {"c-1": "because 0", "c-2": "because 98"}
    story = look(streamer_engine, account.story_events, "c-2", ["push broke off", "on air"])
    assert [event.detail for event in story] == [f"because {number}" for number in range(90, 100)], "the newest ones"


def test_the_last_check_of_a_class_counts(streamer_engine: Engine) -> None:
    with transaction(streamer_engine) as connection:
        for what, why in ((account.NOT_READY, "its file is gone"), (account.CHECKED, "")):
            events.note(connection, "streamer1", [Event(what, "c-1", "1", why)], NOW)
            assert account.checks(connection, ["c-1"])["c-1"].reds == why


async def test_a_streamers_word_reaches_its_teacher_whole_and_grows_old(
    streamer_engine: Engine, tmp_path: Path, client: redis.Redis, bus: Bus
) -> None:
    """Of an alarm with many classes it has the newest."""
    many = json.dumps([f"c-{number}" for number in range(99)])
    alarm = {"code": 321, "first_at": NOW, "last_at": NOW, "number": 99, "classes": many}
    rows.put(streamer_engine, {journal.incidents: [alarm]})
    settings = StreamerSettings.load(streamer_name="streamer1", video_root=tmp_path, max_video_num=12)
    with reading(streamer_engine) as connection:
        own = replace(word(connection, settings, NOW), ahead=ahead(connection, NOW))
    assert (own.due, own.bound.num, [*own.sendings]) == (1, 12, ["c-1"])
    assert set(own.ahead[NEEDED]) == {0}  # nothing is cached, so nothing is pinned
    odd = '{"at": 1, "sendings": {}, "checks": {"c-1": {"at": 1, "reds": {"id": "{s:span}", "args": {"s": 1e999}}}}}'
    client.hset("streamers:words", mapping={"streamer2": "not JSON", "streamer3": odd})
    before = int(time.time())  # a beat's time is Redis', in whole seconds
    await bus.say("streamers", "streamer1", own)
    (heard,) = (await bus.words("streamers", 5)).values()  # the others cannot be read
    assert before <= heard.at <= time.time()
    assert (heard.sendings, heard.ahead, heard.silent_s) == (own.sendings, own.ahead, None)
    assert heard.alarms[0].classes == tuple(f"c-{number}" for number in range(79, 99))
    await asyncio.sleep(2.1)  # it says nothing for longer than the teacher waits
    assert (await bus.words("streamers", 1))["streamer1"].silent_s is not None


# A sentence keeps its id from the decision to the screen: in rows, and in what a streamer reports.


SETTINGS = strategies.transcoders()
WHY = Text("{streamer} is lost", streamer="s1")
BOOKING = strategies.booking("c-1", start_time=NOW, end_time=NOW + 600)


def test_an_event_is_read_with_its_id_and_without_its_secrets(teacher_engine: Engine) -> None:
    secret = Text("{url} does not answer", url="rtmp://h/a/secret")
    for detail in (WHY, secret, "words of a program"):
        commit(teacher_engine, events.note, "t", [Event("moved", "c-1", detail=detail)], NOW)
    told = EventView(NOW + 1, "on air", "c-1", None, "s1", WHY)
    commit(teacher_engine, events.keep_of, [told])
    found = look(teacher_engine, events.of_thing, class_id="c-1", stems=())
    assert [type(one.detail) for one in found] == [Text, Text, str, Text]
    assert found[1].detail == "rtmp://h/… does not answer"
    assert [translated(one.detail, "zh") for one in found[::3]] == ["s1 失联", "s1 失联"]


def test_a_booking_is_read_with_the_id_of_its_reason_until_it_has_another(teacher_engine: Engine) -> None:
    first = Changes(SETTINGS, NOW)
    first.move(first.book(BOOKING), BookingState.WAITING, 0, WHY)
    commit(teacher_engine, write, first)
    (one,) = look(teacher_engine, timetable.classes, timetable.begins_in(Span(NOW - 1, NOW + 1, None)), 9)
    assert translated(one.message or "", "zh") == "s1 失联"
    for state, message, kind in ((BookingState.PLACED, "words of a program", str), (BookingState.READY, WHY, Text)):
        later = Changes(SETTINGS, NOW)
        later.learn(look(teacher_engine, bookings.by_id, ["c-1"]))
        later.move(later.orders["c-1"], state, 0, message)
        commit(teacher_engine, write, later)
        assert type(look(teacher_engine, bookings.by_id, ["c-1"])["c-1"].message) is kind


def test_a_streamer_keeps_and_reports_the_id_of_a_reason(streamer_engine: Engine) -> None:
    changes = StreamerChanges(StreamerSettings.load(_env_file=None, streamer_name="s1"), NOW)
    changes.refuse(prepare("c-1", 6, NOW), ENDED, WHY)
    changes.report(
        "ended", prepare("c-1", 6, NOW), ENDED, WHY, events=[EventView(NOW, "slate", "c-1", None, "s1", WHY)]
    )
    commit(streamer_engine, write, changes)
    one = look(streamer_engine, airings.by_id, ["c-1"])["c-1"]
    assert one.state is AiringState.REFUSED
    assert translated(one.message or "", "zh") == "s1 失联"
    said = parse(changes.sends[-1].message.to_json(), (Report,))
    assert said.message == "s1 is lost"
    assert translated(said.reason, "zh") == "s1 失联"
    assert said.events is not None
    assert said.events[0]["sentence"] == WHY.pair()


def test_a_heartbeat_keeps_the_ids_of_its_sentences_and_takes_none_that_is_odd() -> None:
    adapter = TypeAdapter(StreamerStatus)
    gap = Gap(1.0, 2.0, 1.0, WHY, "words of a server")
    beat = StreamerStatus(NOW, {"c-1": Sending(on_air=False, why=WHY, gaps=(gap,))}, {"c-1": Check(NOW, WHY)}, ())
    beat = replace(beat, alarms=(OpenAlarm(322, "s1", 1, NOW, WHY, ()),), dead_air={"c-1": WHY})
    read = adapter.validate_json(adapter.dump_json(beat))
    its = (read.sendings["c-1"], read.checks["c-1"], read.alarms[0])
    assert [translated(one or "", "zh") for one in (its[0].why, its[1].reds, its[2].message)] == ["s1 失联"] * 3
    assert its[0].gaps[0].reason() == "s1 is lost: words of a server"
    with pytest.raises(ValidationError):
        adapter.validate_json(adapter.dump_json(beat).replace(b'"args":{"streamer":"s1"}', b'"args":[]'))
