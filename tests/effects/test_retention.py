"""What a host forgets by age; what is old and still needed, or whose ids are known, stays."""

import pytest
from sqlalchemy import Connection, Engine, Table, insert, select

from flows.handling import change
from flows.teacher.membership import granted
from lectern.db import bookings, events, inbox, retention
from lectern.db.engine import transaction
from lectern.db.retention import RetentionRule, RowsBefore
from lectern.db.writer import write
from lectern.model.plan import Changes
from lectern.model.tables import streamer as at_streamer
from lectern.model.tables.teacher import as_runs, cancels, class_events, journal, moves, orders, teachers
from lectern.wire.messages import Grant, Release
from tests.faults import hosts
from tests.rows import commit, look

DAY = 86_400.0
NOW = 1_764_010_800.0
WEEK_AGO, MONTH_AGO, QUARTER_AGO, YEAR_AGO = (NOW - days * DAY for days in (7, 30, 90, 400))
BEFORE = RowsBefore(messages=WEEK_AGO, events=MONTH_AGO, classes=QUARTER_AGO, as_run=YEAR_AGO, cancels=NOW)


def add(engine: Engine, table: Table, *rows: dict[str, object]) -> None:
    commit(engine, Connection.execute, insert(table), list(rows))


def left(engine: Engine, table: Table, column: str) -> list[object]:
    return list(look(engine, Connection.execute, select(table.c[column]).order_by(table.c[column])).scalars())


def forget(engine: Engine, rules: list[RetentionRule]) -> list[int]:
    """Forget all; returns how many rows each slice had."""
    slices = []
    for rule in rules:
        while True:
            keys = look(engine, retention.outdated, rule)
            if not keys:
                break
            slices.append(commit(engine, retention.forget, rule, keys))
    return slices


def order(class_id: str, state: str, end: float) -> dict[str, object]:
    times = {"start_time": end - 60, "end_time": end, "received_at": end - DAY, "updated_at": end}
    return {"class_id": class_id, "state": state, "payload": "{}", **times}


def message(body: str, state: str, at: float) -> dict[str, object]:
    return {"source": "channel:order", "command": "order", "body": body, "state": state, "received_at": at}


def sent(body: str, at: float | None) -> dict[str, object]:
    return {"target": "order_result", "kind": "channel", "body": body, "created_at": WEEK_AGO - DAY, "sent_at": at}


def told(class_id: str, seq: int, at: float) -> dict[str, object]:
    return {"class_id": class_id, "seq": seq, "at": at, "event": "accepted", "body": "{}"}


def move(at: float) -> dict[str, object]:
    return {"class_id": "c", "streamer": "streamer1", "placement": 1, "moved_at": at}


def sent_part(class_id: str, ends: float) -> dict[str, object]:
    whole = {"url": 0, "session": 1, "source": "recording", "position_s": 0, "sent_s": 9}
    return {**whole, "class_id": class_id, "begins": ends - 9, "ends": ends}


def test_a_teacher_forgets_what_is_done_with_and_nothing_else(either_engine: Engine) -> None:
    add(either_engine, orders, *(order(one, one, QUARTER_AGO - 1) for one in ("aired", "refused", "broken", "waiting")))
    add(either_engine, orders, order("younger", "aired", QUARTER_AGO - 1) | {"updated_at": QUARTER_AGO})
    add(either_engine, orders, order("youngest", "aired", QUARTER_AGO) | {"updated_at": QUARTER_AGO - 1})
    old, young = WEEK_AGO - 1, WEEK_AGO
    add(either_engine, journal.inbox, *(message(one, one, old) for one in ("done", "dead", "new")))
    add(either_engine, journal.inbox, message("younger", "done", young))
    add(either_engine, journal.outbox, sent("sent", old), sent("unsent", None), sent("sent lately", young))
    add(either_engine, journal.outbox, sent("answered 410", old) | {"webhook": "gone"})
    add(either_engine, journal.outbox, sent("newest", young))
    add(either_engine, journal.events, *({"at": MONTH_AGO + by, "what": str(by), "host": "t"} for by in (-1, 0)))
    incident: dict[str, object] = {"code": 316, "first_at": 0, "last_at": 0, "number": 1}
    add(either_engine, journal.incidents, *(incident | {"resolved_at": MONTH_AGO + by} for by in (-1, 0)))
    add(either_engine, moves, move(old), move(young))
    add(either_engine, as_runs, *(sent_part("c", YEAR_AGO + by) | {"streamer": "s"} for by in (-1, 0)))
    add(either_engine, orders, order("lately", "aired", MONTH_AGO))
    kept = told("lately", 1, 0), told("aired", 2, MONTH_AGO), told("waiting", 1, 0)
    add(either_engine, class_events, told("aired", 1, MONTH_AGO - 1), *kept)
    forget(either_engine, retention.of_teacher(BEFORE))
    assert left(either_engine, as_runs, "ends") == [YEAR_AGO]
    assert left(either_engine, class_events, "class_id") == ["aired", "lately", "waiting"], "a class's numbers go on"
    assert left(either_engine, orders, "class_id") == ["lately", "waiting", "younger", "youngest"]
    assert left(either_engine, journal.incidents, "resolved_at") == [MONTH_AGO]
    assert left(either_engine, journal.inbox, "body") == ["new", "younger"]
    assert left(either_engine, journal.outbox, "body") == ["answered 410", "newest", "sent lately", "unsent"]
    assert left(either_engine, journal.events, "what") == ["0"]
    assert left(either_engine, moves, "moved_at") == [young]


def test_it_is_done_in_slices_of_the_oldest_rows(either_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction of many thousand rows would hold up the bookings; a look at all of them the disk."""
    monkeypatch.setattr(retention, "SLICE", 10)
    monkeypatch.setattr(retention, "OLDEST", 30)
    add(either_engine, journal.inbox, *(message(str(one), "done", WEEK_AGO - 1) for one in range(25)))
    add(either_engine, journal.inbox, *(message("young", "done", NOW) for _ in range(40)))
    add(either_engine, journal.inbox, message("out of its order", "done", WEEK_AGO - 1))
    rules = [one for one in retention.of_teacher(BEFORE) if one.table is journal.inbox]
    assert forget(either_engine, rules) == [10, 10, 5]
    assert left(either_engine, journal.inbox, "body") == ["out of its order", *["young"] * 40]


def test_rows_that_must_stay_hide_no_newer_ones_however_many_they_are(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that Redis refuses for weeks, say: the oldest rows are theirs, and all that is done lies behind them."""
    monkeypatch.setattr(retention, "OLDEST", 30)
    old = WEEK_AGO - 1
    done = message("done", "done", old), message("young", "done", NOW)
    add(either_engine, journal.inbox, *(message("stays", "new", old) for _ in range(30)), *done)
    add(either_engine, journal.outbox, *(sent("stays", None) for _ in range(30)), sent("sent", old), sent("young", NOW))
    orders_ = [order(f"stays {one}", "waiting", QUARTER_AGO - 9) for one in range(30)]
    add(either_engine, orders, *orders_, order("over", "aired", QUARTER_AGO - 1))
    assert forget(either_engine, retention.of_teacher(BEFORE)) == [1, 1, 1], "one message, one answer, one class"


def test_what_is_needed_again_meanwhile_stays(either_engine: Engine) -> None:
    add(either_engine, orders, order("c-1", "aired", QUARTER_AGO - 1))
    (rule,) = [one for one in retention.of_teacher(BEFORE) if one.table is orders]
    keys = look(either_engine, retention.outdated, rule)
    with transaction(either_engine) as connection:
        connection.execute(orders.update().values(state="placed"))
        assert retention.forget(connection, rule, keys) == 0
    assert left(either_engine, orders, "class_id") == ["c-1"]


def test_a_streamer_forgets_released_classes_and_why_recordings_failed(streamer_engine: Engine) -> None:
    """With their row of the old table. Each bad URL that was ever booked would leave a row; what is here stays."""
    released = {"old": QUARTER_AGO - 1, "young": QUARTER_AGO, "on air": None}
    for class_id, at in released.items():
        add(streamer_engine, at_streamer.classes, {"class_id": class_id, "video_id": "6666", "released_at": at})
    for class_id in (*released, "the old program's"):
        add(streamer_engine, at_streamer.tasks, {"class_id": class_id})
    parts = sent_part("of last year", YEAR_AGO - 1), sent_part("old", YEAR_AGO)
    add(streamer_engine, at_streamer.as_runs, *parts)
    old, young = QUARTER_AGO - 1, QUARTER_AGO
    rows = [("old", "bad", old), ("young", "bad", young), ("whole", "ready", old), ("on its way", "downloading", old)]
    for stem, state, at in (*rows, ("the old program's", None, None)):
        add(streamer_engine, at_streamer.files, {"id": stem, "state": state, "update_time": at})
    forget(streamer_engine, retention.of_streamer(BEFORE))
    assert left(streamer_engine, at_streamer.files, "id") == ["on its way", "the old program's", "whole", "young"]
    assert left(streamer_engine, at_streamer.as_runs, "class_id") == ["old"]
    assert left(streamer_engine, at_streamer.classes, "class_id") == ["on air", "young"]
    assert left(streamer_engine, at_streamer.tasks, "class_id") == ["on air", "the old program's", "young"]


def test_a_cancel_for_whose_booking_nobody_waits_goes_and_a_teacher_that_is_gone(either_engine: Engine) -> None:
    """A cancel that a streamer has yet to confirm is closed by a sweep."""
    of_class = {"cancelled_at": NOW - 600, "told_at": NOW - 600}
    waits = {"early": (NOW + 1, None), "too early": (NOW, None), "unconfirmed": (NOW - DAY, "s1")}
    for class_id, (until, streamer) in waits.items():
        add(either_engine, cancels, {"class_id": class_id, "until": until, "streamer": streamer, **of_class})
    add(either_engine, teachers, {"name": "gone", "seen_at": WEEK_AGO - 1}, {"name": "there", "seen_at": WEEK_AGO})
    forget(either_engine, retention.of_teacher(BEFORE))
    assert left(either_engine, cancels, "class_id") == ["early", "unconfirmed"]
    assert left(either_engine, teachers, "name") == ["there"]


def test_ids_that_were_given_are_not_given_again(either_engine: Engine) -> None:
    add(either_engine, journal.outbox, *(sent(f"{n}", WEEK_AGO - 1) for n in range(5)))
    add(either_engine, class_events, *(told("c", n, MONTH_AGO - 1) for n in range(1, 6)))
    add(either_engine, journal.inbox, *(message(f"{n}", "done", WEEK_AGO - 1) for n in range(5)))
    forget(either_engine, retention.of_teacher(BEFORE))
    add(either_engine, journal.inbox, message("new", "new", NOW))
    assert look(either_engine, inbox.unhandled, range(1, 6)) == set(), "a Retry of a run of then handles it"
    add(either_engine, journal.outbox, sent("new", None))
    assert left(either_engine, journal.outbox, "id")[-1] == 6
    add(either_engine, class_events, told("d", 1, NOW))
    ids = [row.class_id for row in look(either_engine, events.feed, 5, None, 9)]
    assert ids == ["d"], "who has read up to 5 gets it"


def test_moves_of_an_open_class_stay(either_engine: Engine) -> None:
    add(either_engine, orders, order("c", "ready", NOW + DAY) | {"streamer": "streamer2", "placement": 2})
    add(either_engine, moves, move(WEEK_AGO - 1) | {"refused": False})
    forget(either_engine, retention.of_teacher(BEFORE))
    host = hosts.teacher(either_engine)
    changed = commit(either_engine, lambda c: change(c, host, granted("streamer1", "s", 30.0)))
    kinds: list[type[object]] = [type(one.message) for one in changed.sends]
    assert kinds == list[type[object]]((Release, Grant))


def test_the_numbers_of_a_broken_class_go_on_until_its_end(either_engine: Engine) -> None:
    add(either_engine, orders, order("c", "broken", NOW + DAY) | {"updated_at": MONTH_AGO - 1})
    add(either_engine, class_events, told("c", 1, MONTH_AGO - 1), told("d", 1, NOW))
    forget(either_engine, retention.of_teacher(BEFORE))
    changes = Changes(hosts.teacher(either_engine).settings, NOW)
    changes.announce(look(either_engine, bookings.by_id, ["c"])["c"], "ended")
    commit(either_engine, write, changes)
    assert [one.seq for one in changes.class_events] == [2]
