"""What a host forgets by age, and that nothing which is still needed goes with it."""

import pytest
from sqlalchemy import Connection, Engine, Table, func, insert, select

from lectern.db import retention
from lectern.db.engine import reading, transaction
from lectern.db.retention import RetentionRule, RowsBefore
from lectern.model.tables import streamer as at_streamer
from lectern.model.tables.teacher import as_runs, class_events, journal, moves, orders
from tests.rows import commit, look

DAY = 86_400.0
NOW = 1_764_010_800.0
WEEK_AGO, MONTH_AGO, QUARTER_AGO, YEAR_AGO = (NOW - days * DAY for days in (7, 30, 90, 400))
BEFORE = RowsBefore(messages=WEEK_AGO, events=MONTH_AGO, classes=QUARTER_AGO, as_run=YEAR_AGO)


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


def test_a_teacher_forgets_what_is_done_with_and_nothing_else(either_engine: Engine) -> None:
    add(
        either_engine,
        orders,
        order("aired", "aired", QUARTER_AGO - 1),
        order("refused", "refused", QUARTER_AGO - 1),
        order("broken", "broken", QUARTER_AGO - 1),
        order("waits for ever", "waiting", QUARTER_AGO - 1),
        order("younger", "aired", QUARTER_AGO + 1),
    )
    old, young = WEEK_AGO - 1, WEEK_AGO + 1
    add(either_engine, journal.inbox, *(message(one, one, old) for one in ("done", "dead", "new")))
    add(either_engine, journal.inbox, message("younger", "done", young))
    add(either_engine, journal.outbox, sent("sent", old), sent("unsent", None), sent("sent lately", young))
    add(either_engine, journal.events, *({"at": MONTH_AGO + by, "what": str(by), "host": "t"} for by in (-1, 1)))
    add(
        either_engine,
        moves,
        *({"class_id": "c", "streamer": "s", "placement": 1, "moved_at": at} for at in (old, young)),
    )
    sent_part = {"streamer": "s", "url": 0, "session": 1, "source": "recording", "position_s": 0, "sent_s": 9}
    parts = [{**sent_part, "class_id": str(at), "begins": at - 9, "ends": at} for at in (YEAR_AGO - 1, YEAR_AGO + 1)]
    add(either_engine, as_runs, *parts)
    told = {"event": "accepted", "body": "{}"}
    for class_id, seq, at in (("aired", 1, MONTH_AGO - 1), ("aired", 2, MONTH_AGO + 1), ("waits for ever", 1, 0)):
        add(either_engine, class_events, {"class_id": class_id, "seq": seq, "at": at, **told})
    forget(either_engine, retention.of_teacher(BEFORE))
    assert left(either_engine, as_runs, "ends") == [YEAR_AGO + 1]
    assert left(either_engine, class_events, "class_id") == ["aired", "waits for ever"], "a class's numbers go on"
    assert left(either_engine, orders, "class_id") == ["waits for ever", "younger"]
    assert left(either_engine, journal.inbox, "body") == ["new", "younger"]
    assert left(either_engine, journal.outbox, "body") == ["sent lately", "unsent"]
    assert left(either_engine, journal.events, "what") == ["1"]
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


@pytest.mark.parametrize("kind", ["inbox", "outbox", "order_list"])
def test_rows_that_must_stay_hide_no_newer_ones_however_many_they_are(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Messages that Redis refuses for weeks, say: the oldest rows are theirs, and all that is done lies behind them."""
    monkeypatch.setattr(retention, "OLDEST", 30)
    old = WEEK_AGO - 1
    done = message("done", "done", old), message("young", "done", NOW)
    add(either_engine, journal.inbox, *(message("stays", "new", old) for _ in range(30)), *done)
    add(either_engine, journal.outbox, *(sent("stays", None) for _ in range(30)), sent("sent", old), sent("young", NOW))
    orders_ = [order(f"stays {one}", "waiting", QUARTER_AGO - 9) for one in range(30)]
    add(either_engine, orders, *orders_, order("over", "aired", QUARTER_AGO - 1))
    rules = [one for one in retention.of_teacher(BEFORE) if one.table.name.startswith(kind)]
    assert forget(either_engine, rules) == [1]


def test_what_is_needed_again_meanwhile_stays(either_engine: Engine) -> None:
    add(either_engine, orders, order("c-1", "aired", QUARTER_AGO - 1))
    (rule,) = [one for one in retention.of_teacher(BEFORE) if one.table is orders]
    keys = look(either_engine, retention.outdated, rule)
    with transaction(either_engine) as connection:
        connection.execute(orders.update().values(state="placed"))
        assert retention.forget(connection, rule, keys) == 0
    assert left(either_engine, orders, "class_id") == ["c-1"]


def test_a_streamer_forgets_released_classes_with_their_row_of_the_old_table(streamer_engine: Engine) -> None:
    released = {"old": QUARTER_AGO - 1, "young": QUARTER_AGO + 1, "on air": None}
    for class_id, at in released.items():
        add(streamer_engine, at_streamer.classes, {"class_id": class_id, "video_id": "6666", "released_at": at})
    for class_id in (*released, "the old program's"):
        add(streamer_engine, at_streamer.tasks, {"class_id": class_id})
    as_run = {"url": 0, "session": 1, "source": "recording", "begins": 0, "position_s": 0, "sent_s": 1}
    for class_id, ends in (("of last year", YEAR_AGO - 1), ("old", QUARTER_AGO - 1)):
        add(streamer_engine, at_streamer.as_runs, {"class_id": class_id, "ends": ends, **as_run})
    forget(streamer_engine, retention.of_streamer(BEFORE))
    assert left(streamer_engine, at_streamer.as_runs, "class_id") == ["old"]
    assert left(streamer_engine, at_streamer.classes, "class_id") == ["on air", "young"]
    assert left(streamer_engine, at_streamer.tasks, "class_id") == ["on air", "the old program's", "young"]


def test_a_streamer_forgets_why_recordings_failed_but_not_those_it_has(streamer_engine: Engine) -> None:
    """Each bad URL that was ever booked would leave a row."""
    old, young = QUARTER_AGO - 1, QUARTER_AGO + 1
    rows = [("old", "bad", old), ("young", "bad", young), ("whole", "ready", old), ("on its way", "downloading", old)]
    for stem, state, at in rows:
        add(streamer_engine, at_streamer.files, {"id": stem, "state": state, "update_time": at})
    add(streamer_engine, at_streamer.files, {"id": "the old program's", "state": None, "update_time": None})
    forget(streamer_engine, retention.of_streamer(BEFORE))
    assert left(streamer_engine, at_streamer.files, "id") == ["on its way", "the old program's", "whole", "young"]


def test_after_its_retention_a_host_is_as_large_as_it_stays(either_engine: Engine) -> None:
    """Twenty classes a day: from the hundredth day on, no table has more or fewer rows."""
    sizes = set()
    for days in (range(101), *([day] for day in range(101, 110))):
        now, classes = NOW + days[-1] * DAY, [(f"d{day}-{one}", NOW + day * DAY) for day in days for one in range(20)]
        add(either_engine, orders, *(order(one, "aired", at) for one, at in classes))
        add(either_engine, journal.inbox, *(message(one, "done", at) for one, at in classes))
        add(either_engine, journal.outbox, *(sent(one, at) for one, at in classes))
        add(either_engine, journal.events, *({"at": at, "what": "aired", "host": "t"} for _, at in classes))
        forget(either_engine, retention.of_teacher(RowsBefore(*(now - kept * DAY for kept in (7, 30, 90, 400)))))
        with reading(either_engine) as connection:
            tables = (orders, journal.inbox, journal.outbox, journal.events)
            counted = (connection.execute(select(func.count()).select_from(one)) for one in tables)
            sizes.add(tuple(one.scalar_one() for one in counted))
    assert sizes == {(91 * 20, 8 * 20, 8 * 20, 31 * 20)}
