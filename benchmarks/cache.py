"""What it costs to claim a place in a full cache and to evict for it, beside python-diskcache."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from diskcache import Cache
from sqlalchemy import Connection

from benchmarks import streamer
from benchmarks.figures import Figure, growth, quantile
from benchmarks.stand import Stand
from flows.handling import change
from flows.host import StreamerHost
from flows.streamer import prepare
from lectern.db import cache
from lectern.db.engine import transaction
from lectern.model.streamer_plan import StreamerChanges
from lectern.storage.origin import RemoteFile
from lectern.wire.messages import Prepare

WHAT = (
    "a streamer's cache is full of renditions that no class cites. A class comes that needs another one: in one"
    " transaction it is decided, the least recently used rendition leaves the sums, room is reserved, the class and"
    " its citation are written. The peer, python-diskcache, looks for a key and sets it, and evicts its least recently"
    " used one, in one transaction; it is shown as it comes, and with `synchronous = full`, which ours has, so that"
    " what was committed survives a power cut. No file is written by either"
)
SIZES = (1000, 10_000, 100_000, 1_000_000)
TURN = 25
VALUE = "x" * 200
AS_IT_COMES, FULL = "diskcache", "diskcache, full sync"

Way = Callable[[int], None]


def measure(stand: Stand) -> Iterator[Figure]:
    """The three, in turns, at each size."""
    p50s: list[Figure] = []
    p99s: list[Figure] = []
    for rows in SIZES[:3] if stand.quick else SIZES:
        found = _measured(stand, rows, 200 if stand.quick else 1000)
        p50s.append(_figure(f"cache, {rows:,}: p50", found, 0.50, rows))
        p99s.append(_figure(f"cache, {rows:,}: p99", found, 0.99, rows, _goal(found) if rows == SIZES[-1] else ""))
        yield from (p50s[-1], p99s[-1])
    yield growth("cache: growth of p50", p50s)
    last, middle = p99s[-1], p99s[1]
    peers = {name: value / middle.peers[name] for name, value in last.peers.items()}
    row = f"cache: p99 at {last.size:,} to that at {middle.size:,}"
    yield Figure(row, "ratio", last.ours / middle.ours, peers, more_is_better=False, goal="<= 1.5", compares=False)


def _goal(found: dict[str, list[float]]) -> str:
    """2.6 ms, or as long as the peer of the same durability takes in the same run, and a tenth more."""
    return f"<= {max(2.6, 1.1 * quantile(found[FULL], 0.99) * 1000):.3g}"


def _figure(row: str, found: dict[str, list[float]], share: float, rows: int, goal: str = "") -> Figure:
    values = {name: quantile(times, share) * 1000 for name, times in found.items()}
    return Figure(row, "ms", values.pop("ours"), values, more_is_better=False, goal=goal, size=rows)


def _measured(stand: Stand, rows: int, number: int) -> dict[str, list[float]]:
    """Seconds of each claim, of each way."""
    folder = stand.folder()
    stems = [str(i) for i in range(1, rows + 1)]
    with (
        streamer.host(folder, rows) as host,
        closing(_peer(folder / "as-it-comes", stems, 1)) as plain,
        closing(_peer(folder / "full", stems, 2)) as full,
    ):
        streamer.fill(host, stems)
        ways: dict[str, Way] = {
            "ours": lambda i: _claim(host, rows + 1 + i),
            AS_IT_COMES: lambda i: _set(plain, rows + 1 + i),
            FULL: lambda i: _set(full, rows + 1 + i),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for first in range(0, number, TURN):
            for name, way in ways.items():
                for i in range(first, first + TURN):
                    began = time.perf_counter()
                    way(i)
                    times[name].append(time.perf_counter() - began)
                    if name == "ours":
                        _settle(host, rows + 1 + i)
        with transaction(host.engine) as connection:
            assert cache.used(connection, host.settings.video_root).num == rows, "the bound was not kept"
    medians = ", ".join(f"{name} {quantile(found, 0.5) * 1000:.2f} ms" for name, found in times.items())
    stand.say(f"cache of {rows:,}: {medians}")
    return times


def _claim(host: StreamerHost, record: int) -> None:
    now = time.time()
    url = f"http://127.0.0.1/{record}/{record}.flv"
    wanted = Prepare(
        class_id=f"c-{record}",
        institution_id="i-7",
        record_id=record,
        video_url=url,
        push_url=f"rtmp://127.0.0.1/live/c-{record}",
        start_time=now + 90_000,
        end_time=now + 92_700,
    )
    remote = RemoteFile(url=url, size_bytes=streamer.SIZE_BYTES, etag=None, crc64=None)
    with transaction(host.engine) as connection:
        changes = _admitted(connection, host, wanted, remote)
    assert len(changes.evicted) == 1, f"{len(changes.evicted)} renditions were evicted for one"


def _admitted(connection: Connection, host: StreamerHost, wanted: Prepare, remote: RemoteFile) -> StreamerChanges:
    def go(connection: Connection, changes: StreamerChanges) -> None:
        prepare.admit(connection, changes, [wanted], {wanted.stem: remote})

    return change(connection, host, go)


def _settle(host: StreamerHost, record: int) -> None:
    """What follows: the evicted file is gone, and the download is there. It is not counted, the peer has no such."""
    with transaction(host.engine) as connection:
        cache.forget(connection, [one.stem for one in cache.evicting(connection)])
        before = cache.by_stem(connection, [str(record)])[str(record)]

        def go(_connection: Connection, changes: StreamerChanges) -> None:
            changes.arrive(before, before.size_bytes, duration_s=30.0)

        change(connection, host, go)


def _peer(folder: Path, stems: list[str], synchronous: int) -> Cache:
    """A full cache; it is filled past its own calls, which would take many minutes."""
    found = Cache(
        str(folder),
        eviction_policy="least-recently-used",
        cull_limit=1,
        sqlite_synchronous=synchronous,
        size_limit=2**50,
    )
    insert = (
        "insert into Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename,"
        " value) values (?, 1, ?, null, ?, 0, null, 0, 1, null, ?)"
    )
    with closing(sqlite3.connect(folder / "cache.db", timeout=60)) as connection, connection:
        connection.executemany(insert, ((stem, float(i), float(i), VALUE) for i, stem in enumerate(stems)))
    found.reset("size_limit", found.volume())
    return found


def _set(peer: Cache, record: int) -> None:
    with peer.transact():
        assert peer.get(str(record)) is None
        peer.set(str(record), VALUE)
