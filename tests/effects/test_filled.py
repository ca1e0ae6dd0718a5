"""What a host does again and again costs the same with months of rows in its tables as with few."""

import math
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import Connection, Engine

from benchmarks import streamer as benchmark
from benchmarks.filled import fill
from flows.handling import change
from flows.host import StreamerHost
from flows.streamer import prepare
from flows.streamer.readiness import word
from flows.teacher import maintenance
from lectern.db import account, airings, bookings, cache, inbox, leases, metrics, outbox, retention, transcodings
from lectern.db.engine import opened, transaction
from lectern.db.events import feed
from lectern.db.retention import RowsBefore
from lectern.db.timetable import Span, begins_in, classes, due, next_class, outcomes, status_of_teacher, waiting
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.storage.origin import RemoteFile
from tests import laid, rows, strategies

NEAR = 1000
SOME, MANY = 3000, 9000
"""The number of the oldest rows that are looked at here, more than that, and three times as many."""

DAY_S = 86_400.0


def steps(engine: Engine, look: Callable[..., object], *its: object) -> int:
    """How many hundred instructions of SQLite's a look takes: unlike seconds, they do not depend on the machine."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    with transaction(engine) as connection:
        driver = cast("sqlite3.Connection", connection.connection.driver_connection)
        driver.set_progress_handler(count, 100)
        look(connection, *its)
        driver.set_progress_handler(None, 0)
    return counted


def day(now: float) -> Span:
    return Span(now, now + DAY_S, None)


def forgotten(connection: Connection, now: float) -> None:
    before = RowsBefore(now - 30 * DAY_S, now - 300 * DAY_S, now - 300 * DAY_S, now - 900 * DAY_S, now)
    for rule in retention.of_teacher(before):
        retention.outdated(connection, rule)


def swept(connection: Connection, now: float) -> None:
    transcodings.overdue(connection, now)
    transcodings.forgotten_requests(connection, now, now)
    transcodings.ownerless(connection, now, now)
    changes = Changes(strategies.transcoders(order_warn_time_out_s=100), now)
    maintenance.overlooked(math.inf)(connection, changes)


def claim(connection: Connection, host: StreamerHost) -> None:
    """A class comes that needs another rendition, for which one has to go."""
    wanted = rows.prepare("c-1", 10_000_000, time.time() + 900)
    remote = RemoteFile(url=wanted.video_url, size_bytes=benchmark.SIZE_BYTES, etag=None, crc64=None)

    def go(connection: Connection, changes: StreamerChanges) -> None:
        prepare.admit(connection, changes, [wanted], {wanted.stem: remote})

    assert len(change(connection, host, go).evicted) == 1


TEACHERS: Mapping[str, Callable[[Connection, float], object]] = {
    "/metrics": lambda connection, _: metrics.exposition("teacher", "t", connection),
    "status": lambda connection, now: status_of_teacher(connection, now, "t"),
    "explain": lambda connection, _: account.at_teacher(connection, "t", f"old{SOME}-17"),
    "the timetable": due,
    "what a sweep finds": swept,
    "the next deadline": transcodings.next_deadline,
    "the loads": bookings.loads,
    "what is to be sent": lambda connection, now: outbox.claim(connection, "t", limit=100, now=now),
    "what is forgotten": forgotten,
    "what no run shows": lambda connection, _: inbox.unrecorded(connection, 10),
    "what people are to hear": lambda connection, _: outbox.people_due(connection, 1),
    "the next class": next_class,
    "a day's classes": lambda connection, now: classes(connection, begins_in(day(now)), 200),
    "what became of them": lambda connection, now: outcomes(connection, day(now)),
    "who waits": lambda connection, now: waiting(connection, now, None, 50),
    "what is not ended": bookings.unended,
    "what is not ready": lambda connection, now: bookings.unready(connection, now, now, now + 600),
    "the feed of an institution without events": lambda connection, _: feed(connection, 0, "i-1", 10),
    "who has claimed": lambda connection, _: leases.claiming_teachers(connection),
    "freeing what a dead one had": lambda connection, _: leases.free_claims(connection, "a", "b"),
}
STREAMERS: Mapping[str, Callable[[Connection, StreamerHost], object]] = {
    "what a streamer's sweep finds": lambda connection, _: airings.over(connection, time.time()),
    "what is to be evicted": lambda connection, _: cache.evicting(connection),
    "which recording is looked through next": lambda connection, _: airings.unlooked(connection, time.time()),
    "which dead air is told": lambda connection, _: airings.untold_faults(connection, time.time()),
    "the downloads": lambda connection, _: cache.downloading(connection),
    "the file of an evicted rendition is gone": lambda connection, _: cache.forget(connection, ["17"]),
}


CLAIM = "a claim that evicts"


def booked(host: StreamerHost, number: int) -> None:
    """So many classes of next week, each with a recording of its own."""
    begins = time.time() + 7 * DAY_S
    with transaction(host.engine) as connection:
        its = [(f"booked-{i}", begins + i, begins + i + 900) for i in range(number)]
        connection.exec_driver_sql("insert into task_list (class_id, start_time, end_time) values (?, ?, ?)", its)
        cites = [(f"booked-{i}", f"booked-{i}", "ready", 1) for i in range(number)]
        connection.exec_driver_sql(
            "insert into class_list (class_id, video_id, state, placement) values (?, ?, ?, ?)", cites
        )


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """What each look takes with some rows, and with many."""
    found = defaultdict[str, list[int]](list)
    path = laid.database("teacher", tmp_path_factory.mktemp("filled") / "teacher.db")
    with pytest.MonkeyPatch.context() as patch, opened(f"sqlite:///{path}") as engine:
        patch.setattr(retention, "OLDEST", NEAR)
        for number in (SOME, MANY - SOME):
            with sqlite3.connect(path) as connection:
                fill(connection.execute, number, number, prefix=f"old{number}")
                those = f"from order_list where class_id like 'old{number}-%'"
                told = "(class_id, institution_id, at, seq, event, body) select class_id, 'i', end_time, 1, 'ended', ''"
                moved = "(class_id, streamer, placement, moved_at) select class_id, 's1', 1, end_time"
                connection.execute(f"insert into class_event_list {told} {those}")
                connection.execute(f"insert into move_list {moved} {those}")
            for name, look in TEACHERS.items():
                twice = [steps(engine, look, time.time()) for _ in range(2)]
                found[name].append(twice[1])  # the first one makes what the others find
    for number in (SOME, MANY):
        folder: Path = tmp_path_factory.mktemp(f"cache-{number}")
        with benchmark.host(folder, number) as host:
            benchmark.fill(host, [str(i) for i in range(1, number + 1)])
            for name, its in STREAMERS.items():
                found[name].append(steps(host.engine, its, host))
            booked(host, number)  # the looks at all classes to come, once in a while, may go through these
            found[CLAIM].append(steps(host.engine, claim, host))
    return found


@pytest.mark.parametrize("what", [*TEACHERS, *STREAMERS, CLAIM])
def test_it_takes_no_longer_with_three_times_the_rows(taken: dict[str, list[int]], what: str) -> None:
    some, many = taken[what]
    assert many <= 1.2 * some + 20


def test_classes_of_tomorrow_are_not_read_with_each_heartbeat(streamer: StreamerHost) -> None:
    now, taken = time.time(), []
    for begins, number in ((now - 60, 3), (now + DAY_S, 200), (now + 2 * DAY_S, 2000)):
        with transaction(streamer.engine) as connection:
            for one in range(number):
                rows.bare(connection, f"c-{begins:.0f}-{one}", begins)
        assert rows.look(streamer.engine, word, streamer.settings, now).due == 3
        taken.append(steps(streamer.engine, word, streamer.settings, now))
    # What is left are two looks at the state and the start of each class, and at the faults of its recording: 0.3 each.
    # A row that is read takes twice as much.
    assert taken[2] - taken[1] < 2000 * 0.7
