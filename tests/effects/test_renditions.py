"""Who makes which renditions, and which of them in one job: one owner at a time, whoever comes, goes and is killed."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, insert, update

from lectern.effects.rows import ecs_hosts, renditions, transcodings
from lectern.effects.rows.ecs_hosts import Begun
from lectern.effects.rows.tables.engine import transaction
from lectern.effects.rows.transcodings import Due
from lectern.facts import Attempt
from lectern.model.tables.teacher import orders, videos
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
        renditions.begin(connection, attempts, NOW)
        yield connection


def take(rows: Connection, wanted: list[Resolution], owner: str, now: float = NOW) -> list[Due]:
    return transcodings.take(rows, [(RECORD, one) for one in wanted], owner, LEASE_S, now)


def join(rows: Connection, due: list[Due], owner: str, *strangers: str) -> list[Resolution]:
    return [one.resolution for one in transcodings.join(rows, due, owner, strangers, NOW + LEASE_S)]


def resolutions(due: list[Due]) -> list[Resolution]:
    return [one.resolution for one in due]


def test_what_another_run_waits_for_is_joined_and_is_no_longer_its_own(rows: Connection) -> None:
    first, second = take(rows, [P240], "first"), take(rows, [P480], "second")
    assert join(rows, second, "second") == [P240]
    assert ecs_hosts.ours(rows, first, "first") == []
    assert resolutions(ecs_hosts.ours(rows, [*first, *second], "second")) == [P240, P480]
    assert take(rows, [P240], "first") == []


def test_what_was_asked_for_a_moment_later_and_has_no_run_yet_is_joined(rows: Connection) -> None:
    """Its own run finds it taken, and ends as it does."""
    first = take(rows, [P240], "first")
    assert join(rows, first, "first") == [P480]
    assert take(rows, [P480], "second") == []
    assert resolutions(transcodings.elsewhere(rows, [(RECORD, P480)], "second")) == [P480]
    assert transcodings.elsewhere(rows, [(RECORD, P240)], "first") == []


def test_what_has_begun_or_has_another_source_is_not_joined(rows: Connection) -> None:
    first = take(rows, [P240], "first")
    take(rows, [P720], "third")
    second = take(rows, [P480], "second")
    assert join(rows, first, "first", "second") == [], "it has failed where this one begins"
    ecs_hosts.attach(rows, second, "second", Begun("ssh://a@b:22", "job", NOW))
    assert join(rows, first, "first") == []


def test_a_joint_job_is_taken_up_as_a_whole(rows: Connection) -> None:
    """By its own run, which only asks for one of them, at once; by another when the lease is over."""
    first = take(rows, [P240], "first")
    take(rows, [P480], "second")
    join(rows, first, "first")
    both = [*first, *take(rows, [P240, P480], "first")[1:]]
    ecs_hosts.attach(rows, both, "first", Begun("ssh://a@b:22", "job", NOW))
    assert resolutions(take(rows, [P240], "first")) == [P240, P480]
    assert take(rows, [P480], "second") == []
    late = take(rows, [P480], "second", NOW + 2 * LEASE_S)
    assert {one.ecs_job for one in late} == {"job"}
    assert resolutions(late) == [P240, P480]
    assert ecs_hosts.ours(rows, both, "first") == []


def test_each_result_is_published_once_and_by_the_owner_alone(rows: Connection) -> None:
    due = take(rows, [P240, P480], "first")
    assert ecs_hosts.published(rows, due, "stranger") == []
    assert resolutions(ecs_hosts.published(rows, due[:1], "first")) == [P240]
    assert resolutions(ecs_hosts.reported(rows, due, "first", NOW + 99, step="upload")) == [P480]
    assert resolutions(ecs_hosts.published(rows, due, "first")) == [P480]
    assert ecs_hosts.published(rows, due, "first") == []


def test_a_rendition_that_nobody_knows_how_to_make_hides_no_other(
    rows: Connection, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert ecs_hosts.starts(rows) == {(1, P720): NOW}
    assert (1, "1440P") not in ecs_hosts.waiting_elsewhere(rows, [], NOW)
    assert "1_1440P: its transcoding cannot be read, and is passed over" in caplog.text
