"""How long a booking waits for its answer if few come: one, ten and fifty a second."""

import json
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.figures import Figure, quantile
from benchmarks.stand import Ear, Stand
from benchmarks.storm import Ours, bodies, name_servers, peer_up
from tests.stage import Gate

WHAT = (
    "bookings are published one by one, so many a second, whether those before are answered or not; counted from the"
    " moment when a booking was due to be published to its answer, heard by another process. The streamer has the"
    " rendition: the teacher decides, the streamer prepares, the teacher answers. *Prefect stopped* is the same"
    " while nobody listens at Prefect's address. The peers and the limit are those of the storm"
)
PEERS = ("dramatiq", "celery")
RATES = {1: 60, 10: 200, 50: 500}
"""How many bookings at each rate."""

SHARES = {"p50": (0.50, "<= 0.05"), "p95": (0.95, ""), "p99": (0.99, "<= 0.15")}
WARM_UP = 5

Send = Callable[[Sequence[str]], None]
Waits = dict[int, list[float]]


def measure(stand: Stand) -> Iterator[Figure]:
    """Ours, the limit and the peers at each rate."""
    name_servers(stand)
    found = {"ours": ours_waits(stand, "ours")}
    for name in ("bare", *PEERS):
        with peer_up(stand, name) as up:
            found[name] = _at_rates(stand, name, up.send, up.channel, up.records)
    yield from figures("lone", found)
    yield from figures("lone, Prefect stopped", {"ours": _without_prefect(stand)})


def ours_waits(stand: Stand, name: str) -> Waits:
    """Of ours, on servers of its own."""
    with stand.stage() as stage:
        ours = Ours(stand, stage)
        return _at_rates(stand, name, ours.send, stage.channels["order_result"], ours.records)


def _without_prefect(stand: Stand) -> Waits:
    """Of ours, which reach Prefect through a gate that is closed once they are up."""
    gate, run = Gate(stand.town.prefect_port), stand.town.background.run
    run(gate.start())
    with stand.stage(PREFECT_API_URL=f"http://127.0.0.1:{gate.port}/api") as stage:
        ours = Ours(stand, stage)
        run(gate.stop())
        return _at_rates(stand, "Prefect-stopped", ours.send, stage.channels["order_result"], ours.records)


def figures(row: str, found: dict[str, Waits]) -> Iterator[Figure]:
    """The shares at each rate: of ``ours`` beside the others, ``bare`` as the limit."""
    for what, (share, goal) in SHARES.items():
        for rate, waits in found["ours"].items():
            values = {name: quantile(its[rate], share) for name, its in found.items()}
            one, limit = values.pop("ours"), values.pop("bare", None)
            note = f"of {len(waits)} bookings at {rate} a second"
            name = f"{row}, {rate}: {what}"
            yield Figure(name, "s", one, values, limit, more_is_better=False, goal=goal, note=note, size=rate)


def _at_rates(stand: Stand, name: str, send: Send, channel: str, records: Sequence[int]) -> Waits:
    """Seconds that each booking waited, at each rate."""
    numbers = {rate: min(number, 10 * rate) if stand.quick else number for rate, number in RATES.items()}
    _waits(stand, send, channel, bodies(WARM_UP, "cached", f"{name}-warm-up", records), 5)
    found: Waits = {}
    for rate, number in numbers.items():
        found[rate] = _waits(stand, send, channel, bodies(number, "cached", f"{name}-{rate}", records), rate)
        shares = ", ".join(f"{what} {quantile(found[rate], share):.3f} s" for what, (share, _) in SHARES.items())
        stand.say(f"lone, {rate} a second, {name}: {shares}")
    return found


def _waits(stand: Stand, send: Send, channel: str, found: Sequence[str], rate: float) -> list[float]:
    """Publish at *rate* a second."""
    ear = Ear(stand.town.redis_url, channel, len(found), give_up_s=60 + len(found) / rate)
    due: dict[str, float] = {}
    began = time.time()
    for i, body in enumerate(found):
        at = began + i / rate
        time.sleep(max(0.0, at - time.time()))
        due[json.loads(body)["class_id"]] = at
        send([body])
    return [at - due[class_id] for class_id, at in ear.all().items()]
