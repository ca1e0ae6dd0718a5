"""The events that the platform is told of classes: numbered by class without a hole, and read in the feed's order."""

import json
from dataclasses import replace

from sqlalchemy import Connection, Engine, insert, select

from lectern.db import events
from lectern.db.writer import write
from lectern.model.facts import Order
from lectern.model.plan import Changes
from lectern.model.tables.teacher import class_events, journal
from lectern.states import BookingState
from tests import strategies
from tests.rows import booked, commit, look

NOW = 1_764_010_800.0


def test_the_feed_is_read_on_from_any_row_and_shows_an_institution_its_own(either_engine: Engine) -> None:
    for class_id, seq, institution in (("c-1", 1, "i-1"), ("c-2", 1, "i-2"), ("c-1", 2, "i-1"), ("c-3", 1, None)):
        its = {"class_id": class_id, "institution_id": institution, "seq": seq}
        commit(either_engine, Connection.execute, insert(class_events).values(at=1.0, event="ready", body="{}", **its))

    def feed(after_id: int, institution: str | None, limit: int = 10) -> list[tuple[str, int]]:
        return [(one.class_id, one.seq) for one in look(either_engine, events.feed, after_id, institution, limit)]

    assert feed(0, None) == [("c-1", 1), ("c-2", 1), ("c-1", 2), ("c-3", 1)]
    first, second, *_ = look(either_engine, events.feed, 0, None, 2)
    *_, newest = look(either_engine, events.feed, 0, None, 10)
    assert (feed(newest.id or 0, None), feed((newest.id or 0) + 1, "i-2")) == ([], [("c-2", 1)]), "that was a restore"
    assert feed(second.id or 0, None, 1) == [("c-1", 2)]
    assert feed(first.id or 0, "i-1") == [("c-1", 2)]
    assert [one.seq for one in look(either_engine, events.after, "c-1", 0, 10)] == [1, 2]
    assert [one.seq for one in look(either_engine, events.after, "c-1", 1, 10)] == [2]


def test_each_transaction_counts_on_and_sends_what_it_keeps(either_engine: Engine) -> None:
    booking = strategies.booking("c-1", institution_id="i-1")
    order = replace(Order.of(booking), state=BookingState.BROKEN)
    commit(either_engine, booked, booking, order, NOW)
    for statements in (["accepted", "on_air"], ["on_air", "interrupted"], ["ended", "on_air"]):
        changes = Changes(strategies.transcoders(), NOW)
        for one in statements:
            changes.announce(order, one)
        commit(either_engine, write, changes)
    found = look(either_engine, events.after, "c-1", 0, 10)
    assert [(one.seq, one.event) for one in found] == [(1, "accepted"), (2, "on_air"), (3, "interrupted"), (4, "ended")]
    assert {one.institution_id for one in found} == {"i-1"}
    sent = look(either_engine, Connection.execute, select(journal.outbox.c.target, journal.outbox.c.body)).all()
    assert [tuple(one) for one in sent] == [("class_event", one.body) for one in found]
    assert [json.loads(one.body)["seq"] for one in found] == [1, 2, 3, 4]


def test_a_cancel_that_comes_again_before_the_end_is_told_gets_the_answer_of_the_first(either_engine: Engine) -> None:
    changes = Changes(strategies.transcoders(), NOW)
    changes.answer_cancel("c-1", 0, "cancelled", 12.5)
    commit(either_engine, write, changes)
    assert look(either_engine, events.ends, ["c-1", "c-2"], "cancel_result") == {"c-1": (0, "cancelled", 12.5)}
