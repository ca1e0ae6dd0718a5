"""A cancel holds: it is told until the streamer confirms it, and it may come before its booking."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from flows import handling
from flows.host import Host, StreamerHost, TeacherHost
from flows.streamer import lease
from flows.teacher import bookings as teacher_bookings
from flows.teacher import maintenance, membership
from lectern.db import airings, events, inbox
from lectern.db import bookings as db_bookings
from lectern.db.engine import transaction
from lectern.db.inbox import ReceivedMessage
from lectern.db.writer import write
from lectern.decide import cache
from lectern.decide import placement as cancelling
from lectern.decide.placement import Choice, reassign
from lectern.decide.reports import ENDS_AFTER_S
from lectern.errors import AIRED_WITH_GAPS
from lectern.model.facts import AsRun
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.teacher import ClassEventRow
from lectern.model.tables.teacher import cancels as cancel_list
from lectern.states import AiringState, BookingState
from lectern.wire.messages import Booking, Cancel, Grant, Message, Prepare, Release, Report
from tests import strategies
from tests.rows import commit, news, placed, state_of

STREAMER = "streamer1"


@dataclass
class Pair:
    """A teacher and a streamer; what one sends reaches the other only where a test passes it on."""

    teacher: TeacherHost
    streamer: StreamerHost
    opened_at: float = field(default_factory=time.time)

    def booking(self, class_id: str = "c-1", start_in_s: float = 600) -> Booking:
        """A class of ten minutes whose rendition is there."""
        start, urls = self.opened_at + start_in_s, {"720P": "http://origin.example/6666_720P.flv"}
        return strategies.booking(class_id, start_time=start, end_time=start + 600, video_url_list=urls)

    def book(self, class_id: str = "c-1", start_in_s: float = 600) -> None:
        """A booking comes to the teacher, which has one living streamer."""
        self.receive(self.booking(class_id, start_in_s))

    def receive(self, *messages: Message) -> None:
        """Bookings and cancels come to the teacher in one batch."""
        decide = partial(teacher_bookings.decided_bookings, [STREAMER])
        take(self.teacher, [one.to_json() for one in messages], (Booking, Cancel), decide)

    def deliver(self, messages: list[dict[str, Any]]) -> None:
        """The streamer gets what of *messages* is for it; the others are answers to the platform."""
        for one in messages:
            if one["cmd"] in {"prepare", "release", "grant"}:
                go = admitted if one["cmd"] == "prepare" else lease.release_classes
                take(self.streamer, [json.dumps(one)], (Prepare, Release, Grant), go)

    def report_back(self) -> None:
        """The teacher gets what the streamer reports."""
        decide = partial(teacher_bookings.decided_reports, [STREAMER])
        take(self.teacher, [json.dumps(one) for one in news(self.streamer)], (Report,), decide)

    def granted(self, session: str) -> list[dict[str, Any]]:
        """What the streamer is told when it asks for its lease."""
        commit(self.teacher.engine, handling.change, self.teacher, membership.granted(STREAMER, session, 45))
        return news(self.teacher)

    def swept(self, after_s: float) -> list[dict[str, Any]]:
        """What is told again by a sweep after *after_s*."""
        now = time.time() + after_s
        with transaction(self.teacher.engine) as connection:
            changes = Changes(self.teacher.settings, now)
            cancelling.resend_cancels(changes, db_bookings.cancels_to_resend(connection, now))
            write(connection, changes)
        return news(self.teacher)


def admitted(connection: Any, changes: StreamerChanges, prepares: Sequence[Prepare]) -> None:
    """Classes that are taken are ready at once."""
    ids = [one.class_id for one in prepares]
    known, gone = airings.by_id(connection, ids), airings.released_before(connection, ids)
    for one in cache.new_classes(changes, prepares, known, gone, {}):
        changes.admit(one, AiringState.READY)


def take(host: Host[Any], bodies: Sequence[str], kinds: tuple[type[Message], ...], decide: Any) -> None:
    """What comes to *host* in one batch is decided, and written."""
    arrived = [ReceivedMessage("test", json.loads(one)["cmd"], one) for one in bodies]
    with transaction(host.engine) as connection:
        kept = inbox.keep_claimed(connection, arrived, time.time(), 60)
        came = [handling.came(one, kinds) for one in kept]
        handling.change(connection, host, partial(handling.of_messages, came, decide))


@pytest.fixture
def pair(teacher: TeacherHost, streamer: StreamerHost) -> Pair:
    return Pair(teacher, streamer)


def commands(messages: list[dict[str, Any]]) -> list[str]:
    return [one["cmd"] for one in messages]


async def test_a_cancel_that_redis_lost_while_the_streamer_was_down_is_told_before_its_lease(pair: Pair) -> None:
    pair.book()
    pair.deliver(news(pair.teacher))
    pair.receive(Cancel(class_id="c-1"))
    assert "release" in commands(news(pair.teacher)), "and Redis loses it"
    told = pair.granted("after-the-restart")
    assert commands(told) == ["release", "grant"]
    pair.deliver(told)
    assert state_of(pair.streamer, "c-1") == AiringState.CANCELLED
    pair.report_back()
    assert commands(pair.granted("later")) == ["cancel_result", "grant"], "it is confirmed, and told no more"


async def test_a_streamer_is_told_all_that_was_cancelled_before_its_lease_however_much_it_is(pair: Pair) -> None:
    """Else it would air the rest until a sweep tells it."""
    now = time.time()
    its = {"streamer": STREAMER, "cancelled_at": now, "told_at": now, "until": now + 600}
    some = [{"class_id": f"c-{number}", **its} for number in range(1001)]
    commit(pair.teacher.engine, Connection.execute, insert(cancel_list), some)
    assert commands(pair.granted("new")) == ["release"] * len(some) + ["grant"]


async def test_a_cancel_is_told_again_until_it_is_confirmed(pair: Pair) -> None:
    """A release that is done already is confirmed again: the first confirmation may be lost on its way."""
    pair.book()
    pair.deliver(news(pair.teacher))
    pair.receive(Cancel(class_id="c-1"))
    news(pair.teacher)
    assert pair.swept(30) == []
    told = pair.swept(61)
    assert commands(told) == ["release"]
    pair.deliver(told)
    assert commands(news(pair.streamer)) == ["ended"], "and it is lost"
    assert pair.swept(100) == [], "it was told just now"
    again = pair.swept(130)
    assert commands(again) == ["release"]
    pair.deliver(again)
    pair.report_back()
    assert commands(pair.swept(1000)) == ["cancel_result"]


async def test_a_cancel_is_told_again_in_its_time_however_many_wait_longer(pair: Pair) -> None:
    """Those of a streamer that has been lost for hours: a class that was cancelled at another one would be aired."""
    now = time.time()
    its = {"streamer": "lost", "cancelled_at": now - 36_000, "told_at": now - 1800, "until": now + 600}
    some = [{"class_id": f"c-{number}", **its} for number in range(1000)]
    due = {"class_id": "due", "streamer": STREAMER, "cancelled_at": now - 61, "told_at": now - 61, "until": now + 600}
    commit(pair.teacher.engine, Connection.execute, insert(cancel_list), [*some, due])
    assert [one["class_id"] for one in pair.swept(0)] == ["due"]


async def test_after_the_end_of_the_class_nobody_is_told_any_more_and_the_cancel_has_failed(pair: Pair) -> None:
    """However often it came. Its end is told a minute later: its streamer may be back by then, and say what it sent."""
    pair.book(start_in_s=60)
    for _ in range(2):
        pair.receive(Cancel(class_id="c-1"))
    news(pair.teacher)
    assert pair.swept(700) == []
    answers, ends = [], list[ClassEventRow]()
    for after_s, number in ((700, 0), (700 + ENDS_AFTER_S + 1, 1)):
        with transaction(pair.teacher.engine) as connection:
            changes = Changes(pair.teacher.settings, time.time() + after_s)
            maintenance.close(connection, changes, math.inf)
            write(connection, changes)
            assert connection.execute(select(cancel_list)).all() == []
            ends = [*events.after(connection, "c-1", 0, 10)]
        assert len(ends) == number
        answers += [one for one in news(pair.teacher) if one["cmd"] == "cancel_result"]
        pair.receive(Cancel(class_id="c-1"))
        answers += news(pair.teacher)
    assert [(one["result"], one["code"]) for one in answers] == [("fail", 410)] * 4
    assert answers[1:] == answers[:-1], "the same answer to the same cancel"
    told = json.loads(ends[0].body)
    assert (told["event"], told["outcome"], told["code"]) == ("ended", "cancelled", 410)


async def test_what_two_streamers_have_sent_of_a_class_is_one_whole(pair: Pair) -> None:
    """It was moved while it was on air: each knows its own part alone."""
    one = pair.booking(start_in_s=-700)
    placed(pair.teacher, one, STREAMER, ready=True)
    decide = partial(teacher_bookings.decided_reports, [STREAMER])
    for name, placement, begins in (("another", 2, one.start_time), (STREAMER, 1, one.start_time + 300)):
        part = AsRun(0, 1, "recording", begins, begins + 300, begins - one.start_time, 300.0, 9).row()
        its: dict[str, Any] = {"streamer": name, "placement": placement, "as_run": [part]}
        ended = Report(cmd="ended", class_id="c-1", result="success", code=AIRED_WITH_GAPS.number, **its)
        take(pair.teacher, [ended.to_json()], (Report,), decide)
    assert commit(pair.teacher.engine, db_bookings.by_id, ["c-1"])["c-1"].state is BookingState.AIRED


def lost(connection: Connection, changes: Changes) -> None:
    """The class loses its streamer, and no other can take it."""
    orders = [*db_bookings.by_id(connection, ["c-1"]).values()]
    reassign(changes, orders, Choice({}, {}), "it is lost", refused=False)


@pytest.mark.parametrize(("start_in_s", "answers"), [(60, [0]), (-60, [])], ids=["it has not begun", "it was on air"])
async def test_the_cancel_of_a_class_that_lost_its_streamer_before_its_start_is_answered_at_once(
    pair: Pair, start_in_s: float, answers: list[int]
) -> None:
    """It waited for a streamer that has nothing of it until its end, and was answered with 410 then."""
    placed(pair.teacher, pair.booking(start_in_s=start_in_s), STREAMER, ready=True)
    commit(pair.teacher.engine, handling.change, pair.teacher, lost)
    news(pair.teacher)
    pair.receive(Cancel(class_id="c-1"))
    assert [one["code"] for one in news(pair.teacher) if one["cmd"] == "cancel_result"] == answers


async def test_the_push_url_of_a_class_that_lost_its_streamer_is_free_once_it_is_cancelled(pair: Pair) -> None:
    """Until then it may be on air where it was lost, so what is booked in its place is refused: see RUNBOOK."""

    def again(class_id: str) -> BookingState:
        pair.receive(pair.booking(class_id).model_copy(update={"push_url": pair.booking().push_url}))
        return commit(pair.teacher.engine, db_bookings.by_id, [class_id])[class_id].state

    placed(pair.teacher, pair.booking(), STREAMER, ready=True)
    commit(pair.teacher.engine, handling.change, pair.teacher, lost)
    assert again("c-2") is BookingState.REFUSED
    pair.receive(Cancel(class_id="c-1"))
    assert again("c-3") is BookingState.PLACED


async def test_a_booking_that_comes_after_its_cancel_is_answered_411_and_goes_nowhere(pair: Pair) -> None:
    pair.receive(Cancel(class_id="c-1"))
    pair.book()
    answers = [(one["cmd"], one.get("code")) for one in news(pair.teacher)]
    assert answers == [("cancel_result", 404), ("order_result", 411)]
    pair.book()
    assert [one["code"] for one in news(pair.teacher)] == [411], "the same answer to the same booking"
    pair.book("c-2")
    assert commands(news(pair.teacher)) == ["prepare"]
    pair.receive(pair.booking("c-3"), Cancel(class_id="c-3"))
    pair.receive(Cancel(class_id="c-4"), pair.booking("c-4"))
    answers = [(one["class_id"], one["code"]) for one in news(pair.teacher) if one["cmd"] == "order_result"]
    assert answers == [("c-3", 411), ("c-4", 411)], "together with it, in either order"
