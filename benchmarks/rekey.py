"""What renaming costs: `lectern.effects.rekey` beside a bare loop of server-side slices, and what others notice of it.

    .venv/bin/python benchmarks/rekey.py [--json FILE] [number of keys ...]

Starts a Redis of its own on loopback. The bare loop is the least that renames at all: SCAN and RENAMENX in Lua, in
slices of 2,000, with no check of the names, no count, no list of clashes and no journal. Ours writes its journal to
disk. The two take turns; the table shows the best of each. Another process PINGs all the time in a run of its own: the
longest wait it sees is the stall. On a machine with other work look at the CPU: the seconds of server and client
together, which others can not steal.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import psutil
import redis
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lectern.effects.rekey import Rule, renamed
from tests.effects.redis_servers import redis_server, url_of

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
    other = spawn.Process(target=ping, args=(url_of(client), ready, over, longest))
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


def measure(client: redis.Redis, keys: int, journal: Path) -> dict[str, float]:
    """Both loops, in turn; of each the best times, and the worst stall."""
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(client),
        "ours": lambda: renamed(client, [RULE], journal=journal),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS.get(keys, 3)):
        for name, work in ways.items():
            runs[name].append(timed(client, keys, work))
    found: dict[str, float] = {"keys": keys}
    for name in ways:
        found |= {f"{name}_{figure}": min(run[figure] for run in runs[name]) for figure in ("s", "cpu_s")}
        found[f"{name}_stall_ms"] = max(run["stall_ms"] for run in runs[name])
    return {
        **found,
        "ratio": found["ours_s"] / found["bare_s"],
        "cpu_ratio": found["ours_cpu_s"] / max(found["bare_cpu_s"], 0.01),
    }


def main() -> None:
    """Measure, and print a table; with --json write the figures to a file."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("keys", type=int, nargs="*", default=list(ROUNDS))
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    columns = ("keys", "bare s", "ours s", "ratio", "bare CPU s", "ours CPU s", "ratio", "stall, bare", "stall, ours")
    table = Table(*columns, title="renaming Redis keys")
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as client:
        rows = [measure(client, keys, Path(folder) / "journal.tsv") for keys in given.keys]
    for row in rows:
        times = (f"{row[name]:.3f}" for name in ("bare_s", "ours_s", "ratio", "bare_cpu_s", "ours_cpu_s", "cpu_ratio"))
        stalls = (f"{row[name]:.1f} ms" for name in ("bare_stall_ms", "ours_stall_ms"))
        table.add_row(f"{row['keys']:,}", *times, *stalls)
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps({"rekey": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
