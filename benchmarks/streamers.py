"""Ten streamers on one machine: the storm of classes that they have, and what they cost while nothing happens."""

from collections.abc import Iterator, Sequence

from benchmarks.figures import Figure
from benchmarks.stand import Stand
from benchmarks.storm import Ours, Storm, cpu_percent, of_record
from tests.stage import Stage, wait_until

WHAT = (
    "a teacher and ten streamers, each with its playout, on this one machine, beside one streamer: the storm of"
    " bookings of recordings that they have, and the CPU that the streamers use while nothing happens"
)
MANY = 10
IDLE_S = 20.0


def measure(stand: Stand) -> Iterator[Figure]:
    """One, then ten."""
    number = 1000 if stand.quick else 10_000
    (one, one_idle), (ten, ten_idle) = (_measured(stand, number, count) for count in (1, MANY))
    yield Figure(f"streamers, ten, cached, {number:,}", "bookings/s", ten.rate, {"one streamer": one.rate})
    cost = {"one streamer": one.cpu_ms}
    yield Figure(
        f"streamers, ten, cached, {number:,}: cost", "CPU ms a booking", ten.cpu_ms, cost, more_is_better=False
    )
    idle = {"one streamer": one_idle}
    yield Figure("streamers, ten, idle: a streamer", "% of a core", ten_idle, idle, more_is_better=False)


def _measured(stand: Stand, number: int, count: int) -> tuple[Storm, float]:
    streamers = [f"streamer{one}" for one in range(1, count + 1)]
    with stand.stage() as stage:
        ours = Ours(stand, stage, ["teacher", *streamers])
        _have_all(stage, streamers, ours.records)
        storms = [ours.storm(number, "cached", f"s{count}-{turn}") for turn in range(stand.rounds)]
        ours.calm()
        pids = [one.pid for who in streamers for one in (stage.residents[who], stage.playouts[who])]
        idle = cpu_percent(pids, IDLE_S) / count
    best = max(storms, key=lambda one: one.rate)
    stand.say(f"{count} streamers: {best}; idle {idle:.1f} % of a core each")
    return best, idle


def _have_all(stage: Stage, streamers: Sequence[str], records: Sequence[int]) -> None:
    """Let each streamer download each recording; the bookings of a storm name none that could be downloaded."""
    for who in streamers:
        for record in records:
            stage.tell(who, {**of_record(stage, record), "cmd": "prepare"})
    wanted = {str(record) for record in records}
    for who in streamers:
        wait_until(lambda who=who: wanted <= stage.cached(who), timeout_s=300, description=f"{who} has all recordings")
