"""Runs of one process side by side: in whatever order their transactions come, each class is answered one way."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import Connection, select, text, update

from flows import artifacts
from flows.handling import BatchResult, Delivery
from flows.host import StreamerHost, TeacherHost
from flows.resident import maintenance as resident_maintenance
from flows.streamer import bandwidth, downloads, maintenance, prepare
from flows.streamer.readiness import Readiness
from flows.teacher import bookings as teacher_bookings
from flows.teacher import maintenance as teacher_maintenance
from flows.teacher import transcoding
from lectern.db import bookings, cache, inbox, transcodings
from lectern.db.engine import open_database, transaction
from lectern.db.inbox import ReceivedMessage
from lectern.errors import TryAgain
from lectern.model.facts import Attempt, InboxMessage, RemoteFile
from lectern.model.tables.streamer import files
from lectern.model.tables.teacher import journal, orders, videos
from lectern.states import Backend, BookingState, FileState, Resolution
from lectern.storage import cache_dir, disk
from lectern.wire.messages import Message
from lectern.wire.parser import command_of
from tests import rows, strategies
from tests.faults import hosts
from tests.faults.points import AT_START, STEPS, STREAMER, TEACHER, TEACHERS, owner_of
from tests.faults.turns import Stepped, run, stepped
from tests.rows import begin, commit, reserve, unsent
from tests.rows import prepare as prepared

Flow = Callable[[Any], Coroutine[Any, Any, object]]
Prepare = Callable[[Connection], Flow]
KEY = (6666, Resolution.P720)


def under_way(connection: Connection) -> None:
    """The rendition is being transcoded, its deadline passed so long ago that no result goes first, one class waits."""
    now = hosts.now()
    begin(connection, KEY, in_s=-transcoding.RESULTS_FIRST_S - 1, requested=True)
    bookings.add(connection, [(hosts.booking("c-0"), BookingState.WAITING)], now)


def faults(connection: Connection) -> list[str]:
    rows = {row.class_id: row for row in connection.execute(select(orders))}
    status = connection.execute(select(videos.c.status)).scalar_one()
    found = [
        f"{class_id} waits for a rendition that is {status}"
        for class_id, row in rows.items()
        if row.state == BookingState.WAITING and status != "transcoding"
    ]
    answers: dict[str, set[int]] = {}
    for row in connection.execute(select(journal.outbox).where(journal.outbox.c.target == "order_result")):
        answers.setdefault(row.class_id, set()).add(json.loads(row.body)["code"])
    found += [f"{class_id} is answered with {codes}" for class_id, codes in answers.items() if len(codes) > 1]
    told = [row.class_id for row in connection.execute(select(journal.outbox)) if row.target.startswith("streamer:")]
    found += [f"{class_id} is placed twice" for class_id in set(told) if told.count(class_id) > 1]
    found += [f"{class_id} is placed, and answered with {answers[class_id]}" for class_id in {*told} & {*answers}]
    found += [
        f"{class_id} is {row.state}, and nobody is told"
        for class_id, row in rows.items()
        if row.state == BookingState.REFUSED and class_id not in answers
    ]
    return found


def handles(flow: Any, make: Callable[[], Message]) -> Prepare:

    def prepare(connection: Connection) -> Flow:
        body = make().to_json()
        arrived = [ReceivedMessage("test", command_of(body), body)]
        (one,) = inbox.keep_claimed(connection, arrived, hosts.now(), 60)
        return lambda _: flow.fn(str(one.id))

    return prepare


def settles(**said: Any) -> Prepare:
    return handles(transcoding.settle, partial(strategies.result, **said))


def expires(_connection: Connection) -> Flow:
    """The sweeper's step that enforces deadlines."""
    return transcoding.time_out


def begins_anew(_connection: Connection) -> Flow:
    """The next attempt, by our own server; what came of the first one may still be said."""

    async def begin(host: Stepped) -> None:
        again = Attempt(*KEY, 2, 2, hosts.now(), Backend.ECS, hosts.now() + 600, "http://origin.example/6666.flv")
        await host.write_tx(transcodings.begin, [again], hosts.now())

    return begin


BOOKS, MADE, NOT_MADE = handles(teacher_bookings.booking, hosts.booking), settles(), settles(success=False)
OF_BEFORE = settles(success=False, type=Backend.ECS, attempt=1)
MANY = 20
"""More transactions than any run has."""
PAIRS: dict[str, tuple[Prepare, Prepare]] = {
    "wait and settle": (BOOKS, MADE),
    "wait and refuse": (BOOKS, NOT_MADE),
    "wait and time out": (BOOKS, expires),
    "settle and time out": (MADE, expires),
    "settle twice": (MADE, NOT_MADE),
    "the same booking twice": (BOOKS, BOOKS),
}


async def play(path: Path, pair: tuple[Prepare, Prepare], stop: int = MANY) -> tuple[list[str], int]:
    """Run the second whole before the transaction *stop* of the first, or after the first.

    Returns what is wrong then, and how many transactions the first had.
    """
    with hosts.opened("teacher", path) as engine:
        with transaction(engine) as connection:
            under_way(connection)
            first, second = (prepare(connection) for prepare in pair)
        host = stepped(engine)
        host.stops_before, host.meanwhile = stop, lambda: run(stepped(engine), second)
        await run(host, first)
        if host.transactions < stop:
            await host.meanwhile()
        return commit(engine, faults), host.transactions


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new file each time; the UI is not there."""
    monkeypatch.setattr(artifacts, "table", unsent)
    return (tmp_path / f"{number}.db" for number in range(1000))


@pytest.mark.parametrize("pair", PAIRS)
async def test_no_order_of_transactions_tears_what_belongs_together(paths: Iterator[Path], pair: str) -> None:
    """Each is stopped before each of its transactions, and the other runs to its end."""
    for one in (PAIRS[pair], PAIRS[pair][::-1]):
        wrong, number = await play(next(paths), one)
        assert (wrong, 1 < number < MANY) == ([], True)
        for stop in range(1, number + 1):
            assert (await play(next(paths), one, stop))[0] == []


async def test_a_sweep_begins_when_the_one_before_has_ended(teacher: TeacherHost) -> None:
    """Where Prefect is slow they would pile up, and each begin the same downloads again."""
    host, begun = stepped(teacher.engine), list[object]()

    async def others() -> None:
        await run(host, sweep)
        begun.append(await resident_maintenance.sweep(host, cast("Any", None)))
        raise asyncio.CancelledError

    async def sweep(_: object) -> None:
        await teacher_maintenance.sweep_teacher.fn()

    host.stops_before, host.meanwhile = 1, others
    with pytest.raises(asyncio.CancelledError):
        await run(host, sweep)
    assert (begun, host.transactions) == ([False], 1)


async def test_a_result_of_an_attempt_that_was_given_up_refuses_nobody(paths: Iterator[Path]) -> None:
    """Whenever it comes: the next attempt may still succeed, and there is no second answer."""
    for late in (OF_BEFORE, NOT_MADE):
        path = next(paths)
        found, _ = await play(path, (begins_anew, late))
        engine = open_database(f"sqlite:///{path}")
        (row,) = commit(engine, transcodings.under_way)
        engine.dispose()
        assert (found, row.attempt, row.backend) == ([], 2, Backend.ECS)


def counted(connection: Connection) -> int:
    return int(connection.execute(text("select count(*) from inbox_list")).scalar_one())


async def test_a_resolver_that_hangs_keeps_no_transaction_waiting(streamer: StreamerHost) -> None:
    """Names are looked up in threads, as many as there are bookings with odd hosts; the database has its own."""
    goes_on = threading.Event()
    hanging = [asyncio.create_task(asyncio.to_thread(goes_on.wait, 30)) for _ in range(64)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert [await streamer.read_tx(counted), await streamer.write_tx(counted)] == [0, 0]
    finally:
        goes_on.set()
        await asyncio.gather(*hanging)


@pytest.mark.parametrize(
    "what", ["prepare", "prepare what is to be downloaded already", "a forecast", "reconcile", "lost"]
)
async def test_a_disk_that_hangs_keeps_no_transaction_waiting(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Else a class that is cancelled while a network disk is away would be aired, for nothing could be written."""
    goes_on = threading.Event()

    def hangs(_: Path) -> int:
        return int(goes_on.wait(20))

    for module, name in ((disk, "free_bytes"), (cache_dir, "size_bytes")):
        monkeypatch.setattr(module, name, hangs)
    monkeypatch.setattr(bandwidth, "ANSWERS_S", 0.1, raising=False)
    monkeypatch.setattr(prepare, "forbidden_pushes", AsyncMock(return_value={}))
    one, root = prepared("c-1", 1, hosts.now() + 3600), streamer.settings.video_root
    commit(streamer.engine, cache.make_sums, root)
    commit(streamer.engine, reserve, root, "2", 10, one.video_url, hosts.now())
    came, looked = Delivery(InboxMessage(1, "prepare", "", 0), one), {"1": RemoteFile(one.video_url, 10, None, None)}
    joins = Delivery(InboxMessage(2, "prepare", "", 0), prepared("c-2", 2, hosts.now() + 3600))
    take = partial(prepare._take, streamer, dry_run=False)
    works: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "prepare": partial(take, [came], cast("Any", looked), BatchResult()),
        "prepare what is to be downloaded already": partial(take, [joins], {}, BatchResult()),
        "reconcile": partial(maintenance.reconciled, streamer),
        "a forecast": partial(Readiness(streamer, cast("Any", None)).foresee, hosts.now()),
        "lost": partial(downloads.redownload, streamer, "2", "it is lost", seen_at=hosts.now()),
    }
    try:
        with pytest.raises(TryAgain, match="is the disk busy"):
            await works[what]()
        assert not streamer.cache_lock.locked()
        async with asyncio.timeout(10):
            assert [await streamer.read_tx(counted), await streamer.write_tx(counted)] == [0, 0]
    finally:
        goes_on.set()


async def test_a_disk_that_hangs_keeps_no_class_from_its_answer_that_needs_no_look_at_it(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that joined a download then came again with each batch, and nobody whose recording is ready was answered."""
    monkeypatch.setattr(prepare, "disk_answers", AsyncMock(side_effect=TryAgain("the disk is busy")))
    monkeypatch.setattr(prepare, "forbidden_pushes", AsyncMock(return_value={}))
    monkeypatch.setattr(prepare, "publish_outbox", unsent)
    commit(streamer.engine, cache.make_sums, streamer.settings.video_root)
    joins, ready = (prepared(f"c-{number}", number, hosts.now() + 3600) for number in (1, 2))
    for one in (joins, ready):
        commit(streamer.engine, reserve, streamer.settings.video_root, one.stem, 10, one.video_url, hosts.now())
    commit(streamer.engine, Connection.execute, update(files).where(files.c.id == "2").values(state=FileState.READY))
    some = [Delivery(kept, one) for kept, one in zip(rows.came(streamer, joins, ready), (joins, ready), strict=True)]
    with pytest.raises(TryAgain, match="the disk is busy"):
        await prepare._take(streamer, some, {}, BatchResult(), dry_run=False)
    assert [(one["class_id"], one["code"]) for one in rows.said(streamer, "prepared")] == [("c-2", 0)]
    assert commit(streamer.engine, inbox.unhandled, [one.kept.id for one in some]) == {some[0].kept.id}


def test_what_is_named_is_there() -> None:
    """Whoever renames a function is told here, and not by a day of an hour."""
    points = {point.function for points in (TEACHER, TEACHERS, STREAMER) for point in points.values()}
    for function in {*STEPS.values(), *AT_START.values(), *points}:
        owner, name = owner_of(function)
        assert callable(getattr(owner, name, None)), function
