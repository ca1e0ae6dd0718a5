"""A cancel holds: it is told until the streamer confirms it, and it may come before its booking."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from flows import handling
from flows.host import Host, StreamerHost, TeacherHost
from flows.streamer import lease, playout_events
from flows.teacher import bookings as teacher_bookings
from flows.teacher import maintenance, membership
from lectern.db import airings, events, inbox
from lectern.db import bookings as db_bookings
from lectern.db.engine import transaction
from lectern.db.inbox import ReceivedMessage
from lectern.db.writer import write
from lectern.decide import cache
from lectern.decide import placement as cancelling
from lectern.decide.reports import ENDS_AFTER_S
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.teacher import ClassEventRow, streamers
from lectern.model.tables.teacher import cancels as cancel_list
from lectern.states import AiringState
from lectern.wire.messages import Booking, Cancel, Grant, Message, Prepare, Release, Report
from tests import strategies
from tests.rows import commit, news

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
            write(connection, self.teacher.journal, changes)
        return news(self.teacher)

    def state(self, class_id: str = "c-1") -> AiringState:
        return commit(self.streamer.engine, airings.by_id, [class_id])[class_id].state


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
        kept = inbox.keep_claimed(connection, host.journal, arrived, time.time(), 60)
        came = [handling.came(one, kinds) for one in kept]
        handling.change(connection, host, partial(handling.of_messages, host, came, decide))


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
    assert pair.state() is AiringState.CANCELLED
    pair.report_back()
    assert commands(pair.granted("later")) == ["cancel_result", "grant"], "it is confirmed, and told no more"


async def test_a_claim_is_answered_again_after_a_while_and_though_the_clock_was_set_back(pair: Pair) -> None:
    """After a power cut Redis may lack the answer, and the clock be wrong; without a lease, a streamer airs nothing."""
    assert commands(pair.granted("one")) == ["grant"]
    assert pair.granted("one") == [], "the streamer may be about to read it"
    for ago_s in (membership.GRANT_AGAIN_S, -3600):
        commit(pair.teacher.engine, Connection.execute, update(streamers).values(granted_at=time.time() - ago_s))
        assert commands(pair.granted("one")) == ["grant"]


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


async def test_after_the_end_of_the_class_nobody_is_told_any_more_and_the_cancel_has_failed(pair: Pair) -> None:
    """Its end is told a minute later: its streamer may be back until then, and say what it sent."""
    pair.book(start_in_s=60)
    pair.receive(Cancel(class_id="c-1"))
    news(pair.teacher)
    assert pair.swept(700) == []
    answers, ends = [], list[ClassEventRow]()
    for after_s, number in ((700, 0), (700 + ENDS_AFTER_S + 1, 1)):
        with transaction(pair.teacher.engine) as connection:
            changes = Changes(pair.teacher.settings, time.time() + after_s)
            maintenance.close(connection, changes)
            write(connection, pair.teacher.journal, changes)
            assert connection.execute(select(cancel_list)).all() == []
            ends = [*events.after(connection, "c-1", 0, 10)]
        assert len(ends) == number
        answers += [one for one in news(pair.teacher) if one["cmd"] == "cancel_result"]
        pair.receive(Cancel(class_id="c-1"))
        answers += news(pair.teacher)
    first, *again = answers
    assert (first["result"], first["code"]) == ("fail", 410)
    assert again == [first, first], "the same answer to the same cancel"
    told = json.loads(ends[0].body)
    assert (told["event"], told["outcome"], told["code"]) == ("ended", "cancelled", 410)


async def test_each_cancel_is_answered_once_its_streamer_has_confirmed_and_the_next_ones_alike(pair: Pair) -> None:
    """How much was sent stands in the answer; the class has one end, and nothing after it."""
    pair.book(start_in_s=-100)
    pair.deliver(news(pair.teacher))
    pair.receive(Cancel(class_id="c-1"))
    released = news(pair.teacher)
    pair.receive(Cancel(class_id="c-1"))
    assert "cancel_result" not in commands([*released, *news(pair.teacher)])
    pair.deliver(released)
    assert news(pair.streamer) == [], "it may be on air still: its playout is about to say what was sent"
    part = {"url": 0, "session": 1, "source": "recording", "position_s": 0.0, "sent_s": 42.5, "bytes": 9}
    part |= {"from": pair.opened_at - 90, "to": pair.opened_at - 47.5}
    told = {"as_run": [part], "why": "it was cancelled", "start": pair.opened_at - 100, "end": pair.opened_at + 500}
    commit(pair.streamer.engine, handling.change, pair.streamer, playout_events.closing_of("c-1", told))
    pair.report_back()
    answers = news(pair.teacher)
    assert [(one["cmd"], one["result"], one["code"], one["sent_s"]) for one in answers] == [
        ("cancel_result", "success", 0, 42.5)
    ] * 2
    pair.receive(Cancel(class_id="c-1"), Cancel(class_id="c-9"))
    again, unknown = news(pair.teacher)
    assert again == answers[0]
    assert (unknown["result"], unknown["code"]) == ("fail", 404)
    (end,) = (json.loads(one.body) for one in commit(pair.teacher.engine, events.after, "c-1", 0, 10))
    assert (end["event"], end["outcome"], end["sent_s"], end["seq"]) == ("ended", "cancelled", 42.5, 1)
    assert (end["began_at"], end["institution_id"]) == (pytest.approx(pair.opened_at - 90), "i-7")


async def test_a_class_that_the_streamer_never_had_is_confirmed_and_not_taken_later(pair: Pair) -> None:
    pair.book()
    prepare = [one for one in news(pair.teacher) if one["cmd"] == "prepare"]
    pair.receive(Cancel(class_id="c-1"))
    pair.deliver([one for one in news(pair.teacher) if one["cmd"] == "release"])
    pair.report_back()
    assert commands(pair.swept(1000)) == ["cancel_result"]
    pair.deliver(prepare)
    assert commit(pair.streamer.engine, airings.live) == []


async def test_a_booking_that_comes_after_its_cancel_is_answered_411_and_goes_nowhere(pair: Pair) -> None:
    pair.receive(Cancel(class_id="c-1"))
    pair.book()
    answers = [(one["cmd"], one.get("code")) for one in news(pair.teacher)]
    assert answers == [("cancel_result", 404), ("order_result", 411)]
    pair.book()
    assert [one["code"] for one in news(pair.teacher)] == [411], "the same answer to the same booking"
    pair.book("c-2")
    assert commands(news(pair.teacher)) == ["prepare"]


async def test_a_cancel_beside_its_booking_in_one_batch_cancels_it_in_either_order(pair: Pair) -> None:
    pair.receive(pair.booking("c-1"), Cancel(class_id="c-1"))
    pair.receive(Cancel(class_id="c-2"), pair.booking("c-2"))
    answers = [(one["class_id"], one["code"]) for one in news(pair.teacher) if one["cmd"] == "order_result"]
    assert answers == [("c-1", 411), ("c-2", 411)]


async def test_a_class_that_was_moved_is_not_reported_as_cancelled(pair: Pair) -> None:
    pair.book()
    pair.deliver(news(pair.teacher))
    pair.deliver([{"cmd": "release", "class_id": "c-1", "placement": 1}])
    assert news(pair.streamer) == []


async def test_a_cancel_that_is_older_than_ten_minutes_waits_for_no_booking(pair: Pair) -> None:
    pair.receive(Cancel(class_id="c-1"))
    commit(pair.teacher.engine, Connection.execute, update(cancel_list).values(until=time.time() - 1))
    pair.book()
    assert commands(news(pair.teacher)) == ["cancel_result", "prepare"]
