"""Who makes which renditions: one owner at a time, whoever comes, goes and is killed."""

from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import Connection, Engine, insert, update

from lectern.db import transcodings
from lectern.db.engine import transaction
from lectern.db.transcodings import BegunJob
from lectern.model.facts import Attempt
from lectern.model.tables.teacher import RenditionRow, orders, videos
from lectern.states import Backend, Resolution
from tests.strategies import NOW

RECORD, LEASE_S = 6666, 60.0
P240, P480, P720 = Resolution.P240, Resolution.P480, Resolution.P720
ORIGINAL = "http://origin/6666.flv"


@pytest.fixture
def rows(either_engine: Engine) -> Iterator[Connection]:
    """Three renditions of a record are wanted of our own servers, the last one from a larger source."""
    with transaction(either_engine) as connection:
        sources = {P240: ORIGINAL, P480: ORIGINAL, P720: "http://origin/6666_1080P.flv"}
        attempts = [Attempt(RECORD, one, 1, 1, NOW, Backend.ECS, NOW + 3600, url) for one, url in sources.items()]
        transcodings.begin(connection, attempts, NOW)
        yield connection


def take(rows: Connection, wanted: list[Resolution], owner: str, now: float = NOW) -> list[RenditionRow]:
    return transcodings.take(rows, [(RECORD, one) for one in wanted], owner, LEASE_S, now)


def resolutions(due: list[RenditionRow]) -> list[Resolution]:
    return [one.resolution for one in due]


def test_what_another_run_has_in_its_hands_is_left_to_it_while_its_lease_lasts(rows: Connection) -> None:
    """Also if it waits for a host, and also in the same job: each run has its own renditions, and its own folder."""
    both, key = take(rows, [P240, P480], "first"), (RECORD, P480)
    assert resolutions(both) == [P240, P480]
    transcodings.attach(rows, both, "first", BegunJob("ssh://a@b:22", "job", NOW))
    assert resolutions(take(rows, [P480, P720], "second")) == [P720]
    assert transcodings.others(rows, [key], "second", NOW) == ["first"]
    assert transcodings.others(rows, [key], "first", NOW) == []
    later = NOW + 2 * LEASE_S
    assert transcodings.others(rows, [key], "second", later) == []
    assert resolutions(take(rows, [P480], "second", later)) == [P480]
    assert resolutions(transcodings.ours(rows, both, "first")) == [P240]
    assert resolutions(take(rows, [P240, P480], "first", later)) == [P240], "its own it finds again"


def test_what_is_set_in_a_row_that_was_read_is_not_written(rows: Connection) -> None:
    """Decisions get rows: what they change must be in the plan that a dry run prints, and nowhere else."""
    for one in transcodings.under_way(rows):
        one.step = "elsewhere"
    assert [one.step for one in transcodings.under_way(rows)] == [None, None, None]


def test_each_result_is_published_once_and_by_the_owner_alone(rows: Connection) -> None:
    due = take(rows, [P240, P480], "first")
    published = partial(transcodings.reported, rows, step=transcodings.PUBLISHED)
    assert published(due, "stranger") == []
    assert resolutions(published(due[:1], "first")) == [P240]
    assert resolutions(transcodings.reported(rows, due, "first", step="upload")) == [P480]
    assert resolutions(published(due, "first")) == [P480]
    assert published(due, "first") == []


def test_a_rendition_nobody_can_make_hides_no_other(rows: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """A newer release has begun it, or an old program: the sweep would end no other transcoding, nor tell any class."""
    rows.execute(update(videos).values(owner="dead", lease_until=NOW - 1, deadline=NOW - 1))
    odd = {"status": "transcoding", "attempt": 1, "deadline": NOW - 2, "owner": "dead", "lease_until": NOW - 1}
    rows.execute(insert(videos).values(record_id=1, resolution="1440P", backend="ecs", **odd))
    rows.execute(insert(videos).values(record_id=2, resolution="720P", backend="gpu", **odd))
    for found in (
        transcodings.overdue(rows, NOW),
        transcodings.under_way(rows),
        transcodings.ownerless(rows, NOW, NOW),
    ):
        assert {one.key for one in found} == {(RECORD, P240), (RECORD, P480), (RECORD, P720)}
    waits = {"start_time": NOW, "end_time": NOW + 60, "payload": "{}", "received_at": NOW, "updated_at": NOW}
    for size in ("1440P", "720P"):
        known = {"class_id": f"c-{size}", "record_id": 1, "resolution": size, "state": "waiting"}
        rows.execute(insert(orders).values(**known, **waits))
    rows.execute(update(videos).values(lease_until=NOW + 60))
    assert transcodings.first_starts(rows) == {(1, P720): NOW}
    assert (1, "1440P") not in transcodings.waiting_elsewhere(rows, [], NOW)
    assert "1_1440P: its transcoding cannot be read, and is passed over" in caplog.text
