"""A sentence keeps its id from the decision to the screen: in rows, and in what a streamer reports."""

from dataclasses import replace

import pytest
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine

from lectern.db import airings, bookings, events, timetable
from lectern.db.timetable import Span
from lectern.db.writer import write
from lectern.errors import ENDED
from lectern.i18n import Text, translated
from lectern.model.facts import Event
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables import streamer, teacher
from lectern.model.views import Check, EventView, Gap, OpenAlarm, Sending, StreamerStatus
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import AiringState, BookingState
from lectern.wire.messages import Booking, Report
from lectern.wire.parser import parse
from tests.rows import commit, look, prepare

NOW = 1_764_010_000.0
SETTINGS = TeacherSettings.load(_env_file=None, transcode_sign_key="made-up")
WHY = Text("{streamer} is lost", streamer="s1")
BOOKING = Booking.model_validate(
    {
        "class_id": "c-1",
        "start_time": NOW,
        "end_time": NOW + 600,
        "push_url": "rtmp://h/a/s",
        "video_url": "http://h/6.flv",
    }
)


def test_an_event_is_read_with_its_id_and_without_its_secrets(teacher_engine: Engine) -> None:
    secret = Text("{url} does not answer", url="rtmp://h/a/secret")
    for detail in (WHY, secret, "words of a program"):
        commit(teacher_engine, events.note, teacher.journal, "t", [Event("moved", "c-1", detail=detail)], NOW)
    told = EventView(NOW + 1, "on air", "c-1", None, "s1", WHY)
    commit(teacher_engine, events.keep_of, teacher.journal, [told])
    found = look(teacher_engine, events.of_thing, teacher.journal, class_id="c-1", stems=())
    assert [type(one.detail) for one in found] == [Text, Text, str, Text]
    assert found[1].detail == "rtmp://h/… does not answer"
    assert [translated(one.detail, "zh") for one in found[::3]] == ["s1 失联", "s1 失联"]


def test_a_booking_is_read_with_the_id_of_its_reason_until_it_has_another(teacher_engine: Engine) -> None:
    first = Changes(SETTINGS, NOW)
    first.move(first.book(BOOKING), BookingState.WAITING, 0, WHY)
    commit(teacher_engine, write, teacher.journal, first)
    (one,) = look(teacher_engine, timetable.classes, timetable.begins_in(Span(NOW - 1, NOW + 1, None)), 9)
    assert one.booked is not None
    assert translated(one.booked.message or "", "zh") == "s1 失联"
    for state, message, kind in ((BookingState.PLACED, "words of a program", str), (BookingState.READY, WHY, Text)):
        later = Changes(SETTINGS, NOW)
        later.learn(look(teacher_engine, bookings.by_id, ["c-1"]))
        later.move(later.orders["c-1"], state, 0, message)
        commit(teacher_engine, write, teacher.journal, later)
        assert type(look(teacher_engine, bookings.by_id, ["c-1"])["c-1"].message) is kind


def test_a_streamer_keeps_and_reports_the_id_of_a_reason(streamer_engine: Engine) -> None:
    changes = StreamerChanges(StreamerSettings.load(_env_file=None, streamer_name="s1"), NOW)
    changes.refuse(prepare("c-1", 6, NOW), ENDED, WHY)
    changes.report(
        "ended", prepare("c-1", 6, NOW), ENDED, WHY, events=[EventView(NOW, "slate", "c-1", None, "s1", WHY)]
    )
    commit(streamer_engine, write, streamer.journal, changes)
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
