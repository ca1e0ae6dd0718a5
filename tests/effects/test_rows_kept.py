"""Rows that are old and still needed, or whose ids are known, stay; one that cannot be read hides no other."""

from sqlalchemy import Engine, select

from flows.handling import change
from flows.teacher.membership import granted
from lectern.db import bookings, events, inbox, retention, timetable
from lectern.db.writer import write
from lectern.model.plan import Changes
from lectern.model.tables.teacher import class_events, journal, moves, orders
from lectern.wire.messages import Grant, Release
from tests.effects.test_retention import BEFORE, DAY, MONTH_AGO, NOW, WEEK_AGO, add, forget, message, order, sent
from tests.faults import hosts
from tests.rows import commit, look


def test_ids_that_were_given_are_not_given_again(either_engine: Engine) -> None:
    add(either_engine, journal.outbox, *(sent(f"{n}", WEEK_AGO - 1) for n in range(5)))
    add(
        either_engine,
        class_events,
        *({"class_id": "c", "seq": n, "at": MONTH_AGO - 1, "event": "accepted", "body": "{}"} for n in range(1, 6)),
    )
    add(either_engine, journal.inbox, *(message(f"{n}", "done", WEEK_AGO - 1) for n in range(5)))
    forget(either_engine, retention.of_teacher(BEFORE))
    add(either_engine, journal.inbox, message("new", "new", NOW))
    assert look(either_engine, inbox.unhandled, journal, range(1, 6)) == set(), "a Retry of a run of then handles it"
    add(either_engine, journal.outbox, sent("new", None))
    add(either_engine, class_events, {"class_id": "d", "seq": 1, "at": NOW, "event": "accepted", "body": "{}"})
    assert [row.class_id for row in look(either_engine, events.feed, 5, None, 9)] == ["d"], (
        "who has read up to 5 gets it"
    )
    assert (
        look(
            either_engine,
            lambda c: c.execute(select(journal.outbox.c.id).where(journal.outbox.c.body == "new")).scalar_one(),
        )
        > 5
    )


def test_moves_of_an_open_class_stay(either_engine: Engine) -> None:
    add(either_engine, orders, order("c", "ready", NOW + DAY) | {"streamer": "streamer2", "placement": 2})
    add(
        either_engine,
        moves,
        {"class_id": "c", "streamer": "streamer1", "placement": 1, "refused": False, "moved_at": WEEK_AGO - 1},
    )
    forget(either_engine, retention.of_teacher(BEFORE))
    host = hosts.teacher(either_engine)
    told = commit(either_engine, lambda c: change(c, host, granted("streamer1", "s", 30.0)))
    kinds: list[type[object]] = [type(one.message) for one in told.sends]
    assert kinds == list[type[object]]((Release, Grant))


def test_the_numbers_of_a_broken_class_go_on_until_its_end(either_engine: Engine) -> None:
    add(either_engine, orders, order("c", "broken", NOW + DAY) | {"updated_at": MONTH_AGO - 1})
    add(
        either_engine, class_events, {"class_id": "c", "seq": 1, "at": MONTH_AGO - 1, "event": "accepted", "body": "{}"}
    )
    add(either_engine, class_events, {"class_id": "d", "seq": 1, "at": NOW, "event": "accepted", "body": "{}"})
    forget(either_engine, retention.of_teacher(BEFORE))
    changes = Changes(hosts.teacher(either_engine).settings, NOW)
    changes.announce(look(either_engine, bookings.by_id, ["c"])["c"], "ended")
    commit(either_engine, write, journal, changes)
    assert [one.seq for one in changes.class_events] == [2]


def test_a_row_that_cannot_be_read_ends_no_page(either_engine: Engine) -> None:
    add(
        either_engine, orders, *(order(f"c{n}", "ready" if n != 1 else "of a newer release", NOW + n) for n in range(6))
    )
    rows = look(either_engine, timetable.page, timetable.Span(0.0, 4e9, None), None, (0.0, ""), 3)
    assert len(rows) == 3
