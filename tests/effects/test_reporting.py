"""The as-run report: its sums are those of the receivers, and what it says of a class is what was planned and sent."""

import csv
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert

from flows import as_run_report as cli
from flows.as_run_report import Format
from lectern import formatting
from lectern.cli.report import report
from lectern.db import bookings, events
from lectern.db.engine import transaction
from lectern.decide.gaps import NAMES, line
from lectern.errors import Misuse
from lectern.model.facts import AsRun, Event, Order
from lectern.model.tables.streamer import as_runs
from lectern.model.tables.teacher import videos
from lectern.model.views import Booked, EventView
from lectern.states import BookingState
from tests import rows, strategies
from tests.rows import commit, look

START, LENGTH_S = strategies.NOW, 60.0
SAID = "aired whole; 1 session"
PLANNED = Booked("c-1", BookingState.AIRED, "6666_720P", START, START + 60, 0, SAID, "s1", answered=True)


def keep(
    connection: Connection,
    class_id: str,
    parts: list[AsRun],
    why: str = "aired whole",
    start: float = START,
    **more: str,
) -> None:
    """A class that is over, and what was sent of it."""
    booking = strategies.booking(class_id, start_time=start, end_time=start + LENGTH_S, **more)
    order = replace(Order.of(booking), state=BookingState.AIRED, message=why, streamer="s1")
    rows.booked(connection, booking, order, start)
    events.keep_parts(connection, class_id, parts, "s1")


def part(begins: float, ends: float, **more: Any) -> AsRun:
    return AsRun(
        **{"url": 0, "session": 1, "source": "recording", "position_s": 0, "sent_s": ends - begins, **more},
        begins=begins,
        ends=ends,
    )


def test_nothing_is_missing_of_a_class_that_is_still_to_be_aired(teacher_engine: Engine) -> None:
    """It is on air, or comes later on the last day of the report; once its end has passed, it was not aired."""
    start = time.time() - 60
    with transaction(teacher_engine) as connection:
        for class_id, end in (("c-now", start + 600), ("c-over", start + 30)):
            booking = strategies.booking(class_id, start_time=start, end_time=end)
            bookings.add(connection, [(booking, BookingState.PLACED)], start)
        found = cli.made(connection, start - 1, start + 1, None)
    assert {one.class_id: one.missing_s for one in found.lines} == {"c-now": 0, "c-over": 30}
    told = found.told()
    assert (told["classes"], told["missing_s"], told["punctuality_percent"]) == (1, 30, 0)


def test_a_report_is_written_for_programs_and_for_people(teacher_engine: Engine) -> None:
    with transaction(teacher_engine) as connection:
        keep(connection, "c-1", [part(START + 0.04, START + 60, sent_bytes=7)], institution_id="i-1")
        keep(connection, "c-2", [part(START + 2, START + 30)], "aired but for 32 s; <b>")
        made = {"resolution": "720P", "status": "success", "requested_at": START - 90, "updated_at": START}
        connection.execute(insert(videos), [{"record_id": record, **made} for record in (6666, 7777)])
        found = cli.made(connection, START - 1, START + 1, None)
        own = cli.made(connection, START - 1, START + 1, "i-1")
    worked = {name: one.transcoding_s for name, one in found.totals.items()}
    assert worked == {"i-1": 90.0, "i-7": 0.0, "": 90.0}, "for who booked first, and for nobody by name"
    assert own.told() == found.totals["i-1"].told()
    assert [(one.class_id, one.stem, one.size_bytes) for one in own.lines] == [("c-1", "6666_720P", 7)]
    said = {form: cli.written(found, form, "As-run") for form in Format}
    read = json.loads(said[Format.json])
    assert read["all"] | {"classes": 2} == read["all"]
    assert read["all"]["punctuality_percent"] == 50
    assert read["all"]["availability_percent"] == pytest.approx(73.3, abs=0.1)
    assert {one["class_id"] for one in read["classes"]} == {"c-1", "c-2"}
    rows = list(csv.reader(io.StringIO(said[Format.csv])))
    assert (rows[0], len(rows)) == (list(NAMES), 9)
    assert rows[-1][0] == "all"
    assert "&lt;b&gt;" in said[Format.html]
    assert not any(one in said[Format.html] for one in ("<b>", "href=", "src="))


def test_a_tenth_that_is_rounded_up_is_one_of_the_next_second() -> None:
    """Else a class that is booked for it would be said to begin a second early."""
    cells = cli.cells(line(replace(PLANNED, start_time=START + 0.97), []))
    assert cells[NAMES.index("start")] == f"{formatting.moment(START + 1)}.0"


@pytest.fixture
def berlin() -> Iterator[None]:
    """The host's clock is put forward and back twice a year."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(("day", "hours"), [("2026-10-25", 25), ("2026-03-29", 23)], ids=["put back", "put forward"])
@pytest.mark.parametrize("is_named", [True, False], ids=["named", "yesterday"])
def test_a_day_on_which_the_clock_is_changed_is_reported_whole(
    teacher_engine: Engine,
    day: str,
    hours: int,
    is_named: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It has 25 hours or 23, and each class belongs to one day."""
    first = datetime.fromisoformat(day).astimezone().timestamp()
    starts = {"before": first - 1, "first": first, "last": first + hours * 3600 - 1, "after": first + hours * 3600}
    with transaction(teacher_engine) as connection:
        for class_id, at in starts.items():
            keep(connection, class_id, [], start=at)
    monkeypatch.setenv("TEACHER_DATABASE_URL", str(teacher_engine.url))
    monkeypatch.setattr(time, "time", lambda: first + 36 * 3600)
    report(since=day if is_named else None, form=Format.json)
    told = json.loads(capsys.readouterr().out)
    assert [one["class_id"] for one in told["classes"]] == ["first", "last"]


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        (None, "2020-01-01", r"--to: 2020-01-01 is before 20\d\d-\d\d-\d\d\."),
        ("0001-01-01", None, "--from: '0001-01-01' is no"),
        ("2026-11-25", "9999-12-31", "--to: '9999-12-31' is no"),
        ("2026-11-31", None, "--from: '2026-11-31' is no day"),
    ],
)
def test_days_that_cannot_be_reported_are_refused_in_words(since: str | None, until: str | None, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        report(since=since, until=until)


# What was really sent of a class is kept by its streamer and by its teacher.


PARTS = [part(START, START + 30, sent_bytes=5_000_000_000), part(START + 31, START + 40, session=2, source="slate")]


def test_a_second_report_of_the_same_changes_nothing(teacher_engine: Engine, streamer_engine: Engine) -> None:
    """Each streamer numbers its sessions from 1: those of a class that was moved are counted by streamer."""
    with transaction(teacher_engine) as connection:
        for _ in range(2):
            events.keep_parts(connection, "c-1", PARTS, "s1")
        events.keep_parts(connection, "c-1", [part(START + 40, START + 60)], "s2")
        events.keep_parts(connection, "c-2", [], "s1")
    found = look(teacher_engine, events.parts_of, ["c-1", "c-2"])
    assert [(one.streamer, one.begins - START) for one in found["c-1"]] == [("s1", 0), ("s1", 31), ("s2", 40)]
    assert line(PLANNED, found["c-1"]).sessions == 3
    assert found.keys() == {"c-1"}
    commit(streamer_engine, events.keep_parts, "c-1", PARTS)
    assert look(streamer_engine, events.parts_of, ["c-1"], as_runs) == {"c-1": PARTS}


def test_a_second_report_of_a_class_doubles_no_event_and_takes_none_of_others(teacher_engine: Engine) -> None:
    story = [
        EventView(1_000.0, "on air", "c-1", "6666", "s1", "at 1.5 s, session 1"),
        EventView(1_010.0, "push refused", "c-1", "6666", "s1", "rtmp://push.example/live/secret: no"),
    ]
    with transaction(teacher_engine) as connection:
        events.note(connection, "teacher", [Event("on air", "c-1", "6666", "here")], 1_005.0)
        events.note(connection, "s1", [Event("downloaded", "c-1", "6666", "1 MB")], 1_005.0)
        for _ in range(2):
            events.keep_of(connection, story)
        events.keep_of(connection, [replace(story[0], host="s2")])
    found = look(teacher_engine, events.of_thing, class_id="c-1", stems=())
    told = sorted(f"{one.host} {one.what}" for one in found)
    assert told == ["s1 downloaded", "s1 on air", "s1 push refused", "s2 on air", "teacher on air"]
    assert not [one for one in found if "secret" in one.detail]
