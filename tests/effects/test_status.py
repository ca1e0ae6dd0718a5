"""What is read of a database for people; and what its errors do not say."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Connection, Engine, NullPool, QueuePool, insert
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError

from lectern.db import account, bookings, engine, events, timetable
from lectern.db.engine import open_database, reading, transaction, writing
from lectern.errors import LecternError, Misuse
from lectern.model.facts import Event
from lectern.model.tables.teacher import orders, videos
from lectern.states import AiringState, BookingState, Role
from lectern.wire.messages import Booking
from tests import laid, rows, strategies
from tests.rows import commit, look, order
from tests.stage.children import LECTERN
from tests.strategies import NOW
from tests.typed import SETTINGS, lectern

row = partial(order, start_s=0, end_s=600, payload='{"push_url": "rtmp://push/secret-stream"}')


def test_an_error_of_the_database_says_nothing_of_what_was_written(teacher_engine: Engine) -> None:
    """Its text goes into logs and states of runs; a booking's push URL is a key to the live service."""
    with (
        pytest.raises(LecternError, match=r"cannot be written: .*(?i:unique)") as told,
        writing(teacher_engine, "t") as connection,
    ):
        connection.execute(insert(orders), [row("a", "ready"), row("a", "ready")])
    assert not isinstance(told.value, Misuse)
    assert "order_list" in str(told.value.__cause__)
    assert "secret-stream" not in f"{told.value} {told.value.__cause__}"


@pytest.mark.parametrize(
    ("state", "kind", "passes"),
    [("25P03", InternalError, True), ("25P03", OperationalError, False), ("23505", InternalError, False)],
)
def test_what_passes_by_itself_is_a_database_that_is_away(state: str, kind: type[DBAPIError], *, passes: bool) -> None:
    """The driver calls an ended session a fault of the program, for which nobody would try again."""
    error = type("Ended", (Exception,), {"sqlstate": state})()
    its = {"original_exception": error, "sqlalchemy_exception": kind("", None, Exception()), "statement": ""}
    with pytest.raises(OperationalError) if passes else nullcontext():
        engine._pass(cast("Any", SimpleNamespace(**its, is_disconnect=True)))


def test_of_a_class_people_read_whether_it_is_answered_and_where_it_goes_without_the_key(
    teacher_engine: Engine, streamer_engine: Engine
) -> None:
    with transaction(teacher_engine) as connection:
        several = [row(one, "ready", answered_at=at) for one, at in (("told", NOW), ("untold", None))]
        connection.execute(insert(orders), several)
        found = [account.at_teacher(connection, "t", one).booked for one in ("told", "untold")]
    assert [one is not None and one.answered for one in found] == [True, False]
    with transaction(streamer_engine) as connection:
        rows.add(connection, rows.prepare("c-1", 1, NOW, push_url="rtmp://push/secret"), AiringState.READY, "", NOW)
        cited = account.at_streamer(connection, "s", "c-1").cited
    for one in (*found, cited):
        assert one is not None
        assert (one.push_url or "").startswith("rtmp://push")
        assert "secret" not in str(one)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("mysql://root:hidden@host/db", "mysql: lectern keeps no rows there"),
        ("postgresql+asyncpg://u:hidden@host/db", r"postgresql\+asyncpg: lectern does not use this driver"),
        ("postgresql+psycopg2://u:hidden@host/db", r"postgresql\+psycopg2: lectern does not use this driver"),
        ("postgresql://u:hidden@host", "names no database"),
        ("postgresql://u:hidden@host:5432,other:5432/db", "The database URL is none"),
        ("no url://user:hidden@host/db", "The database URL is none"),
        ("sqlite:////no/such/folder/teacher.db", "its folder does not exist"),
    ],
)
def test_a_url_that_names_no_database_of_ours_is_refused_in_words(wrong: str, said: str) -> None:
    with pytest.raises(Misuse, match=said) as caught:
        open_database(wrong)
    assert "hidden" not in caught.value.message


def test_the_driver_is_named_with_what_to_type_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(Misuse, match=r'Type: pip install "lectern\[postgresql\]"'):
        open_database("postgresql://u@host/db")


def test_a_command_keeps_no_session_at_a_server_and_a_host_does() -> None:
    assert [type(open_database("postgresql://u@h/db", one).pool) for one in ("", "teacher")] == [NullPool, QueuePool]


def test_a_record_that_needed_no_transcoding_has_the_story_of_its_classes(teacher_engine: Engine) -> None:
    """And so has a recording that no record names."""
    with transaction(teacher_engine) as connection:
        for number, stem in enumerate(("6666", "6666_720P", "66660", "lesson-7", "lesson-7_2"), 1):
            events.note(connection, "teacher", [Event("waits", f"c-{number}", stem)], NOW)
    with reading(teacher_engine) as connection:

        def told(thing: str) -> list[str | None]:
            return [one.class_id for one in account.at_teacher(connection, "teacher", thing).events]

        assert {thing: told(thing) for thing in ("6666", "lesson-7", "6")} == {
            "6666": ["c-1", "c-2"],
            "lesson-7": ["c-4"],
            "6": [],
        }
        assert told("c-3") == ["c-3"]


def test_a_class_in_a_state_that_nobody_knows_hides_no_other_from_people(
    teacher_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has written it into the database, or a newer release has."""
    several = [row("c-1", "on the moon"), row("c-2", "placed")]
    commit(teacher_engine, Connection.execute, insert(orders), several)
    span, before = timetable.Span(NOW - 1, NOW + 1000, None), NOW - 50
    with reading(teacher_engine) as connection:
        following = timetable.next_class(connection, before)
        assert following is not None
        for seen in (
            timetable.classes(connection, timetable.begins_in(span), 10),
            [one for one, *_ in timetable.waiting(connection, before, None, 10)],
            timetable.planned(connection, span),
            timetable.page(connection, span, None, (0.0, ""), 1),
            [following],
        ):
            assert [one.class_id for one in seen] == ["c-2"]
    assert caplog.text.count("c-1: its booking cannot be read, and is passed over") == 2


def test_of_many_transcodings_all_are_counted_and_five_nearest_to_their_deadline_told(teacher_engine: Engine) -> None:
    common = {"resolution": "720P", "status": "transcoding", "attempt": 1, "backend": "oss"}
    rows = [{"record_id": one, "deadline": NOW + one if one > 1200 else None, **common} for one in range(1204, 0, -1)]
    commit(teacher_engine, Connection.execute, insert(videos), rows)
    found = look(teacher_engine, timetable.status_of_teacher, NOW, "teacher")
    assert found["under_way_number"] == 1204
    assert [one["slack_s"] for one in found["under_way"]] == [1201, 1202, 1203, 1204, None]


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
WRITING = (("drain",), ("drain", "--off"), ("cache", "evict", "6666"))


@pytest.mark.parametrize("arguments", [*LOOKING, *WRITING], ids=" ".join)
def test_what_is_not_there_is_said_and_nothing_is_made_or_changed(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """In an empty folder, or where the files have none of our tables."""
    done = lectern(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "database is not there" in done.stderr
    assert "lectern init" in done.stderr
    assert "TRANSCODE_SIGN_KEY" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    for name in ("teacher.db", "task_list.db"):
        with closing(sqlite3.connect(tmp_path / name)) as made:
            made.execute("CREATE TABLE other (x)")
    before = files(tmp_path)
    done = lectern(tmp_path, *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "database of this release (no such table: " in done.stderr
    assert files(tmp_path) == before or arguments in WRITING


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_looking_leaves_the_journal_mode_and_no_other_file(tmp_path: Path, mode: str) -> None:
    roles: tuple[tuple[Role, str], ...] = (("teacher", "teacher.db"), ("streamer", "task_list.db"))
    for role, name in roles:
        laid.database(role, tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name)) as made:
            assert made.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0] == mode
    before = files(tmp_path)
    assert set(before) == {"teacher.db", "task_list.db"}
    for arguments in LOOKING:
        done = lectern(tmp_path, *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        if arguments[0] == "status":
            assert ("Redis does not answer" in done.stderr, done.returncode) == (True, 1)
        assert "inbox       0 messages wait" in done.stdout or arguments != ("status",)
    assert files(tmp_path) == before


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
