"""What is read of a database for people; and what its errors do not say."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert
from sqlalchemy.exc import IntegrityError

from flows.host import TeacherHost
from lectern.db import account, bookings, events, schema, timetable
from lectern.db.engine import open_database, reading, transaction
from lectern.db.writer import write
from lectern.decide import reports
from lectern.errors import Misuse
from lectern.model.facts import Event
from lectern.model.plan import Changes
from lectern.model.tables.teacher import journal, orders, videos
from lectern.states import AiringState, BookingState
from lectern.wire.messages import Booking
from tests import laid, rows, strategies
from tests.rows import commit, look
from tests.stage.children import LECTERN
from tests.typed import SETTINGS, lectern

NOW = 1_764_010_800.0


def row(class_id: str, came: float, state: str) -> dict[str, object]:
    times = {"start_time": NOW, "end_time": NOW + 600, "received_at": came, "updated_at": came}
    return {"class_id": class_id, "state": state, "payload": '{"push_url": "rtmp://push/secret-stream"}', **times}


def test_an_error_of_the_database_says_nothing_of_what_was_written(teacher_engine: Engine) -> None:
    """Its text goes into logs and states of runs; a booking's push URL is a key to the live service."""
    with pytest.raises(IntegrityError) as caught, transaction(teacher_engine) as connection:
        connection.execute(insert(orders), [row("a", NOW, "ready"), row("a", NOW, "ready")])
    assert "order_list" in str(caught.value)
    assert "secret-stream" not in str(caught.value)


def test_of_a_class_people_read_whether_it_is_answered_and_where_it_goes_without_the_key(
    teacher_engine: Engine, streamer_engine: Engine
) -> None:
    with transaction(teacher_engine) as connection:
        several = [{**row(one, NOW, "ready"), "answered_at": at} for one, at in (("told", NOW), ("untold", None))]
        connection.execute(insert(orders), several)
        found = [account.at_teacher(connection, "t", one).booked for one in ("told", "untold")]
    assert [one is not None and one.answered for one in found] == [True, False]
    with transaction(streamer_engine) as connection:
        rows.add(connection, rows.prepare("c-1", 1, NOW, push_url="rtmp://push/secret"), AiringState.READY, "", NOW)
        cited = account.at_streamer(connection, "s", "c-1", NOW).cited
    for one in (*found, cited):
        assert one is not None
        assert (one.push_url or "").startswith("rtmp://push")
        assert "secret" not in str(one)


def test_a_wrong_database_url_is_named_without_its_password() -> None:
    with pytest.raises(Misuse) as caught:
        open_database("no url://user:hidden@host/db")
    assert "hidden" not in str(caught.value)
    assert "database URL" in str(caught.value)


def test_a_record_that_needed_no_transcoding_has_the_story_of_its_classes(teacher_engine: Engine) -> None:
    """And so has a recording that no record names."""
    with transaction(teacher_engine) as connection:
        for class_id, stem in (("c-1", "6666"), ("c-2", "6666_720P"), ("c-3", "66660"), ("c-4", "lesson-7")):
            events.note(connection, journal, "teacher", [Event("waits", class_id, stem)], NOW)
    with reading(teacher_engine) as connection:

        def told(thing: str) -> list[str | None]:
            return [one.class_id for one in account.at_teacher(connection, "teacher", thing).events]

        assert {thing: told(thing) for thing in ("6666", "lesson-7", "6")} == {
            "6666": ["c-1", "c-2"],
            "lesson-7": ["c-4"],
            "6": [],
        }
        assert told("c-3") == ["c-3"]


def test_a_year_of_classes_is_not_read_for_those_of_today(teacher: TeacherHost) -> None:
    """SQLite would look for the classes by the index of revisions, in which all of them are alike."""
    asked: list[tuple[str, Any]] = []
    event.listen(teacher.engine, "before_cursor_execute", lambda _c, _u, text, given, *_: asked.append((text, given)))
    day = timetable.Span(NOW, NOW + 86_400, None)
    with reading(teacher.engine) as connection:
        timetable.due(connection, NOW)
        timetable.next_class(connection, NOW)
        timetable.classes(connection, timetable.begins_in(day), 200)
        timetable.outcomes(connection, day)
        bookings.unended(connection, NOW)
        bookings.unready(connection, NOW, NOW, NOW + 600)
        timetable.waiting(connection, NOW, None, 50)
        timetable.number(connection, timetable.waits(NOW, None))
        wanted = [one for one in asked if one[0].startswith("SELECT")]
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given).all() for text, given in wanted]
    assert len(plans) == 8
    searched = [str(plan[0][3]) for plan in plans]
    assert all("ix_order_list_start_time" in one or "ix_order_list_state" in one for one in searched), searched


def test_a_class_in_a_state_that_nobody_knows_hides_no_other_from_people(
    teacher_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has written it into the database, or a newer release has."""
    several = [row("c-1", NOW, "on the moon"), row("c-2", NOW, "placed")]
    commit(teacher_engine, Connection.execute, insert(orders), several)
    span, before = timetable.Span(NOW - 1, NOW + 1000, None), NOW - 50
    with reading(teacher_engine) as connection:
        following = timetable.next_class(connection, before)
        assert following is not None
        for seen in (
            timetable.classes(connection, timetable.begins_in(span), 10),
            [one for one, _ in timetable.waiting(connection, before, None, 10)],
            timetable.planned(connection, span),
            [following],
        ):
            assert [one.class_id for one in seen] == ["c-2"]
    assert caplog.text.count("c-1: its booking cannot be read, and is passed over") == 2


def test_of_many_transcodings_all_are_counted_and_five_nearest_to_their_deadline_told(teacher_engine: Engine) -> None:
    common = {"resolution": "720P", "status": "transcoding", "attempt": 1, "backend": "oss"}
    rows = [{"record_id": one, "deadline": NOW + one if one > 1200 else None, **common} for one in range(1204, 0, -1)]
    commit(teacher_engine, Connection.execute, insert(videos), rows)
    found = look(teacher_engine, timetable.status_of_teacher, NOW)
    assert found["under_way_number"] == 1204
    assert [one["slack_s"] for one in found["under_way"]] == [1201, 1202, 1203, 1204, None]


def test_that_a_silent_streamer_is_told_again_is_noted_once(teacher_engine: Engine) -> None:
    """During a long download the repetitions would fill the story of each class."""
    placed = row("c-1", NOW - 600, "placed") | {"streamer": "streamer1", "url": "http://o/1.flv"}
    commit(teacher_engine, Connection.execute, insert(orders), [placed])
    for sweep in range(3):
        now = NOW + 100 * sweep
        with transaction(teacher_engine) as connection:
            silent = bookings.unreported(connection, now - 60, now)
            assert [one.class_id for one in silent] == ["c-1"]
            changes = Changes(strategies.transcoders(), now)
            known = events.named(connection, journal, reports.TOLD_AGAIN, ["c-1"])
            reports.resend_ends(changes, silent, known)
            write(connection, journal, changes)
    told = [one.what for one in look(teacher_engine, account.at_teacher, "teacher", "c-1").events]
    assert told.count(reports.TOLD_AGAIN) == 1


@pytest.mark.parametrize("its", ["c-1", "c-1^1", "c-1~backup", "c-1~backup^1"])
def test_the_latest_booking_of_a_record_can_be_read_as_one_from_the_wire(teacher_engine: Engine, its: str) -> None:
    """Also if it is a change of a class, or a second airing, which are kept under ids that no message can have."""
    wanted = strategies.booking("c-1")
    with transaction(teacher_engine) as connection:
        bookings.add(connection, [(strategies.booking("c-0"), BookingState.READY)], NOW - 1)
        bookings.add(connection, [(wanted.under(its), BookingState.PLACED)], NOW)
        found = bookings.latest_payload(connection, 6666)
        assert bookings.latest_payload(connection, 7777) is None
    assert Booking.model_validate_json(found or "") == wanted


# Who only looks needs no key, makes no file, changes no file, and is told in words what is not there.


LOOKING = (("status",), ("explain", "c-1"), ("cache", "ls"), ("status", "--json"))


@pytest.mark.parametrize("arguments", LOOKING, ids=" ".join)
def test_in_an_empty_folder_it_says_so_and_leaves_nothing_there(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = lectern(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "database is not there" in done.stderr
    assert "lectern init" in done.stderr
    assert "TRANSCODE_SIGN_KEY" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", LOOKING, ids=" ".join)
def test_a_file_without_our_tables_is_named_and_not_changed(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    for name in ("teacher.db", "task_list.db"):
        with closing(sqlite3.connect(tmp_path / name)) as made:
            made.execute("CREATE TABLE other (x)")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    done = lectern(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "database of this release (no such table: " in done.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_looking_leaves_the_journal_mode_and_no_other_file(tmp_path: Path, mode: str) -> None:
    roles: tuple[tuple[schema.Role, str], ...] = (("teacher", "teacher.db"), ("streamer", "task_list.db"))
    for role, name in roles:
        laid.database(role, tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name)) as made:
            assert made.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0] == mode
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"teacher.db", "task_list.db"}
    for arguments in LOOKING:
        done = lectern(tmp_path, *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        assert "Redis does not answer" in done.stderr or arguments[0] != "status"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_without_redis_status_tells_what_the_database_knows_and_exits_1(tmp_path: Path) -> None:
    laid.database("teacher", tmp_path / "teacher.db")
    done = lectern(tmp_path, "status")
    assert done.returncode == 1
    assert "inbox       0 messages wait" in done.stdout
    assert "Redis does not answer" in done.stderr


def test_somebody_who_may_only_read_a_database_can_look(tmp_path: Path) -> None:
    source = tmp_path / "made.db"
    laid.database("teacher", source)
    with closing(sqlite3.connect(source)) as made:
        made.execute("PRAGMA journal_mode = delete")
    (tmp_path / "read").mkdir()
    copy = Path(shutil.copy(source, tmp_path / "read" / "teacher.db"))
    copy.chmod(0o400)
    done = lectern(tmp_path, "status", "--json", TEACHER_DATABASE_URL=f"sqlite:///{copy}")
    assert '"inbox": 0' in done.stdout, done.stderr


@pytest.mark.live
@pytest.mark.parametrize("is_full", [False, True], ids=["reader gone, as with head", "disk full"])
@pytest.mark.parametrize("typed", ["status --json", "book --example", "--version", "report --help"])
def test_what_cannot_be_written_is_an_end_in_words(tmp_path: Path, is_full: bool, typed: str) -> None:
    laid.database("teacher", tmp_path / "teacher.db")
    reading, taking = os.pipe()
    os.close(reading)
    if is_full:
        os.close(taking)
        taking = os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run(
        [*LECTERN, *typed.split()],
        env=SETTINGS,
        cwd=tmp_path,
        stdout=taking,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(taking)
    assert "Traceback" not in done.stderr
    assert not is_full or "could not be written: No space left on device" in done.stderr
    assert done.returncode == 1
