"""What a streamer does again and again costs the same with thousands of renditions in its cache as with a few."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from benchmarks import streamer
from flows.handling import change
from flows.host import Streamer
from flows.streamer import admission, sweep
from lectern.effects.files.origin import RemoteFile
from lectern.effects.rows import cache, dead_air
from lectern.messages import Prepare
from lectern.streamer_changes import StreamerChanges
from tests.effects.sqlite_steps import steps

SOME, MANY = 2000, 8000


def claim(connection: Connection, host: Streamer) -> None:
    """A class comes that needs another rendition, for which one has to go."""
    now, record = time.time(), 10_000_000
    url = f"http://127.0.0.1/{record}.flv"
    wanted = Prepare(
        class_id="c-1",
        record_id=record,
        video_url=url,
        push_url="rtmp://127.0.0.1/live/c-1",
        start_time=now + 900,
        end_time=now + 1800,
    )
    remote = RemoteFile(url=url, size_bytes=streamer.SIZE_BYTES, etag=None, crc64=None)

    def go(connection: Connection, changes: StreamerChanges) -> None:
        admission.admit(connection, changes, [wanted], {wanted.stem: remote})

    assert len(change(connection, host, go).evicted) == 1


LOOKS: dict[str, Callable[..., object]] = {
    "a claim that evicts": claim,
    "what a sweep finds": lambda connection, host: sweep._left(connection),
    "which recording is looked through next": lambda connection, host: dead_air.unlooked(connection, time.time()),
    "which dead air is told": lambda connection, host: dead_air.untold(connection, time.time()),
    "the downloads": lambda connection, host: cache.downloading(connection, time.time()),
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
