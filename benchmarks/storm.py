"""Bookings that all come at once: answers a second, beside queues of others that do the same work, and a bare loop."""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from benchmarks.figures import Figure
from benchmarks.stand import Ear, Stand
from tests.stage import Child, Stage, wait_until
from tests.stage.town import RECORDING_S

WHAT = (
    "bookings published on the channel all at once; counted from the first PUBLISH to the last answer heard, with all"
    " rows committed; *view* is how much later the last run is shown."
    " *cached*: the teacher decides, the streamer has the rendition, the teacher"
    " answers (three steps, two databases). *refused*: the teacher answers at once (207). The peers do the same"
    " decision, write the same rows of the class and its events, and publish the same answer, one message a task, each"
    " set up for many short tasks as its documentation says (`benchmarks/peers/`), on the same Redis; their tasks are"
    " enqueued by their own call. The limit is a bare loop over sets: no runs, no inbox, no outbox, no checks."
    " *Cost* is what all processes but those that publish and hear used of the CPU, which other work cannot steal"
)
KINDS = ("refused", "cached")
PEERS = ("dramatiq", "celery")
HOSTS = ("teacher", "streamer1")
SIZES = (1000, 10_000, 100_000)
"""The last one in the first round only."""

RECORDS = 20
LENGTH_S = RECORDING_S
"""A class that is longer than its recording is alarmed, each by itself."""

TIMED_OUT = 999_999
PEERS_NUMBER = 1000
"""A peer handles one message a task: its rate does not grow with their number, and is measured with this one."""

Bodies = list[str]


def bodies(number: int, kind: str, prefix: str, records: Sequence[int]) -> Bodies:
    """The bookings of a storm."""
    start = time.time() + 90_000
    common = {"cmd": "order", "institution_id": "i-7", "start_time": start, "end_time": start + LENGTH_S}
    found: Bodies = []
    for i in range(number):
        record = records[i % len(records)] if kind == "cached" else TIMED_OUT
        class_id, url = f"{prefix}-{i:06}", f"http://127.0.0.1/{record}/{record}.flv"
        fields: dict[str, object] = {"class_id": class_id, "record_id": record, "video_url": url}
        if kind == "refused":
            fields |= {"video_resolution": "720P", "video_url_list": {"480P": url}}
        found.append(json.dumps({**common, **fields, "push_url": f"rtmp://127.0.0.1/live/{class_id}"}))
    return found


@dataclass(frozen=True)
class Storm:
    """How quick it was, and what it cost: all processes but those that publish and hear."""

    rate: float  # answers a second
    cpu_ms: float  # a booking
    lag_s: float | None = None  # from the last answer until the last run is shown, if there are any

    def __str__(self) -> str:
        return f"{self.rate:,.0f} a second, {self.cpu_ms:.2f} CPU ms a booking"


def storm(
    stand: Stand, channel: str, found: Bodies, send: Callable[[Sequence[str]], None], pids: Sequence[int]
) -> Storm:
    """Send the bookings and hear the answers; *pids* and their children do the work, beside Redis."""
    ear = Ear(stand.town.redis_url, channel, len(found), give_up_s=60 + len(found) / 10)
    pids = [*pids, stand.town.servers["redis"].pid]
    before, began = cpu_s(pids), time.time()
    send(found)
    answers = ear.all()
    rate = len(answers) / (max(answers.values()) - began)
    return Storm(rate, (cpu_s(pids) - before) * 1000 / len(found))


def cpu_s(pids: Sequence[int]) -> float:
    """What processes and their children have used so far, of all cores, in seconds."""
    families = [psutil.Process(pid) for pid in pids]
    times = [one.cpu_times() for family in families for one in (family, *family.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def cpu_percent(pids: Sequence[int], seconds: float) -> float:
    """What processes and their children use in so many *seconds*, of one core."""
    before, began = cpu_s(pids), time.monotonic()
    time.sleep(seconds)
    return (cpu_s(pids) - before) / (time.monotonic() - began) * 100


# -- ours ------------------------------------------------------------------------------------------------------------


class Ours:
    """Teachers, and streamers that have the recordings."""

    def __init__(self, stand: Stand, stage: Stage, hosts: Sequence[str] = HOSTS) -> None:
        self._stand, self._stage, self._hosts = stand, stage, hosts
        self.records = [stage.town.record() for _ in range(RECORDS)]
        stage.init("teacher")
        stage.up(*hosts)
        for class_id in [stage.book(of_record(stage, one)) for one in self.records]:
            assert stage.answer(class_id, timeout_s=120)["result"] == "success"
        late = stage.booking(TIMED_OUT, "720P", starts_in_s=90_000)
        _time_out(stage)
        assert stage.answer(stage.book(late))["code"] == 207

    def send(self, found: Sequence[str]) -> None:
        """PUBLISH them."""
        publish(self._stand, self._stage.channels["order"], found)

    def storm(self, number: int, kind: str, prefix: str) -> Storm:
        """A storm; then all must be in the database, and in runs that Prefect shows."""
        servers = [*(self._stage.residents[who] for who in self._hosts), self._stage.town.servers["prefect"]]
        wanted, channel = bodies(number, kind, prefix, self.records), self._stage.channels["order_result"]
        done = storm(self._stand, channel, wanted, self.send, [one.pid for one in servers])
        state = "ready" if kind == "cached" else "refused"
        counted = "select count(*) as n from order_list where class_id like ? and state = ?"
        found = self._stage.rows("teacher", counted, f"{prefix}-%", state)[0]["n"]
        assert found == number, f"{found} of {number} bookings are {state} in the database"
        answered_at = time.monotonic()
        wait_until(self.is_shown, timeout_s=60 + number / 50, pause_s=0.1, description="runs show all of it")
        return replace(done, lag_s=time.monotonic() - answered_at)

    def is_shown(self) -> bool:
        """Whether Prefect shows all that was handled."""
        left = (
            "select 1 from inbox_list where recorded_at is null and command in ('order', 'prepare', 'prepared') limit 1"
        )
        return not any(self._stage.rows(who, left) for who in self._hosts)

    def calm(self) -> None:
        """Wait until what follows the answers is done, too."""
        idle = "select count(*) as n from inbox_list where state = 'new'"
        for who in self._hosts:
            wait_until(
                lambda w=who: self._stage.rows(w, idle)[0]["n"] == 0,
                timeout_s=600,
                pause_s=0.5,
                description=f"{who} is calm",
            )


def of_record(stage: Stage, record: int) -> dict[str, object]:
    """A booking that names its record, as those of the storm do."""
    return {**stage.booking(record, starts_in_s=90_000), "record_id": record}


def _time_out(stage: Stage) -> None:
    """A rendition whose transcoding has timed out, as the teacher's database has it."""
    insert = "insert into video_list (record_id, resolution, status, attempt, attempts_since, attempts_today)"
    stage.alter("teacher", f"{insert} values ({TIMED_OUT}, '720P', 'timed out', 1, 0, 1)")


def best_storms(
    stand: Stand, number: int, where: str, hosts: Sequence[str] = HOSTS, **settings: str
) -> dict[str, Storm]:
    """The best storm of each kind; what is measured is said to be *where*."""
    found: dict[str, list[Storm]] = {kind: [] for kind in KINDS}
    with stand.stage(**settings) as stage:
        ours = Ours(stand, stage, hosts)
        for turn in range(stand.rounds):
            for kind in KINDS:
                found[kind].append(ours.storm(number, kind, f"{kind}{turn}"))
                stand.say(f"storm of {number:,}, {kind}, {where}: {found[kind][-1]}")
                ours.calm()
    return {kind: max(storms, key=lambda one: one.rate) for kind, storms in found.items()}


# -- the peers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Up:
    """A peer that takes bookings of *records*, and answers on *channel*."""

    send: Callable[[Sequence[str]], None]
    channel: str
    pids: Sequence[int]
    records: Sequence[int]


@contextmanager
def workers(stand: Stand, folder: Path, argvs: Sequence[Sequence[str]], ready: str, name: str) -> Iterator[list[int]]:
    """Processes of a peer, until they are ended by their ids."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {
        **stand.town.environment,
        **{name: value for name, value in os.environ.items() if name.startswith("BENCH_")},
        "PYTHONPATH": f"{root}:{root}/lib",
        "PYTHONUNBUFFERED": "1",
    }
    children = [Child(argv, environment, folder / f"{name}{i}.log") for i, argv in enumerate(argvs)]
    try:
        for child in children:
            child.wait_for(ready)
        yield [child.pid for child in children]
    finally:
        for child in children:
            with suppress(AssertionError):  # one that does not listen to SIGTERM was killed
                child.end(timeout_s=20)


def name_servers(stand: Stand) -> None:
    """Tell the peers, which read it when they are imported, where Redis is and where to answer."""
    os.environ.update(BENCH_REDIS=stand.town.redis_url, BENCH_ANSWERS="bench:answers")


def databases(folder: Path, records: Sequence[int]) -> None:
    """The databases of a peer, as the product makes them."""
    os.environ["BENCH_FOLDER"] = str(folder)
    work = importlib.import_module("benchmarks.peers.work")
    work.database.cache_clear()
    work.make(TIMED_OUT, list(records))


@contextmanager
def peer_up(stand: Stand, name: str) -> Iterator[Up]:
    """One peer, or the bare loop, with databases of its own."""
    folder, records = stand.folder(), list(range(1, RECORDS + 1))
    databases(folder, records)
    if name == "bare":
        argv = [sys.executable, "-m", "benchmarks.peers.bare", "bench:order"]
        with workers(stand, folder, [argv], "listens", name) as pids:
            yield Up(lambda found: publish(stand, "bench:order", found), os.environ["BENCH_ANSWERS"], pids, records)
        return
    stand.town.redis.flushdb()
    peer = importlib.import_module(f"benchmarks.peers.{name}_app").peer
    with workers(stand, folder, peer.workers, peer.ready, name) as pids:
        up = Up(peer.send, os.environ["BENCH_ANSWERS"], pids, records)
        storm(stand, up.channel, bodies(50, "cached", f"{name}-warm", records), up.send, pids)
        yield up


def peer_storm(stand: Stand, name: str, number: int, kind: str) -> Storm:
    """The same storm for one peer."""
    with peer_up(stand, name) as up:
        return storm(stand, up.channel, bodies(number, kind, name, up.records), up.send, up.pids)


def publish(stand: Stand, channel: str, found: Sequence[str]) -> None:
    """PUBLISH them, so many a round trip as a producer would."""
    for first in range(0, len(found), 500):
        with stand.town.redis.pipeline(transaction=False) as pipe:
            for body in found[first : first + 500]:
                pipe.publish(channel, body)
            pipe.execute()


# -- the row ---------------------------------------------------------------------------------------------------------

Storms = dict[tuple[str, int], dict[str, list[Storm]]]


def measure(stand: Stand) -> Iterator[Figure]:
    """Storms of both kinds and several sizes."""
    name_servers(stand)
    found: Storms = {}
    for turn in range(stand.rounds):
        sizes = SIZES[:1] if stand.quick else SIZES[:2] if turn else SIZES
        for kind in KINDS:
            with stand.stage() as stage:
                ours = Ours(stand, stage)
                for number in sizes:
                    _note(stand, found, (kind, number), "ours", ours.storm(number, kind, f"n{turn}-{number}"))
                    ours.calm()
            for number in sizes:
                _note(stand, found, (kind, number), "bare", peer_storm(stand, "bare", number, kind))
            for name in PEERS:
                one = peer_storm(stand, name, PEERS_NUMBER, kind)
                for number in sizes:
                    _note(stand, found, (kind, number), name, one)
    for (kind, number), storms in found.items():
        yield from _figures(kind, number, storms)


def _note(stand: Stand, found: Storms, key: tuple[str, int], name: str, one: Storm) -> None:
    stand.say(f"storm of {key[1]:,}, {key[0]}, {name}: {one}")
    found.setdefault(key, {}).setdefault(name, []).append(one)


def _figures(kind: str, number: int, storms: dict[str, list[Storm]]) -> Iterator[Figure]:
    row = f"storm, {kind}, {number:,}"
    rates = {name: max(one.rate for one in all_) for name, all_ in storms.items()}
    costs = {name: min(one.cpu_ms for one in all_) for name, all_ in storms.items()}
    ours, limit = rates.pop("ours"), rates.pop("bare")
    yield Figure(
        row, "bookings/s", ours, rates, limit, goal=">= 8,000" if kind == "refused" else ">= 5,000", size=number
    )
    ours, limit = costs.pop("ours"), costs.pop("bare")
    yield Figure(f"{row}: cost", "CPU ms a booking", ours, costs, limit, more_is_better=False, size=number)
    lags = [one.lag_s for one in storms["ours"] if one.lag_s is not None]
    if lags:
        note = "from the last answer until the last run is shown"
        goal = "<= 5" if number <= SIZES[1] else ""
        yield Figure(f"{row}: view", "s", min(lags), more_is_better=False, goal=goal, note=note, size=number)
