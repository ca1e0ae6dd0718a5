"""A streamer tells its teacher that a change is in force when its playout airs the class so, and not before."""

import asyncio
import time
from dataclasses import replace
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import DEFAULT, AsyncMock

import pytest
from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from flows.handling import changed
from flows.host import StreamerHost, current
from flows.playout_link import Watch
from flows.streamer import amend, playout_events
from flows.streamer.playout_events import PlayoutEvents
from flows.streamer.playout_sync import AHEAD_S
from lectern.db import airings
from lectern.db.engine import transaction
from lectern.errors import TryAgain
from lectern.model.tables.streamer import classes, tasks
from lectern.playout.control_socket import version_of
from lectern.states import AiringState
from lectern.wire.messages import Amend
from tests import rows, strategies
from tests.faults import hosts
from tests.faults.hosts import lesson
from tests.faults.turns import Quiet
from tests.flows.test_rows_apart import spoil
from tests.rows import commit
from tests.waiting import async_wait_until, cancelled

CHANGE = "c-1^1"


@pytest.fixture
def streamer(streamer: StreamerHost) -> StreamerHost:
    """A streamer whose class begins in a minute, and has just got another end by a change."""
    streamer.bus = Quiet()  # type: ignore[assignment]
    start = hosts.now() + 60
    rows.prepared(streamer, rows.prepare("c-1", 6666, start, 600), rows.prepare(CHANGE, 6666, start, 900))
    with transaction(streamer.engine) as connection:
        for one in airings.by_id(connection, ["c-1", CHANGE]).values():
            rows.moved(connection, streamer, one, AiringState.READY)
        asked = Amend(class_id="c-1", revision=CHANGE, placement=1)
        rows.did(connection, streamer, amend.decided, asked)
    return streamer


def reports(host: StreamerHost) -> list[int]:
    """The codes that the teacher hears of the change."""
    return [one["code"] for one in rows.said(host, "amended")]


def its_class(host: StreamerHost) -> Any:
    return commit(host.engine, airings.by_id, ["c-1"])["c-1"]


async def confirmed(host: StreamerHost, **has: object) -> None:
    """One look at the changes, while the playout confirms that it airs the class with what it *has*."""
    host.playout.confirmed = {"c-1": {**lesson(host, its_class(host)), **has}}
    host.playout.step = AsyncMock(return_value=True)
    await amend.confirm(host)


@pytest.mark.parametrize("before", [[], [1]], ids=["it is new", "it was here before"])
async def test_a_change_that_overtakes_the_prepare_of_its_class_waits_for_it(
    streamer: StreamerHost, before: list[int]
) -> None:
    """The class's origin may take its time, and the change name a recording elsewhere. It is not said to be over."""
    start = hosts.now() + AHEAD_S + 600
    for placement in before:
        rows.prepared(streamer, rows.prepare("c-2", 6666, start, placement=placement))
    rows.prepared(streamer, rows.prepare("c-2^1", 6666, start, 900))
    its = rows.prepare("c-2", 6666, start, placement=3)
    rows.comes(streamer, its)
    ids = rows.comes(streamer, Amend(class_id="c-2", revision="c-2^1", placement=3))
    current.set(streamer)
    for said in ([], [0]):
        await amend.amend.fn(ids)
        assert reports(streamer) == said
        rows.prepared(streamer, its)


async def test_a_change_is_reported_when_the_playout_has_it_and_once(streamer: StreamerHost) -> None:
    """Before that it has the class as it was, which is what would be aired."""
    await confirmed(streamer, end=its_class(streamer).end_time - 300)
    assert reports(streamer) == []
    for _ in range(2):
        await confirmed(streamer)
    assert reports(streamer) == [0]
    assert len(streamer.acks.ids()) == 1, "it is sent"


async def test_a_change_is_reported_beside_one_of_a_class_that_nobody_can_read(streamer: StreamerHost) -> None:
    """Somebody wrote into its row since; what is in force of it cannot be said, nor that it is over."""
    with transaction(streamer.engine) as connection:
        rows.bare(connection, "odd", hosts.now() + 60)
        rows.bare(connection, "odd^1", hosts.now() + 60, "cancelled")
        waits = update(classes).where(classes.c.class_id == "odd^1").values(unconfirmed_since=hosts.now())
        connection.execute(waits)
    spoil(streamer, "odd")
    await confirmed(streamer)
    assert [one["class_id"] for one in rows.said(streamer, "amended")] == [CHANGE]


@pytest.mark.parametrize(
    ("starts_in_s", "is_aired", "codes"), [(AHEAD_S + 1, False, [0]), (AHEAD_S, False, []), (-900, True, [])]
)
def test_a_change_of_a_class_that_the_playout_need_not_know_yet_is_in_force(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, starts_in_s: float, is_aired: bool, codes: list[int]
) -> None:
    """It has none that begins so late; of one that begins sooner it has lost it; one that is over waits for its end."""
    now = hosts.now()
    monkeypatch.setattr(time, "time", lambda: now)
    its = update(tasks).values(start_time=now + starts_in_s, end_time=now + starts_in_s + 900)
    commit(streamer.engine, Connection.execute, its)
    lessons = {"c-1": lesson(streamer, its_class(streamer))} if is_aired else {}
    commit(streamer.engine, rows.went, streamer, amend.confirmed(lessons))
    assert reports(streamer) == codes


@pytest.mark.parametrize(
    ("moved_s", "run_id", "watched", "cancelled"),
    [(60, "run", False, ["run"]), (0, "run", False, []), (60, None, False, []), (60, "run", True, [])],
    ids=["another time", "the same time", "no run", "it watches the class"],
)
async def test_the_run_for_another_time_is_taken_off_the_timetable(
    streamer: StreamerHost, moved_s: float, run_id: str | None, watched: bool, cancelled: list[str]
) -> None:
    streamer.runs = cast("Any", SimpleNamespace(cancel=(cancel := AsyncMock())))
    streamer.playout.watches |= {"c-1": Watch("run")} if watched else {}
    before = replace(its_class(streamer), run_id=run_id)
    changes = SimpleNamespace(amended=[(before, replace(before, start_time=before.start_time + moved_s))])
    await amend.after(streamer, [cast("Any", changes)])
    assert [one.args[0] for one in cancel.await_args_list] == cancelled
    assert streamer.unplanned.is_set()


async def test_no_answer_waits_until_the_run_for_another_time_is_cancelled(streamer: StreamerHost) -> None:
    """Prefect may hang, for half a minute each."""
    asked = asyncio.Event()

    async def cancel(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    streamer.runs = cast("Any", SimpleNamespace(cancel=cancel))
    before = replace(its_class(streamer), run_id="run")
    lessons = {"c-1": lesson(streamer, before)}
    commit(streamer.engine, rows.went, streamer, amend.confirmed(lessons))
    changes = SimpleNamespace(amended=[(before, replace(before, start_time=before.start_time + 60))])
    following = asyncio.create_task(amend.after(streamer, [cast("Any", changes)]))
    await asked.wait()
    assert len(streamer.acks.ids()) == 1, "it is sent"
    await cancelled(following)


@pytest.mark.parametrize("later_s", [0, 2 * AHEAD_S])
async def test_a_change_waits_while_nobody_knows_what_the_playout_airs(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, later_s: float
) -> None:
    """The playout is away, or hangs: its teacher hears of the change once that has confirmed it.

    Also of one to a time that the playout need not know yet: it may air the class at the time of before.
    """
    monkeypatch.setattr(amend, "CONFIRMS_S", 0.05)
    later = {name: tasks.c[name] + later_s for name in ("start_time", "end_time")}
    commit(streamer.engine, Connection.execute, update(tasks).values(later))
    for step in (
        None,
        asyncio.Event().wait,
        *(AsyncMock(side_effect=error) for error in (TryAgain("it is not there"), OSError())),
    ):
        streamer.playout.step = step
        await amend.confirm(streamer)
    assert reports(streamer) == []


@pytest.mark.parametrize(
    ("earlier_s", "by", "url", "sent_s", "code"),
    [
        (0, "event", None, 9.0, 0),
        (300, "event", None, 9.0, 410),
        (0, "event", None, 0, 410),
        (0, "status", None, 9.0, 0),
        (0, "status", "rtmp://other.example/live/x", 9.0, 410),
    ],
)
def test_a_class_that_ends_before_that_is_reported_as_it_was_aired(
    streamer: StreamerHost,
    monkeypatch: pytest.MonkeyPatch,
    earlier_s: float,
    by: str,
    url: str | None,
    sent_s: float,
    code: int,
) -> None:
    """The end of its change has passed, too: the playout says which end it had, and to which URL it was pushed.

    If nothing was sent of it, the playout may not have had it before its end.
    """
    one = its_class(streamer)
    part = {"url": 0, "session": 1, "source": "recording", "from": one.start_time, "to": one.start_time + sent_s}
    part |= {"position_s": 0.0, "sent_s": sent_s, "bytes": 9, "open": False}
    monkeypatch.setattr(time, "time", lambda: one.end_time + 1)
    sums = {"as_run": [part] if sent_s else [], "sent_s": sent_s, "slate_s": 0.0, "gap_s": 0.0, "sessions": 0}
    told = {**lesson(streamer, one), **sums, "why": "its end has come", "end": one.end_time - earlier_s}
    if by == "status":  # which shows no URL
        del told["push_urls"]
        told["push_urls_hash"] = version_of([url or one.push_url])
    with transaction(streamer.engine) as connection:
        rows.went(connection, streamer, playout_events.closing_of("c-1", told))
        rows.went(connection, streamer, amend.confirmed({}))
        assert airings.unconfirmed(connection) == []
    assert reports(streamer) == [code]


@pytest.mark.parametrize(
    "had", [{"end": strategies.NOW}, {"start": strategies.NOW}, {"file": "/videos/other.flv"}], ids=str
)
def test_the_end_of_class_as_it_was_before_change_ends_nothing(streamer: StreamerHost, had: dict[str, object]) -> None:
    """The playout had another end, start or recording; it gets the timetable, in which the class is not over."""
    one = its_class(streamer)
    told = {**lesson(streamer, one), **had, "as_run": [], "why": "its end has come"}
    commit(streamer.engine, rows.went, streamer, playout_events.closing_of("c-1", told))
    assert its_class(streamer).state is one.state


async def test_the_end_of_a_class_that_was_changed_and_taken_away_at_once_is_told_as_it_was(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The playout never had the change: it tells the end as it was, with what it sent. The disk takes it later."""
    is_full, one = OperationalError("INSERT", {}, Exception("database or disk is full")), its_class(streamer)
    tried = AsyncMock(wraps=changed, side_effect=chain([is_full], repeat(DEFAULT)))
    monkeypatch.setattr(playout_events, "changed", tried)
    commit(streamer.engine, Connection.execute, update(classes).values(state=AiringState.CANCELLED))
    part = {"url": 0, "session": 1, "source": "recording", "position_s": 0.0, "sent_s": 42.5, "bytes": 9}
    part |= {"from": one.start_time, "to": one.start_time + 42.5}
    told = {**lesson(streamer, one), "end": one.end_time - 300, "as_run": [part], "why": "it was cancelled"}
    following = PlayoutEvents(streamer)
    await following.take({"event": "ended", "class_id": "c-1", **told})
    assert rows.said(streamer, "ended") == []
    await following.look_around(one.start_time)
    (said,) = rows.said(streamer, "ended")
    assert [part["sent_s"] for part in said["as_run"]] == [42.5]


async def test_a_change_is_reported_by_itself_soon_after_the_playout_has_it(streamer: StreamerHost) -> None:
    """Also after a restart: what waits is a row, and nobody needs to ask."""
    streamer.playout.confirmed = {"c-1": lesson(streamer, its_class(streamer))}
    streamer.playout.step = AsyncMock(return_value=True)
    work = asyncio.create_task(amend.keep_confirming(streamer))
    streamer.amended.set()
    assert await async_wait_until(lambda: reports(streamer), description="its teacher hears of it") == [0]
    work.cancel()
