"""The events that the platform is told of classes: numbered by class without a hole, and read in the feed's order."""

from sqlalchemy import Connection, Engine, insert

from lectern.db import class_events as events
from lectern.model.tables.teacher import class_events
from tests.rows import commit, look


def add(engine: Engine, class_id: str, seq: int, institution: str | None) -> None:
    row = {"class_id": class_id, "institution_id": institution, "seq": seq, "at": 1.0, "event": "ready", "body": "{}"}
    commit(engine, Connection.execute, insert(class_events), [row])


def test_the_feed_is_read_on_from_any_row_and_shows_an_institution_its_own(either_engine: Engine) -> None:
    for class_id, seq, institution in (("c-1", 1, "i-1"), ("c-2", 1, "i-2"), ("c-1", 2, "i-1"), ("c-3", 1, None)):
        add(either_engine, class_id, seq, institution)

    def feed(after_id: int, institution: str | None, limit: int = 10) -> list[tuple[str, int]]:
        return [(one.class_id, one.seq) for one in look(either_engine, events.feed, after_id, institution, limit)]

    assert feed(0, None) == [("c-1", 1), ("c-2", 1), ("c-1", 2), ("c-3", 1)]
    first, second, *_ = look(either_engine, events.feed, 0, None, 2)
    assert feed(second.id or 0, None, 1) == [("c-1", 2)]
    assert feed(first.id or 0, "i-1") == [("c-1", 2)]
    assert [one.seq for one in look(either_engine, events.after, "c-1", 0, 10)] == [1, 2]
    assert [one.seq for one in look(either_engine, events.after, "c-1", 1, 10)] == [2]
