"""A class joins a waiting list while it is drained: by every interleaving of two workers, it is answered."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import IntegrityError

from flows import handling
from flows.teacher import booking, deadlines, results
from lectern.changes import Changes
from lectern.decide.results import Late
from lectern.decide.transcode import Overdue
from lectern.effects.rows import bookings, inbox, renditions, transcodings
from lectern.effects.rows.inbox import Arrived
from lectern.effects.rows.tables.engine import transaction
from lectern.errors import ForbiddenMove
from lectern.facts import Attempt
from lectern.messages import Booking, Cancel, Message, TranscodingResult
from lectern.model.tables.teacher import journal, orders, videos
from lectern.states import Backend, BookingState, Resolution
from tests import strategies
from tests.faults import hosts
from tests.faults.interleaved import Worker, databases, interleave

KEY = (6666, Resolution.P720)
Work = Callable[[Connection, Engine], object]


def result(*, success: bool) -> TranscodingResult:
    return strategies.result(success=success)


def booked(class_id: str) -> Booking:
    start = hosts.now() + 3600
    return strategies.booking(class_id, start_time=start, end_time=start + 600)


def kept(connection: Connection, message: Message) -> int:
    """Put a message into the inbox; returns its id."""
    fields = json.loads(message.to_json())
    inbox.keep(connection, journal, [Arrived("test", fields["cmd"], message.to_json())], hosts.now())
    return int(connection.execute(select(journal.inbox.c.id).order_by(journal.inbox.c.id.desc())).scalars().first())  # type: ignore[arg-type]


def under_way(connection: Connection) -> None:
    """The rendition is being transcoded, its deadline passed so long ago that no result goes first, one class waits."""
    now = hosts.now()
    deadline = now - deadlines.RESULTS_FIRST_S - 1
    attempt = Attempt(*KEY, 1, 1, now, Backend.OSS, deadline, "http://origin.example/6666.flv")
    renditions.begin(connection, [attempt], now)
    renditions.requested(connection, KEY, now)
    bookings.add(connection, [(booked("c-0"), BookingState.WAITING)], now)


def book(class_id: str) -> Callable[[Connection], Work]:
    def prepare(connection: Connection) -> Work:
        id_ = kept(connection, booked(class_id))

        def work(c: Connection, engine: Engine) -> Changes:
            teacher = hosts.teacher(engine)
            came: list[handling.Came[booking.Asked]] = [
                handling.came(one, (Booking, Cancel)) for one in inbox.read(c, journal, [id_])
            ]
            go = partial(booking.decided, hosts.ALIVE)
            decide: handling.Decide[Changes] = partial(handling.of_messages, teacher, came, go)
            return handling.change(c, teacher, decide)

        return work

    return prepare


def settled(*, success: bool) -> Callable[[Connection], Work]:
    def prepare(connection: Connection) -> Work:
        found = result(success=success)
        id_ = kept(connection, found)

        def work(c: Connection, engine: Engine) -> Changes:
            teacher = hosts.teacher(engine)
            came = [handling.came(one, (TranscodingResult,)) for one in inbox.read(c, journal, [id_])]
            go = partial(results.decided, hosts.ALIVE, {})
            decide: handling.Decide[Changes] = partial(handling.of_messages, teacher, came, go)
            return handling.change(c, teacher, decide)

        return work

    return prepare


def expired(connection: Connection) -> Work:
    (due,) = transcodings.overdue(connection, hosts.now())
    late = [Late(due.key, due.backend, Overdue.TIME_OUT)]
    return lambda c, engine: handling.change(c, hosts.teacher(engine), deadlines.expired(late, hosts.ALIVE, {}))


PAIRS: dict[str, tuple[Callable[[Connection], Work], Callable[[Connection], Work]]] = {
    "wait and settle": (book("c-1"), settled(success=True)),
    "wait and refuse": (book("c-1"), settled(success=False)),
    "wait and time out": (book("c-1"), expired),
    "settle and time out": (settled(success=True), expired),
    "settle twice": (settled(success=True), settled(success=False)),
    "the same booking twice": (book("c-1"), book("c-1")),
}


def faults(connection: Connection) -> list[str]:
    """What must never be, in words."""
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


def play(path: Path, pair: str, schedule: Sequence[bool], *, torn: bool = False) -> tuple[list[str], tuple[int, int]]:
    """Run a pair by *schedule*; what is wrong after it, and how many statements each worker had."""
    with databases(hosts.database("teacher", path), torn=torn) as engines:
        prepares = PAIRS[pair]
        with transaction(engines[0]) as connection:
            under_way(connection)
            works = [prepare(connection) for prepare in prepares]
        workers = [
            Worker(engine, lambda c, work=work, engine=engine: work(c, engine))  # type: ignore[misc]  # bound at once
            for engine, work in zip(engines, works, strict=True)
        ]
        interleave(workers[0], workers[1], schedule)
        with transaction(engines[0]) as connection:
            return faults(connection), (workers[0].statements, workers[1].statements)


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Path]:
    """A new file each time."""

    def numbered() -> Iterator[Path]:
        number = 0
        while True:
            number += 1
            yield tmp_path / f"{number}.db"

    return numbered()


@pytest.mark.parametrize("pair", PAIRS)
def test_no_interleaving_of_two_workers_tears_a_transaction(paths: Iterator[Path], pair: str) -> None:
    """Each is stopped before each of its statements, and the other runs as far as it gets."""
    _, (first, second) = play(next(paths), pair, [])
    for stop in range(first + 1):
        assert play(next(paths), pair, [True] * stop + [False] * (second + 1))[0] == []
    for stop in range(second + 1):
        assert play(next(paths), pair, [False] * stop + [True] * (first + 1))[0] == []


@pytest.mark.parametrize("pair", ["wait and settle", "wait and refuse", "wait and time out", "settle twice"])
def test_without_the_transaction_some_interleaving_loses_a_class(paths: Iterator[Path], pair: str) -> None:
    """So the test above would tell."""
    _, (first, second) = play(next(paths), pair, [], torn=True)
    harmful = 0
    for stop in range(first + 1):
        try:
            harmful += play(next(paths), pair, [True] * stop + [False] * second, torn=True)[0] != []
        except (ForbiddenMove, IntegrityError):  # it ran into its own ruins
            harmful += 1
    assert harmful > 0
