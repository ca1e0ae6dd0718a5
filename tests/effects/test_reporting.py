"""The as-run report: its sums are those of the receivers, and what it says of a class is what was planned and sent."""

import csv
import io
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from lectern.decide import gaps
from lectern.decide.airing import as_run
from lectern.decide.gaps import NAMES, line
from lectern.errors import Misuse
from lectern.model.facts import AsRun, Event, Order
from lectern.model.tables.streamer import as_runs
from lectern.model.tables.teacher import journal, videos
from lectern.model.views import Booked, EventView
from lectern.playout.as_run import AiredClass
from lectern.playout.as_run import AsRunRows as Sending
from lectern.playout.kernel import Now
from lectern.playout.publisher import ClassPublisher, WorkerContext
from lectern.playout.timetable import lesson
from lectern.states import BookingState
from tests import rows, strategies
from tests.rows import commit, look

START, LENGTH_S, TICK_S = strategies.NOW, 60.0, 0.1
CLASSES = 1_000
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


def pushed(chance: random.Random) -> tuple[list[AsRun], dict[str, float]]:
    """A class whose push is cut and whose slate is sent at random; and what its receiver counts in the meantime."""
    kept, received = list[dict[str, Any]](), {"recording": 0.0, "slate": 0.0}
    rows = Sending(kept, 0)
    session, source, silent_until, last, offset = 1, "recording", START + chance.choice([0, 0, 0.4, 3.0]), None, 0
    for tick in range(int(LENGTH_S / TICK_S) + 1):
        now = START + tick * TICK_S
        if now < silent_until:
            continue
        if last is not None and chance.random() < 0.002:  # the server hangs up
            rows.close()
            session, silent_until, last = session + 1, now + chance.uniform(0.1, 5.0), None
            continue
        if chance.random() < 0.002:
            source = "slate" if source == "recording" else "recording"
            last = None
        received[source] += now - last if last is not None else 0.0
        offset, last = offset + 1000, now
        row = {"url": 0, "session": session, "source": source, "from": now, "to": now, "position_s": now - START}
        rows.note({**row, "bytes": 1000}, now - START, offset)
    return as_run(kept), received


def test_the_sums_of_a_thousand_classes_are_those_of_their_receivers(teacher_engine: Engine) -> None:
    """Within a tenth of a second a class; all of them together, too."""
    chance, counted = random.Random(7), {}
    with transaction(teacher_engine) as connection:
        for number in range(CLASSES):
            parts, counted[f"c-{number}"] = pushed(chance)
            keep(connection, f"c-{number}", parts, institution_id=f"i-{number % 3}")
        found = cli.made(connection, START - 1, START + 1, None)
        one = cli.made(connection, START - 1, START + 1, "i-1")
    assert len(found.lines) == CLASSES
    for each in found.lines:
        received = counted[each.class_id]
        assert abs(each.sent_s - received["recording"]) <= 0.1, each
        assert abs(each.slate_s - received["slate"]) <= 0.1, each
        assert abs(each.sent_s + each.missing_s - LENGTH_S) <= 0.1, each
    whole = found.told()
    assert abs((whole["sent_s"] or 0) - sum(each["recording"] for each in counted.values())) <= 0.1 * CLASSES
    assert one.told() == found.totals["i-1"].told()
    assert sum(each.told()["classes"] or 0 for each in found.totals.values()) == whole["classes"] == CLASSES
    assert whole["size_bytes"] == sum(each.size_bytes for each in found.lines) > 0


def test_what_transcoders_worked_counts_for_who_booked_the_rendition_first(teacher_engine: Engine) -> None:
    """And for nobody by name where nobody did."""
    with transaction(teacher_engine) as connection:
        keep(connection, "c-1", [])
        made = {"resolution": "720P", "status": "success", "requested_at": START - 90, "updated_at": START}
        connection.execute(insert(videos), [{"record_id": record, **made} for record in (6666, 7777)])
        found = cli.made(connection, START - 1, START + 1, None)
    assert {name: one.transcoding_s for name, one in found.totals.items()} == {"i-7": 90.0, "": 90.0}
    assert [one.stem for one in found.lines] == ["6666_720P"]


def part(begins: float, ends: float, **more: Any) -> AsRun:
    return AsRun(
        **{"url": 0, "session": 1, "source": "recording", "position_s": 0, "sent_s": ends - begins, **more},
        begins=begins,
        ends=ends,
    )


def test_a_class_is_punctual_that_begins_within_a_second() -> None:
    assert line(PLANNED, [part(START + 0.4, START + 60)]).punctual
    assert not line(PLANNED, [part(START + 1.2, START + 60)]).punctual
    assert not line(PLANNED, []).punctual


def test_the_reason_of_the_last_gap_goes_by_the_word_that_the_playout_really_says() -> None:
    fields = {"class_id": "c-1", "file": "/6666.flv", "push_urls": ["rtmp://h/live/c"], "start": START}
    with ThreadPoolExecutor(1) as pool:
        context = WorkerContext(pool, lambda _: None, lambda *_: None, lambda _: None, is_held=True)
        push = ClassPublisher(AiredClass(lesson({**fields, "end": START + LENGTH_S})), 0, context)
        push.feed.over = True
        why = push.tick(Now(0.0, START + 40))
        push.end()
    found = gaps.sent(START, START + LENGTH_S, [part(START, START + 40)], (), why or "")
    assert [one.why for one in found.gaps] == ["its recording was over"]


def test_what_was_never_sent_is_missing_but_not_what_was_cancelled_or_of_an_odd_source() -> None:
    """A streamer of a newer release has sent it; its time is known, and neither recording nor slate is."""
    broken = line(replace(PLANNED, state=BookingState.BROKEN, message="not aired"), [])
    assert (broken.began, broken.ended, broken.missing_s, broken.sessions) == (None, None, 60, 0)
    cancelled = line(replace(PLANNED, state=BookingState.CANCELLED, message=""), [part(START, START + 5)])
    assert (cancelled.missing_s, cancelled.counts, cancelled.sent_s) == (0, False, 5)
    assert not line(replace(PLANNED, class_id="c-1~backup"), []).counts
    odd = line(replace(PLANNED, message=""), [part(START, START + 20), part(START + 20, START + 30, source="a hymn")])
    assert (odd.began, odd.ended, odd.sent_s, odd.slate_s, odd.missing_s) == (START, START + 30, 20, 0, 40)


@pytest.mark.parametrize("state", [BookingState.READY, BookingState.PLACED])
def test_nothing_is_missing_of_a_class_that_is_still_to_be_aired(teacher_engine: Engine, state: BookingState) -> None:
    """It is on air, or comes later on the last day of the report; once its end has passed, it was not aired."""
    start = time.time() - 60
    with transaction(teacher_engine) as connection:
        for class_id, end in (("c-now", start + 600), ("c-over", start + 30)):
            booking = strategies.booking(class_id, start_time=start, end_time=end)
            bookings.add(connection, [(booking, state)], start)
        found = cli.made(connection, start - 1, start + 1, None)
    assert {one.class_id: one.missing_s for one in found.lines} == {"c-now": 0, "c-over": 30}
    told = found.told()
    assert (told["classes"], told["missing_s"], told["punctuality_percent"]) == (1, 30, 0)


def test_a_report_is_written_for_programs_and_for_people(teacher_engine: Engine) -> None:
    with transaction(teacher_engine) as connection:
        keep(connection, "c-1", [part(START + 0.04, START + 60, sent_bytes=7)])
        keep(connection, "c-2", [part(START + 2, START + 30)], "aired but for 32 s; <b>")
        found = cli.made(connection, START - 1, START + 1, None)
    said = {one: io.StringIO() for one in Format}
    for form, sink in said.items():
        cli.write(found, form, sink, "As-run")
    read = json.loads(said[Format.json].getvalue())
    assert read["all"] | {"classes": 2} == read["all"]
    assert read["all"]["punctuality_percent"] == 50
    assert read["all"]["availability_percent"] == pytest.approx(73.3, abs=0.1)
    assert {one["class_id"] for one in read["classes"]} == {"c-1", "c-2"}
    rows = list(csv.reader(io.StringIO(said[Format.csv].getvalue())))
    assert (rows[0], len(rows)) == (list(NAMES), 7)
    assert rows[-1][0] == "all"
    assert "&lt;b&gt;" in said[Format.html].getvalue()
    assert not any(one in said[Format.html].getvalue() for one in ("<b>", "href=", "src="))


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


def test_a_second_report_of_the_same_changes_nothing(teacher_engine: Engine) -> None:
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


def test_a_streamer_keeps_the_bytes_of_each_part(streamer_engine: Engine) -> None:
    commit(streamer_engine, events.keep_parts, "c-1", PARTS, table=as_runs)
    assert look(streamer_engine, events.parts_of, ["c-1"], as_runs) == {"c-1": PARTS}


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
    told = sorted(f"{one.host} {one.what}" for one in found)
    assert told == ["s1 downloaded", "s1 on air", "s1 push refused", "s2 on air", "teacher on air"]
    assert not [one for one in found if "secret" in one.detail]
