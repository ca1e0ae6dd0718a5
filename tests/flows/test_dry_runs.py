"""A dry run of any flow of the teacher shows, line by line, what the run then writes; and it writes nothing itself."""

import json
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, cast

import pytest
from prefect.client.schemas.objects import State
from redis.exceptions import ConnectionError as RedisAway
from sqlalchemy import Connection, Engine, select, update

from flows.teacher import membership, transcoding
from flows.teacher.bookings import booking, change, report
from flows.teacher.maintenance import sweep_teacher
from flows.teacher.membership import move
from flows.teacher.transcoding import settle
from lectern.db import bookings, inbox, transcodings
from lectern.db.engine import transaction
from lectern.db.inbox import ReceivedMessage
from lectern.db.writer import write
from lectern.decide import leases
from lectern.errors import ForbiddenMove, Misuse, TryAgain
from lectern.model.facts import Attempt
from lectern.model.plan import Changes
from lectern.model.tables.teacher import TeacherTable, orders
from lectern.states import Backend, BookingState, Resolution
from lectern.wire.messages import Booking, Cancel, Change, Message, Report
from tests import rows, strategies
from tests.faults import hosts
from tests.faults.turns import Quiet
from tests.rows import commit
from tests.stage.dry_runs import Alone, says

KEY = (6666, Resolution.P720)
ONE, OTHER = hosts.ALIVE


class Away(Quiet):
    """A Redis that does not answer."""

    async def alive(self, *_: object) -> list[str]:
        raise RedisAway("no route to Redis")


class Silent(Quiet):
    """A Redis in which the first streamer has not been heard of for a long time."""

    at = time.time() - 1000

    async def heard(self, _key: str) -> tuple[float, dict[str, dict[str, Any]], dict[str, Any]]:
        return time.time(), {ONE: {"at": self.at}}, {}


class Stage(Alone):
    """A teacher without processes."""

    def comes(self, *messages: Message | str) -> str:
        """Messages come into the inbox; returns their ids."""
        bodies = [one if isinstance(one, str) else one.to_json() for one in messages]
        arrived = [ReceivedMessage("test", json.loads(body).get("cmd", "order"), body) for body in bodies]
        with transaction(self.host.engine) as connection:
            before = self.host.journal.inbox.c.id
            last = connection.execute(select(before).order_by(before.desc()).limit(1)).scalar() or 0
            inbox.keep(connection, self.host.journal, arrived, time.time())
        return inbox.format_id_ranges(range(last + 1, last + 1 + len(bodies)))

    def placed(self, class_id: str, *, ready: bool = False, start_in_s: float = 3600) -> None:
        """A class is on the first streamer."""
        url = "http://origin.example/6666_720P.flv"
        rows.placed(self.host, booked(class_id, start_in_s), ONE, url, ready=ready)


@pytest.fixture
def dry_run(teacher_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(hosts.teacher(teacher_engine), TeacherTable.metadata)
    made.watch(monkeypatch)
    return made


def booked(class_id: str, start_in_s: float = 3600, **fields: Any) -> Booking:
    start = time.time() + start_in_s
    mine = {"start_time": start, "end_time": start + 600, "push_url": f"rtmp://push.example/live/{class_id}"}
    return strategies.booking(class_id, **mine, **fields)


def under_way(stage: Stage, deadline_in_s: float) -> None:
    """A transcoding that two classes wait for."""
    now = time.time()
    attempt = Attempt(*KEY, 1, 1, now, Backend.OSS, now + deadline_in_s, "http://origin.example/6666.flv")
    changes = Changes(stage.host.settings, now)
    for class_id in ("c-1", "c-2"):
        changes.move(changes.book(booked(class_id)), BookingState.WAITING)
    with transaction(stage.host.engine) as connection:
        transcodings.begin(connection, [attempt], now)
        transcodings.requested(connection, KEY, now)
        write(connection, stage.host.journal, changes)


def agree(stage: Stage, key: str, flow: Callable[..., Coroutine[Any, Any, State[None]]]) -> list[str]:
    """The dry run shows what the run after it writes; returns that."""
    shown, written = stage.agree(key, flow)
    assert shown == written != []
    return written


def test_of_bookings_and_cancels(dry_run: Stage) -> None:
    dry_run.placed("c-0")
    listed = booked("c-1", video_url_list={"720P": "http://origin.example/6666_720P.flv"})
    messages: list[Message | str] = [
        listed,
        booked("c-2"),
        booked("c-3", start_in_s=-9000),
        listed,
        Cancel(class_id="c-0"),
        '{"cmd":"order"}',
        Cancel(class_id="c-0"),
    ]
    ids = dry_run.comes(*messages)
    said = agree(dry_run, "booking", lambda **options: booking.fn(ids, **options))
    assert says(
        said, "class_id: c-1 … state: placed", "class_id: c-2 … state: waiting", "class_id: c-3 … state: refused"
    )
    assert says(said, "class_id: c-1 … deliveries: 2", "c-0: … state: placed -> cancelled")
    assert says(said, "cancel of a class that is cancelled")
    assert "to order_result: order_result c-3" in said
    assert {"6666_720P: oss transcoding, attempt 1", "to alarm: alarm 504", "inbox 6: dead"} <= set(said)


def test_of_changes(dry_run: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.teacher.bookings.BOOKING_S", 0.0)  # the booking of c-9 does not come
    under_way(dry_run, 600)
    dry_run.placed("c-5", ready=True)
    ids = dry_run.comes(
        Change(class_id="c-5", end_time=time.time() + 9000),
        Change(class_id="c-1", push_url="rtmp://push.example/live/other"),
        Change(class_id="c-9", end_time=time.time() + 9000),
        '{"cmd":"change","class_id":"c-5"}',
    )
    said = agree(dry_run, "change", lambda **options: change.fn(ids, **options))
    assert says(said, "class_id: c-5^1 … state: placed", "order_list c-1: … payload, ")
    assert {"to change_result: change_result c-9", "inbox 4: dead"} <= set(said)


def test_of_a_change_by_hand(dry_run: Stage) -> None:
    dry_run.placed("c-5", ready=True)
    end = time.time() + 9000
    said = agree(dry_run, "change", lambda **options: change.fn(class_id="c-5", end_time=end, **options))
    assert says(said, "class_id: c-5^1 … state: placed")
    with pytest.raises(Misuse, match="nothing is to be changed"):
        dry_run.run(lambda: change.fn(class_id="c-5"))


def test_of_reports(dry_run: Stage) -> None:
    dry_run.placed("c-1")
    dry_run.placed("c-2")
    dry_run.placed("c-3", ready=True)
    common: dict[str, Any] = {"streamer": ONE, "placement": 1}
    ids = dry_run.comes(
        Report(cmd="prepared", class_id="c-1", result="success", **common),
        Report(cmd="prepared", class_id="c-2", result="fail", code=318, message="404", **common),
        Report(cmd="ended", class_id="c-3", result="fail", code=321, message="cut", **common),
    )
    said = agree(dry_run, "report", lambda **options: report.fn(ids, **options))
    assert says(
        said, "c-1: … state: placed -> ready", "c-2: … state: placed -> refused", "c-3: … state: ready -> broken"
    )
    assert {"to order_result: order_result c-1", "to alarm: alarm 321 c-3"} <= set(said)


def test_of_results(dry_run: Stage) -> None:
    under_way(dry_run, 600)
    ids = dry_run.comes(strategies.result(success=True))
    said = agree(dry_run, "settle", lambda **options: settle.fn(ids, **options))
    assert says(said, "video_list 6666 720P: status: transcoding -> success", "c-1: … state: waiting -> placed")


def test_of_a_sweep(dry_run: Stage) -> None:
    under_way(dry_run, -600)
    dry_run.placed("c-8", ready=True, start_in_s=-9000)
    dry_run.placed("c-9")
    late = update(orders).where(orders.c.class_id == "c-9").values(updated_at=time.time() - 1000)
    commit(dry_run.host.engine, Connection.execute, late)
    said = agree(dry_run, "sweep", sweep_teacher.fn)
    assert says(said, "6666 720P: status: transcoding -> timed out", "c-1: … state: waiting -> refused")
    assert says(said, "c-8: … state: ready -> broken", "order_list c-9: updated_at")
    assert f"to streamer:{ONE}: prepare c-9" in said


def test_of_a_move(dry_run: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "NOTICE_S", 0.05)
    monkeypatch.setattr(membership, "SILENT_LOOK_S", 0.05)
    dry_run.host.bus = cast("Any", Silent())
    dry_run.host.heard_at[OTHER] = time.monotonic(), ""  # by the roll, which listens beside each run
    dry_run.placed("c-1", ready=True)
    commit(dry_run.host.engine, rows.granted, ONE, "session", 45, time.time())
    said = agree(dry_run, "move", lambda **options: move.fn(ONE, **options))
    assert says(
        said, "c-1: … state: ready -> placed", f"move_list … streamer: {ONE}", f"streamer_list {ONE} … session: none"
    )
    assert {f"to streamer:{ONE}: release c-1", f"to streamer:{OTHER}: prepare c-1"} <= set(said)


def test_of_transcodings_that_are_asked_for_and_made(dry_run: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """These two do their work outside: they say what they would begin."""
    monkeypatch.setattr(transcoding, "run_id", lambda: "run")
    under_way(dry_run, 600)
    with transaction(dry_run.host.engine) as connection:
        transcodings.begin(connection, [Attempt(7, KEY[1], 1, 1, 0.0, Backend.OSS, 9e9, "http://o/7.flv")], time.time())
    before = dry_run.rows()
    asked = dry_run.run(lambda: transcoding.request.fn([(7, "720P"), (6666, "720P")], dry_run=True))
    assert asked == "dry run: would ask for 7 720P"
    assert dry_run.run(lambda: transcoding.transcode.fn(7, ["720P"], dry_run=True)).startswith(
        "dry run: would make 720P"
    )
    assert dry_run.rows() == before


FLOWS: dict[Any, list[Any]] = {
    booking: [booked("c-5", start_in_s=1e6)],
    report: [Report(cmd="prepared", class_id="c-1", streamer=ONE, result="success")],
    settle: [strategies.result(success=True)],
    sweep_teacher: [],
    move: [ONE],
}


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_with_redis_away_nothing_is_written_either(dry_run: Stage, flow: Any) -> None:
    under_way(dry_run, -600)
    dry_run.host.bus = cast("Any", Away())
    given = [dry_run.comes(one) if isinstance(one, Message) else one for one in FLOWS[flow]]
    before = dry_run.rows()
    with suppress(TryAgain):
        dry_run.run(lambda: flow.fn(*given, dry_run=True))
    assert dry_run.rows() == before


def test_a_booking_that_is_not_as_it_was_read_is_not_written(dry_run: Stage) -> None:
    """Another transaction has changed it since."""
    dry_run.placed("c-1")
    with transaction(dry_run.host.engine) as connection:
        changes = Changes(dry_run.host.settings, time.time())
        changes.learn(bookings.by_id(connection, ["c-1"]))
        connection.execute(update(orders).values(streamer=OTHER))
        changes.place(changes.orders["c-1"], ONE, "http://origin.example/other.flv")
        write(connection, dry_run.host.journal, changes)
        changes.place(changes.orders["c-1"], "s9", "http://origin.example/6666_720P.flv")
        with pytest.raises(ForbiddenMove, match="order_list"):
            write(connection, dry_run.host.journal, changes)
