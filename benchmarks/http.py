"""How long a booking by HTTP waits for its answer, beside one by Redis, and a bare FastAPI route with one commit."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI

from benchmarks.figures import Figure, quantile
from benchmarks.lone import SHARES, WARM_UP, ours_waits
from benchmarks.stand import Stand, served
from benchmarks.storm import Ours, bodies
from town.ports import HOST, free_port

WHAT = (
    "bookings by `PUT /v1/classes/CLASS_ID?wait=30`, so many a second; counted from the moment when a booking was due"
    " to be sent to its answer. The streamer has the rendition. *Redis* is the same booking on the channel, in the same"
    " run. The limit is a FastAPI route that writes one committed row, and does nothing else"
)
RATES = {1: 30, 10: 200}
"""How many bookings at each rate."""

Put = Callable[[str], None]


def measure(stand: Stand) -> Iterator[Figure]:
    """Ours by HTTP, ours by Redis, and the limit, at each rate."""
    by_redis = ours_waits(stand, "redis")
    with stand.stage(API_BIND=f"{HOST}:{free_port()}") as stage:
        ours = Ours(stand, stage)
        made = json.loads(stage.lectern("teacher", "client", "add", "platform", "--json").stdout)
        by_http = _at_rates(stand, "http", f"http://{stage.settings['API_BIND']}", made["token"], ours.records)
    with _bare(stand.folder() / "bare-http.db") as url:
        bare = _at_rates(stand, "bare-http", url, "none", ours.records)
    for what, (share, _) in SHARES.items():
        for rate, waits in by_http.items():
            values = {"by Redis": quantile(by_redis[rate], share)}
            goal = "<= 1.5 x Redis" if (what, rate) == ("p50", 10) else ""
            note = f"of {len(waits)} bookings at {rate} a second"
            name, limit = f"http, {rate}: {what}", quantile(bare[rate], share)
            one = quantile(waits, share)
            yield Figure(name, "s", one, values, limit, more_is_better=False, goal=goal, note=note, size=rate)


def _at_rates(stand: Stand, name: str, url: str, token: str, records: Sequence[int]) -> dict[int, list[float]]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    found: dict[int, list[float]] = {}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:

        def put(body: str) -> None:
            path = f"/v1/classes/{json.loads(body)['class_id']}"
            client.put(path, params={"wait": 30}, content=body).raise_for_status()

        _waits(put, bodies(WARM_UP, "cached", f"{name}-warm-up", records), 5)
        for rate, most in RATES.items():
            number = min(most, 10 * rate) if stand.quick else most
            found[rate] = _waits(put, bodies(number, "cached", f"{name}-{rate}", records), rate)
            stand.say(f"{name}, {rate} a second: p50 {quantile(found[rate], 0.5):.4f} s")
    return found


def _waits(put: Put, found: Sequence[str], rate: float) -> list[float]:
    """Send at *rate* a second, whether those before are answered or not."""
    began = time.monotonic()

    def one(at: int) -> float:
        due = began + at / rate
        time.sleep(max(0.0, due - time.monotonic()))
        put(found[at])
        return time.monotonic() - due

    with ThreadPoolExecutor(16) as senders:
        return list(senders.map(one, range(len(found))))


@contextmanager
def _bare(file: Path) -> Iterator[str]:
    """The limit: a server in this process."""
    app = FastAPI()
    database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")
    database.execute("create table booking (class_id text primary key, payload text)")

    @app.put("/v1/classes/{class_id}")
    async def booked(class_id: str, payload: dict[str, object]) -> dict[str, str]:
        database.execute("insert into booking values (?, ?)", (class_id, json.dumps(payload)))
        return {"class_id": class_id, "result": "success"}

    with closing(database), served(app) as url:
        yield url
