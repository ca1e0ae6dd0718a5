"""The work of a booking, one message a transaction, as a task of a peer does it: the product's own decision and rows.

A peer's broker keeps the message until its task is done, which spares it the inbox and the outbox: of the rows only
those of the class and its events are written. The teacher and the streamer have a database each, as in the product.
"""

import os
import time
from functools import cache

import redis
from sqlalchemy import Connection, Engine

from lectern.db import airings, bookings, transcodings
from lectern.db import cache as cached
from lectern.db.engine import open_database, transaction
from lectern.db.writer import write
from lectern.decide import booking as decide_booking
from lectern.decide import reports
from lectern.decide.placement import proceed
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables import streamer as streamer_tables
from lectern.model.tables import teacher as teacher_tables
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import AiringState, BookingState, FileState, RenditionState
from lectern.wire.messages import Booking, Message, Prepare, Report
from lectern.wire.parser import parse

STREAMER = "streamer1"
SETTINGS = TeacherSettings.load(_env_file=None, transcode_sign_key="made-up")
OF_STREAMER = StreamerSettings.load(_env_file=None, streamer_name=STREAMER)


@cache
def bus() -> "redis.Redis":
    """The connection on which answers are published."""
    return redis.Redis.from_url(os.environ["BENCH_REDIS"])


@cache
def database(role: str) -> Engine:
    """The database of the teacher or the streamer."""
    return open_database(f"sqlite:///{os.environ['BENCH_FOLDER']}/{role}.db")


def make(timed_out: int, ready: list[int]) -> None:
    """Both databases with their tables: one rendition that timed out, and some that the streamer has."""
    teacher_tables.TeacherTable.metadata.create_all(database("teacher"))
    streamer_tables.StreamerTable.metadata.create_all(database("streamer"))
    with transaction(database("teacher")) as connection:
        values = {"record_id": timed_out, "resolution": "720P", "status": RenditionState.TIMED_OUT, "attempts_since": 0}
        connection.execute(teacher_tables.videos.insert().values(**values, attempt=1, attempts_today=1))
    with transaction(database("streamer")) as connection:
        rows = [{"id": str(one), "num_cite": 0, "state": FileState.READY, "size_bytes": 1000} for one in ready]
        connection.execute(streamer_tables.files.insert(), rows)


def order(body: str) -> str | None:
    """Decide a booking; returns what its streamer is told, None if it was answered at once."""
    booking, now = parse(body, (Booking,)), time.time()
    with transaction(database("teacher")) as connection:
        changes = Changes(SETTINGS, now, orders=bookings.by_id(connection, [booking.class_id]))
        states = transcodings.states(connection, [booking.key] if booking.key else [])
        before = decide_booking.BookingFacts(changes.orders, states)
        (verdict,) = decide_booking.plan([booking], before, SETTINGS, now)
        if isinstance(verdict, str):
            return None
        taken = changes.book(booking)
        if verdict.state is BookingState.PLACED:
            proceed(changes, [(taken, verdict.url or "")], bookings.loads(connection, now, [STREAMER]))
        else:
            assert verdict.code is not None, f"{booking.class_id} is {verdict.state}, which no benchmark asks for"
            changes.refuse(taken, verdict.code, verdict.message)
        (said,) = _written(connection, changes)
    if verdict.state is BookingState.PLACED:
        return said.to_json()
    bus().publish(os.environ["BENCH_ANSWERS"], said.to_json())
    return None


def _written(connection: Connection, changes: Changes) -> list[Message]:
    """Write all but the outbox; returns what would be in it."""
    said = [one.message for one in changes.sends]
    changes.sends.clear()
    write(connection, changes)
    return said


def prepare(body: str) -> str:
    """The streamer's part: the class cites its rendition, which is there; returns what the teacher is told."""
    wanted, now = parse(body, (Prepare,)), time.time()
    with transaction(database("streamer")) as connection:
        assert wanted.class_id not in airings.by_id(connection, [wanted.class_id])
        assert wanted.stem in cached.by_stem(connection, [wanted.stem])
        changes = StreamerChanges(OF_STREAMER, now)
        changes.admit(wanted, AiringState.READY)
        changes.note("prepare: cached already", wanted)
        write(connection, changes)
    said = Report(cmd="prepared", class_id=wanted.class_id, streamer=STREAMER, result="success", message="cached")
    return said.to_json()


def report(body: str) -> None:
    """Answer a class that its streamer has prepared."""
    said, now = parse(body, (Report,)), time.time()
    with transaction(database("teacher")) as connection:
        changes = Changes(SETTINGS, now, orders=bookings.by_id(connection, [said.class_id]))
        reports.take(changes, said, reports.NO_FACTS)
        (answer,) = _written(connection, changes)
    bus().publish(os.environ["BENCH_ANSWERS"], answer.to_json())
