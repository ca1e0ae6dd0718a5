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


def test_each_result_is_published_once_and_by_the_owner_alone(rows: Connection) -> None:
    """What a decision sets in a row that it has read is not written: it must be in the plan that a dry run prints."""
    for one in transcodings.under_way(rows):
        one.step = "elsewhere"
    assert [one.step for one in transcodings.under_way(rows)] == [None, None, None]
    due = take(rows, [P240, P480], "first")
    published = partial(transcodings.reported, rows, step=transcodings.PUBLISHED)
    assert published(due, "stranger") == []
    assert resolutions(published(due[:1], "first")) == [P240]
    assert resolutions(transcodings.reported(rows, due, "first", step="upload")) == [P480]
    assert resolutions(published(due, "first")) == [P480]
    assert published(due, "first") == []


def test_a_rendition_nobody_can_make_hides_no_other(rows: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """A newer release has begun it, or an old program: the sweep would end no other transcoding, nor tell any class.

    Nor is its deadline the next one, for which a sweep would come each second for ever.
    """
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
    assert transcodings.next_deadline(rows, NOW) == NOW - 1
    waits = {"start_time": NOW, "end_time": NOW + 60, "payload": "{}", "received_at": NOW, "updated_at": NOW}
    for size in ("1440P", "720P"):
        known = {"class_id": f"c-{size}", "record_id": 1, "resolution": size, "state": "waiting"}
        rows.execute(insert(orders).values(**known, **waits))
    rows.execute(update(videos).values(lease_until=NOW + 60))
    assert transcodings.first_starts(rows) == {(1, P720): NOW}
    assert (1, "1440P") not in transcodings.waiting_elsewhere(rows, [], NOW)
    assert "1_1440P: its transcoding cannot be read, and is passed over" in caplog.text


def test_what_a_dead_run_left_makes_no_sweep_come_each_second(rows: Connection) -> None:
    """Each began one more run for each such rendition, until it was taken up: thousands after a power cut."""
    take(rows, [P240], "a")
    rows.execute(update(videos).where(videos.c.resolution == P240).values(deadline=NOW + 100))
    assert [transcodings.next_deadline(rows, NOW + at) for at in (60, 61)] == [NOW + 100, NOW + 3600]
    assert transcodings.overdue(rows, NOW + 100) == []


def test_a_transcoding_is_late_forsaken_or_waited_for_from_its_second_on(rows: Connection) -> None:
    key, everything = (RECORD, P240), [P240, P480, P720]
    late = [transcodings.overdue(rows, NOW + 3600 + at) for at in (-1, 0)]
    forsaken = [transcodings.ownerless(rows, NOW + at, NOW) for at in (0, 1)]
    assert [len(one) for one in (*late, *forsaken)] == [0, 3, 0, 3]
    take(rows, [P240], "a")
    forsaken = [transcodings.ownerless(rows, NOW, NOW + LEASE_S + at) for at in (0, 1)]
    assert [resolutions(one) for one in forsaken] == [[], [P240]]
    waiting = [transcodings.waiting_elsewhere(rows, [me], NOW + at) for me, at in (("b", 59), ("b", 60), ("a", 0))]
    assert waiting == [[key], [], []]
    assert [transcodings.others(rows, [key], "b", NOW + LEASE_S + at) for at in (0, 1)] == [["a"], []]
    assert resolutions(take(rows, everything, "b", NOW + LEASE_S)) == [P480, P720]
    for at, deadline in ((0, NOW + 3600), (transcodings.RENEW_S, NOW + 3600), (1801, NOW + 1801 + 3600)):
        transcodings.kept_waiting(rows, ["a"], NOW + 9999, NOW + at)
        (mine,) = transcodings.among(rows, [key])
        assert (mine.deadline, mine.lease_until) == (deadline, NOW + 9999)


def test_what_is_over_or_wanted_no_more_is_noted_of_the_one_rendition_alone(rows: Connection) -> None:
    first, second, third = keys = [(RECORD, one) for one in (P240, P480, P720)]
    due = take(rows, [P240, P480, P720], "a")
    transcodings.attach(rows, due, "a", BegunJob("h", "job", NOW))
    assert transcodings.left_behind(rows, keys) == []
    assert [one.jobs for one in transcodings.host_facts(rows, ["h", "other"])] == [1, 0]
    transcodings.reported(rows, due[:1], "a", step=transcodings.PUBLISHED)
    transcodings.drop(rows, second, "nobody needs it", NOW)
    assert set(resolutions(transcodings.left_behind(rows, keys))) == {P240, P480}
    transcodings.given_up(rows, due[2:], "a")
    assert len(transcodings.left_behind(rows, keys)) == 3
    for host, job, left in (("other", "job", 3), ("h", "another", 3), ("h", "job", 0)):
        transcodings.detached(rows, host, job)
        assert len(transcodings.left_behind(rows, keys)) == left
    transcodings.retry(rows, keys, NOW)
    again = {one.resolution: one for one in transcodings.among(rows, keys)}
    assert [(one.attempt, one.attempts_today) for one in again.values()] == [(1, 1), (2, 0), (1, 1)]
    assert (again[P480].status, again[P480].deadline) == ("transcoding", NOW + 3600)
    transcodings.fall_back(rows, third, NOW + 9)
    assert transcodings.among(rows, [third])[0].deadline == NOW + 9 + 3600
    assert first in [one.key for one in transcodings.under_way(rows)]


def test_a_request_is_its_owners_until_it_is_made_or_its_lease_is_over(either_engine: Engine) -> None:
    key, end = (RECORD, P720), NOW + LEASE_S
    with transaction(either_engine) as rows:
        transcodings.begin(rows, [Attempt(*key, 2, 1, NOW, Backend.OSS, NOW + 600, ORIGINAL)], NOW)
        forgotten = [transcodings.forgotten_requests(rows, NOW + at, NOW) for at in (0, 1)]
        assert [len(one) for one in forgotten] == [0, 1]
        (due,) = transcodings.open_requests(rows, [key], "a", NOW)
        before = due.model_copy(update={"attempt": 1})
        asked = [(before, "a"), (due, "a"), (due, "b"), (due, "a")]
        taken = [transcodings.take_request(rows, *one, LEASE_S, NOW) for one in asked]
        assert taken == [False, True, False, True]
        assert [len(transcodings.forgotten_requests(rows, NOW + 1, end + at)) for at in (0, 1)] == [0, 1]
        assert transcodings.open_requests(rows, [key], "b", end) == []
        assert [one.attempt for one in transcodings.open_requests(rows, [key], "b", end + 1)] == [2]
        assert transcodings.take_request(rows, due, "b", LEASE_S, end + 1)
        assert [transcodings.note_requested(rows, one, NOW, end) for one in (before, due)] == [False, True]
        assert transcodings.last_request_taken(rows) == NOW
        assert transcodings.next_deadline(rows, NOW) == end
