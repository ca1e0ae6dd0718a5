"""What was really sent of a class is kept by its streamer and by its teacher."""

from dataclasses import replace

from sqlalchemy import Engine

from lectern.db import events
from lectern.db.engine import transaction
from lectern.model.facts import AsRun, Event
from lectern.model.tables.streamer import as_runs
from lectern.model.tables.teacher import journal
from lectern.model.views import EventView
from tests.rows import commit, look

FIRST = AsRun(0, 1, "recording", 1_000.0, 1_300.0, 0.0, 300.0, 5_000_000_000)
SECOND = AsRun(0, 2, "slate", 1_310.0, 1_600.0, 310.0, 290.0)


def test_a_second_report_of_the_same_changes_nothing(teacher_engine: Engine) -> None:
    with transaction(teacher_engine) as connection:
        for _ in range(2):
            events.keep_parts(connection, "c-1", [FIRST, SECOND], "s1")
        events.keep_parts(connection, "c-1", [replace(SECOND, begins=1_600.0, ends=1_700.0)], "s2")
        events.keep_parts(connection, "c-2", [], "s1")
    found = look(teacher_engine, events.parts_of, ["c-1", "c-2"])
    assert [one.begins for one in found.pop("c-1")] == [1_000.0, 1_310.0, 1_600.0]
    assert found == {}


def test_a_streamer_keeps_the_bytes_of_each_part(streamer_engine: Engine) -> None:
    commit(streamer_engine, events.keep_parts, "c-1", [FIRST, SECOND])
    assert look(streamer_engine, events.parts_of, ["c-1"], as_runs) == {"c-1": [FIRST, SECOND]}


def test_a_second_report_of_a_class_doubles_no_event_and_takes_none_of_others(teacher_engine: Engine) -> None:
    story = [
        EventView(1_000.0, "on air", "c-1", "6666", "s1", "at 1.5 s, session 1"),
        EventView(1_010.0, "push refused", "c-1", "6666", "s1", "rtmp://push.example/live/secret: no"),
    ]
    with transaction(teacher_engine) as connection:
        events.note(connection, journal, "teacher", [Event("on air", "c-1", "6666", "here")], 1_005.0)
        events.note(connection, journal, "s1", [Event("downloaded", "c-1", "6666", "1 MB")], 1_005.0)
        for _ in range(2):
            events.keep_of(connection, journal, story)
        events.keep_of(connection, journal, [replace(story[0], host="s2")])
    found = look(teacher_engine, events.of_thing, journal, class_id="c-1", stems=())
    told = sorted((one.host, one.what) for one in found)
    assert told == [
        *(("s1", "downloaded"), ("s1", "on air"), ("s1", "push refused")),
        *(("s2", "on air"), ("teacher", "on air")),
    ]
    assert not [one for one in found if "secret" in one.detail]
