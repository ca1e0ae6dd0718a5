"""A dry run of any flow of the teacher shows, line by line, what the run then writes; and it writes nothing itself."""

import time
from collections.abc import Callable, Coroutine
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from redis.exceptions import ConnectionError as RedisAway
from sqlalchemy import Connection, Engine, update

from flows.teacher import bookings as teacher_bookings
from flows.teacher import membership, transcoding
from flows.teacher.bookings import booking, change, report
from flows.teacher.maintenance import sweep_teacher
from flows.teacher.membership import move
from flows.teacher.transcoding import settle
from lectern.db import bookings
from lectern.decide import leases
from lectern.errors import Misuse, TryAgain
from lectern.model.tables.teacher import TeacherTable, orders
from lectern.states import BookingState, Resolution
from lectern.wire.messages import Cancel, Change, Report
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

    def placed(self, class_id: str, *, ready: bool = False, in_s: float = 3600) -> None:
        """A class is on the first streamer."""
        rows.placed(self.host, hosts.booking(class_id, in_s), ONE, ready=ready)


@pytest.fixture
def dry_run(teacher_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(hosts.teacher(teacher_engine), TeacherTable.metadata)
    made.watch(monkeypatch)
    return made


def under_way(stage: Stage, in_s: float) -> None:
    """A transcoding that two classes wait for."""
    wait = [(hosts.booking(one), BookingState.WAITING) for one in ("c-1", "c-2")]
    commit(stage.host.engine, bookings.add, wait, time.time())
    commit(stage.host.engine, rows.begin, KEY, in_s=in_s, requested=True)


def agree(stage: Stage, key: str, flow: Callable[..., Coroutine[Any, Any, State[None]]]) -> list[str]:
    """The dry run shows what the run after it writes; returns that."""
    shown, written = stage.agree(key, flow)
    assert shown == written != []
    return written


def test_of_bookings_and_cancels(dry_run: Stage) -> None:
    dry_run.placed("c-0")
    listed = hosts.booking("c-1", video_url_list={"720P": "http://origin.example/6666_720P.flv"})
    cancel, late = Cancel(class_id="c-0"), hosts.booking("c-3", in_s=-9000)
    ids = rows.comes(dry_run.host, listed, hosts.booking("c-2"), late, listed, cancel, '{"cmd":"order"}', cancel)
    said = agree(dry_run, "booking", lambda **options: booking.fn(ids, **options))
    states = {"c-1": "placed", "c-2": "waiting", "c-3": "refused"}
    assert says(said, *(f"class_id: {one} … state: {state}" for one, state in states.items()))
    assert says(said, "class_id: c-1 … deliveries: 2", "c-0: … state: placed -> cancelled")
    assert {"6666_720P: oss transcoding, attempt 1", "to order_result: order_result c-3", "inbox 6: dead"} <= set(said)


def test_of_changes(dry_run: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.teacher.bookings.BOOKING_S", 0.0)  # the booking of c-9 does not come
    under_way(dry_run, 600)
    dry_run.placed("c-5", ready=True)
    ids = rows.comes(
        dry_run.host,
        Change(class_id="c-5", end_time=time.time() + 9000),
        Change(class_id="c-1", push_url="rtmp://push.example/live/other"),
        Change(class_id="c-9", end_time=time.time() + 9000),
        '{"cmd":"change","class_id":"c-5"}',
    )
    said = agree(dry_run, "change", lambda **options: change.fn(ids, **options))
    assert says(said, "class_id: c-5^1 … state: placed", "order_list c-1: … payload, ")
    assert {"to change_result: change_result c-9", "inbox 4: dead"} <= set(said)


def test_of_a_change_by_hand(dry_run: Stage) -> None:
    """If it cannot be made now it fails: nobody tries it again, as a message of the inbox is."""
    dry_run.placed("c-5", ready=True)
    end = time.time() + 9000
    said = agree(dry_run, "change", lambda **options: change.fn(class_id="c-5", end_time=end, **options))
    assert says(said, "class_id: c-5^1 … state: placed")
    with pytest.raises(Misuse, match="nothing is to be changed"):
        dry_run.run(lambda: change.fn(class_id="c-5"))
    dry_run.host.bus, dry_run.host.membership_cache = cast("Any", Away()), (-1e9, ())
    for is_dry in (True, False):
        with pytest.raises(TryAgain, match="heartbeats cannot be read"):
            dry_run.run(partial(change.fn, class_id="c-5", end_time=end, dry_run=is_dry))


def test_who_changes_a_class_by_hand_is_who_began_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert teacher_bookings._author() == "Prefect", "outside of a run"
    anna, nobody = (SimpleNamespace(display_value=name) for name in ("anna", None))
    runs = [None, *(SimpleNamespace(created_by=by) for by in (None, nobody, anna))]
    for run, who in zip(runs, (*["Prefect"] * 3, "anna"), strict=True):
        monkeypatch.setattr(FlowRunContext, "get", lambda run=run: SimpleNamespace(flow_run=run))
        assert teacher_bookings._author() == who


def test_of_reports(dry_run: Stage) -> None:
    dry_run.placed("c-1")
    dry_run.placed("c-2")
    dry_run.placed("c-3", ready=True)
    common: dict[str, Any] = {"streamer": ONE, "placement": 1}
    ids = rows.comes(
        dry_run.host,
        Report(cmd="prepared", class_id="c-1", result="success", **common),
        Report(cmd="prepared", class_id="c-2", result="fail", code=318, message="404", **common),
        Report(cmd="ended", class_id="c-3", result="fail", code=321, message="cut", **common),
    )
    said = agree(dry_run, "report", lambda **options: report.fn(ids, **options))
    assert says(
        said, "c-1: … state: placed -> ready", "c-2: … state: placed -> refused", "c-3: … state: ready -> broken"
    )
    assert {"to order_result: order_result c-1", "to alarm: alarm 321 c-3"} <= set(said)


def test_of_results(dry_run: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lectern")
    under_way(dry_run, 600)
    ids = rows.comes(dry_run.host, strategies.result(success=True))
    said = agree(dry_run, "settle", lambda **options: settle.fn(ids, **options))
    assert says(said, "video_list 6666 720P: status: transcoding -> success", "c-1: … state: waiting -> placed")
    assert "changes nothing" not in caplog.text, "it is neither late nor doubled"


def test_of_a_sweep(dry_run: Stage) -> None:
    under_way(dry_run, -600)
    dry_run.host.listens_since -= 3600  # so a report of what has ended would have come
    dry_run.placed("c-8", ready=True, in_s=-9000)
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


def test_of_transcodings_that_are_asked_for_and_made(dry_run: Stage) -> None:
    """These two do their work outside: they say what they would begin."""
    assert transcoding.run_id() != transcoding.run_id(), "what is done without a run is nobody else's"
    under_way(dry_run, 600)
    commit(dry_run.host.engine, rows.begin, (7, KEY[1]))
    before = dry_run.rows()
    asked = dry_run.run(lambda: transcoding.request.fn([(7, "720P"), (6666, "720P")], dry_run=True))
    assert asked == "dry run: would ask for 7 720P"
    assert dry_run.run(lambda: transcoding.transcode.fn(7, ["720P"], dry_run=True)).startswith(
        "dry run: would make 720P"
    )
    assert dry_run.rows() == before
