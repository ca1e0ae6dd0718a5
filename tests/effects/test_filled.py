"""What a teacher does again and again costs the same with months of classes in its tables as with few."""

import sqlite3
import time
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Connection

from benchmarks.filled import fill
from flows.teacher import maintenance
from lectern.db import account, bookings, inbox, leases, metrics, outbox, retention, timetable, transcodings
from lectern.db.engine import open_database
from lectern.db.retention import RowsBefore
from lectern.model.plan import Changes
from lectern.model.tables.teacher import journal
from lectern.settings import TeacherSettings
from tests.effects.sqlite_steps import steps
from tests.faults import hosts

NEAR = 1000
SOME, MANY = 3000, 9000
"""The number of the oldest rows that are looked at here, more than that, and three times as many."""

DAY_S = 86_400.0
SETTINGS = TeacherSettings.load(_env_file=None, transcode_sign_key="made-up", order_warn_time_out_s=100)


def forgotten(connection: Connection, now: float) -> None:
    before = RowsBefore(now - 30 * DAY_S, now - 300 * DAY_S, now - 300 * DAY_S, now - 900 * DAY_S)
    for rule in retention.of_teacher(before):
        retention.outdated(connection, rule)


def swept(connection: Connection, now: float) -> None:
    transcodings.overdue(connection, now)
    transcodings.forgotten_requests(connection, now, now)
    transcodings.ownerless(connection, now, now)
    maintenance.overlooked(connection, Changes(SETTINGS, now))


LOOKS: dict[str, Callable[[Connection, float], object]] = {
    "/metrics": lambda connection, _: metrics.exposition("teacher", "t", connection),
    "status": timetable.status_of_teacher,
    "explain": lambda connection, _: account.at_teacher(connection, "t", f"old{SOME}-17"),
    "the timetable": timetable.due,
    "what a sweep finds": swept,
    "the next deadline": lambda connection, _: transcodings.next_deadline(connection),
    "the loads": bookings.having,
    "what is to be sent": lambda connection, now: outbox.claim(connection, journal, "t", limit=100, now=now),
    "what is forgotten": forgotten,
    "what no run shows": lambda connection, _: inbox.unrecorded(connection, journal, 10),
    "what people are to hear": lambda connection, _: outbox.people_due(connection, journal, 1),
    "who has claimed": lambda connection, _: leases.claiming_teachers(connection),
    "freeing what a dead one had": lambda connection, _: leases.free_claims(connection, "a", "b"),
}


def _look(look: Callable[[Connection, float], object], connection: Connection) -> None:
    look(connection, time.time())


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(retention, "OLDEST", NEAR)
    path = hosts.database("teacher", tmp_path_factory.mktemp("filled") / "teacher.db")
    engine = open_database(f"sqlite:///{path}")
    found: dict[str, list[int]] = {name: [] for name in LOOKS}
    for number in (SOME, MANY - SOME):
        with sqlite3.connect(path) as connection:
            fill(connection.execute, number, number, prefix=f"old{number}")
        for name, look in LOOKS.items():
            twice = [steps(engine, partial(_look, look)) for _ in range(2)]
            found[name].append(twice[1])  # the first one makes what the others find
    engine.dispose()
    monkeypatch.undo()
    return {name: (some, many) for name, (some, many) in found.items()}


@pytest.mark.parametrize("what", list(LOOKS))
def test_it_takes_no_longer_with_three_times_the_rows(taken: dict[str, tuple[int, int]], what: str) -> None:
    some, many = taken[what]
    assert many <= 1.2 * some + 20
