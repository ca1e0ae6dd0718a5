"""What a streamer does again and again costs the same with thousands of renditions in its cache as with a few."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from benchmarks import streamer
from flows.handling import change
from flows.host import StreamerHost
from flows.streamer import maintenance, prepare
from flows.streamer.readiness import word
from lectern.db import airings, cache
from lectern.db.engine import open_database, transaction
from lectern.model.streamer_plan import StreamerChanges
from lectern.storage.origin import RemoteFile
from tests import rows
from tests.effects.sqlite_steps import steps
from tests.faults import hosts

SOME, MANY = 2000, 8000


def claim(connection: Connection, host: StreamerHost) -> None:
    """A class comes that needs another rendition, for which one has to go."""
    wanted = rows.prepare("c-1", 10_000_000, time.time() + 900)
    remote = RemoteFile(url=wanted.video_url, size_bytes=streamer.SIZE_BYTES, etag=None, crc64=None)

    def go(connection: Connection, changes: StreamerChanges) -> None:
        prepare.admit(connection, changes, [wanted], {wanted.stem: remote})

    assert len(change(connection, host, go).evicted) == 1


LOOKS: dict[str, Callable[..., object]] = {
    "a claim that evicts": claim,
    "what a sweep finds": lambda connection, host: maintenance._left(connection),
    "which recording is looked through next": lambda connection, host: airings.unlooked(connection, time.time()),
    "which dead air is told": lambda connection, host: airings.untold_faults(connection, time.time()),
    "the downloads": lambda connection, host: cache.downloading(connection),
    "the file of an evicted rendition is gone": lambda connection, host: cache.forget(connection, ["17"]),
}


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in LOOKS}
    for number in (SOME, MANY):
        folder: Path = tmp_path_factory.mktemp(f"cache-{number}")
        with streamer.host(folder, number) as host:
            streamer.fill(host, [str(i) for i in range(1, number + 1)])
            for name, look in LOOKS.items():
                found[name].append(steps(host.engine, partial(look, host=host)))
    return found


@pytest.mark.parametrize("what", list(LOOKS))
def test_it_takes_no_longer_with_four_times_the_renditions(taken: dict[str, list[int]], what: str) -> None:
    some, many = taken[what]
    assert many <= 1.2 * some + 20


DAY_S = 86_400


def test_classes_of_tomorrow_are_not_read_with_each_heartbeat(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{hosts.database('streamer', tmp_path / 'task_list.db')}")
    settings = hosts.streamer(engine, tmp_path, 10_000_000, 1000).settings
    now, taken = time.time(), []
    for begins, number in ((now - 60, 3), (now + DAY_S, 200), (now + 2 * DAY_S, 2000)):
        with transaction(engine) as connection:
            for one in range(number):
                rows.bare(connection, f"c-{begins:.0f}-{one}", begins)
        assert rows.look(engine, word, settings, now).due == 3
        taken.append(steps(engine, lambda connection: word(connection, settings, now)))
    engine.dispose()
    # What is left are two looks at the state and the start of each class, and at the faults of its recording: 0.3 each.
    # A row that is read takes twice as much.
    assert taken[2] - taken[1] < 2000 * 0.7
