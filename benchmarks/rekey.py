"""What renaming Redis keys costs: `lectern.redis.rename` beside a bare loop of server-side slices."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing import Queue
from multiprocessing.synchronize import Event
from typing import Any

import psutil
import redis

from benchmarks.figures import Figure, growth
from benchmarks.stand import Stand
from lectern.redis.rename import Rule, renamed
from tests.effects.redis_servers import redis_server, url_of

WHAT = (
    "waiting lists of the old program are renamed, on a Redis of its own. The limit is the least that renames at all:"
    " SCAN and RENAMENX in Lua, in slices of 2,000, with no check of the names, no count and no list of clashes. The"
    " peer is a script as one would write it: SCAN, and pipelines of RENAMENX. *Stall* is the longest wait of another"
    " program that PINGs all the time, in a run of its own; *CPU* is the server's and the client's together, which"
    " other work cannot steal"
)
RULE = Rule.parse("waiting:{record_id}:{resolution}", "{record_id}_{resolution}")
FILL = "for i = ARGV[1], ARGV[2] do redis.call('SET', 'waiting:' .. (1000000 + i) .. ':720P', 'c-' .. i) end"
BARE = """
local found = redis.call('SCAN', ARGV[1], 'MATCH', 'waiting:*', 'COUNT', 2000)
for _, old in ipairs(found[2]) do
  redis.call('RENAMENX', old, (string.gsub(old, '^waiting:(%d+):(%w+)$', '%1_%2')))
end
return found[1]
"""
ROUNDS = {10_000: 7, 100_000: 5, 1_000_000: 3}


def fill(client: redis.Redis, keys: int) -> None:
    """Only waiting lists that are to be renamed."""
    client.flushall()
    for first in range(0, keys, 5000):
        client.eval(FILL, 0, str(first), str(min(first + 5000, keys) - 1))


def bare(client: redis.Redis) -> None:
    """The loop that ours is compared with."""
    script, cursor = client.register_script(BARE), b"0"
    while True:
        cursor = script(args=[cursor])
        if cursor == b"0":
            return


def pipelined(client: redis.Redis) -> None:
    """The same from Python, a pipeline for each answer of SCAN."""
    cursor: int = 0
    while True:
        answer: Any = client.scan(cursor, match="waiting:*", count=2000)
        cursor, found = answer
        with client.pipeline(transaction=False) as pipe:
            for old in found:
                _, record, resolution = old.split(b":")
                pipe.renamenx(old, record + b"_" + resolution)
            pipe.execute()
        if not cursor:
            return


def ping(url: str, ready: Event, over: Event, longest: "Queue[float]") -> None:
    """Another program that asks all the time, and tells its longest wait in seconds."""
    worst = 0.0
    with redis.Redis.from_url(url) as client:
        client.ping()
        ready.set()
        while not over.is_set():
            began = time.perf_counter()
            client.ping()
            worst = max(worst, time.perf_counter() - began)
    longest.put(worst)


def stall_s(client: redis.Redis, work: Callable[[], object]) -> float:
    """The longest wait of another program while *work* is done."""
    spawn = multiprocessing.get_context("spawn")
    ready, over, longest = spawn.Event(), spawn.Event(), spawn.Queue()
    other = spawn.Process(target=ping, args=(url_of(client), ready, over, longest), daemon=True)
    other.start()
    assert ready.wait(30), "the other program did not start"
    work()
    over.set()
    found = float(longest.get(timeout=30))
    other.join(30)
    return found


def timed(client: redis.Redis, keys: int, work: Callable[[], object]) -> dict[str, float]:
    """Seconds and CPU seconds of *work* alone; then the longest stall in milliseconds, with somebody else asking."""
    fill(client, keys)
    both = [psutil.Process(), psutil.Process(client.info("server")["process_id"])]
    before, began = sum(cpu_s(one) for one in both), time.perf_counter()
    work()
    seconds, cpu = time.perf_counter() - began, sum(cpu_s(one) for one in both) - before
    assert client.exists("1000000_720P"), "nothing was renamed"
    fill(client, keys)
    return {"s": seconds, "cpu_s": cpu, "stall_ms": stall_s(client, work) * 1000}


def cpu_s(process: psutil.Process) -> float:
    """What it has used so far, of all cores, in seconds."""
    found = process.cpu_times()
    return float(found.user + found.system)


def measure(stand: Stand) -> Iterator[Figure]:
    """The three ways, in turns, at each size."""
    seconds: list[Figure] = []
    with redis_server(stand.folder()) as client:
        for keys in (10_000, 100_000) if stand.quick else ROUNDS:
            found = _measured(stand, client, keys)
            row, rounds = f"rekey, {keys:,}", 1 if stand.quick else ROUNDS[keys]
            note = f"the best of {rounds}" if rounds > 1 else ""
            seconds.append(_figure(row, "s", found["s"], keys, goal="<= 1.2 of the limit", note=note))
            yield seconds[-1]
            yield _figure(f"{row}: cost", "CPU s", found["cpu_s"], keys)
            yield _figure(f"{row}: stall", "ms", found["stall_ms"], keys, goal="< 20")
    yield growth("rekey: growth", seconds)


def _measured(stand: Stand, client: redis.Redis, keys: int) -> dict[str, dict[str, float]]:
    """Of each way the best times, and the worst stall."""
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(client),
        "ours": lambda: renamed(client, [RULE]),
        "pipelined": lambda: pipelined(client),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(1 if stand.quick else ROUNDS[keys]):
        for name, work in ways.items():
            runs[name].append(timed(client, keys, work))
    found = {what: {name: min(run[what] for run in runs[name]) for name in ways} for what in ("s", "cpu_s")}
    found["stall_ms"] = {name: max(run["stall_ms"] for run in runs[name]) for name in ways}
    stand.say(f"rekey {keys:,}: " + ", ".join(f"{name} {value:.3f} s" for name, value in found["s"].items()))
    return found


def _figure(row: str, unit: str, of: dict[str, float], keys: int, goal: str = "", note: str = "") -> Figure:
    peers = {"pipelined from Python": of["pipelined"]}
    return Figure(row, unit, of["ours"], peers, of["bare"], more_is_better=False, goal=goal, note=note, size=keys)
