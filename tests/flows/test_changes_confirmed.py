"""A streamer tells its teacher that a change is in force when its playout airs the class so, and not before."""

import asyncio
import time
from typing import Any

import pytest

from flows.host import StreamerHost
from flows.streamer import amend, playout_events
from lectern.db import airings
from lectern.db.engine import transaction
from lectern.states import AiringState
from lectern.wire.messages import Amend
from tests import rows, strategies
from tests.faults import hosts
from tests.faults.test_changes import lesson
from tests.faults.turns import Quiet
from tests.rows import commit
from tests.waiting import async_wait_until

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
    lessons = {"c-1": {**lesson(host, its_class(host)), **has}}

    async def beat() -> None:
        host.playout.begin_round()
        while True:
            host.playout.confirm(host.playout.begin_round(), lessons)
            await asyncio.sleep(0.01)

    beats = asyncio.create_task(beat())
    await asyncio.sleep(0.02)
    await amend.confirm(host)
    beats.cancel()


async def test_a_change_is_reported_when_the_playout_has_it_and_once(streamer: StreamerHost) -> None:
    """Before that it has the class as it was, which is what would be aired."""
    await confirmed(streamer, end=its_class(streamer).end_time - 300)
    assert reports(streamer) == []
    for _ in range(2):
        await confirmed(streamer)
    assert reports(streamer) == [0]


async def test_a_change_waits_while_nobody_knows_what_the_playout_airs(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the playout has surely no worker, the timetable on the disk says what the next one airs."""
    monkeypatch.setattr(amend, "CONFIRMS_S", 0.05)
    await amend.confirm(streamer)
    assert reports(streamer) == []
    streamer.playout.is_away("it was killed")
    streamer.playout.away_since = time.monotonic() - amend.NO_WORKER_S - 1
    await amend.confirm(streamer)
    assert reports(streamer) == [], "its timetable is not written"
    streamer.playout.written(streamer.playout.begin_round() + 1)
    await amend.confirm(streamer)
    assert reports(streamer) == [0]


@pytest.mark.parametrize(("end_of", "code"), [("changed", 0), ("before", 410)])
def test_a_class_that_ends_before_that_is_reported_as_it_was_aired(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, end_of: str, code: int
) -> None:
    """The end of its change has passed, too: as the playout says which end it had, the teacher hears of the change."""
    one = its_class(streamer)
    monkeypatch.setattr(time, "time", lambda: one.end_time + 1)
    sums = {"as_run": [], "sent_s": 0.0, "slate_s": 0.0, "gap_s": 0.0, "sessions": 0}
    end = one.end_time - (0 if end_of == "changed" else 300)
    told = {**lesson(streamer, one), **sums, "why": "its end has come", "end": end}
    with transaction(streamer.engine) as connection:
        rows.went(connection, streamer, playout_events.closing_of("c-1", told))
        rows.went(connection, streamer, amend.confirmed({CHANGE}, {}))
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


async def test_a_change_is_reported_by_itself_soon_after_the_playout_has_it(streamer: StreamerHost) -> None:
    """Also after a restart: what waits is a row, and nobody needs to ask."""
    lessons = {"c-1": lesson(streamer, its_class(streamer))}

    def confirms() -> list[int]:
        streamer.playout.confirm(streamer.playout.begin_round(), lessons)
        return reports(streamer)

    work = asyncio.create_task(amend.keep_confirming(streamer))
    streamer.amended.set()
    assert await async_wait_until(confirms, description="its teacher hears of it") == [0]
    work.cancel()
