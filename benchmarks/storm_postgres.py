"""The storm with Prefect on PostgreSQL, beside the same with Prefect on SQLite."""

from collections.abc import Iterator
from contextlib import closing

from benchmarks import postgres
from benchmarks.figures import Figure
from benchmarks.stand import Stand
from benchmarks.storm import KINDS, best_storms

WHAT = (
    "the storm of bookings once more, with the Prefect server on a PostgreSQL of its own, as it comes; the teacher and"
    " the streamer keep their SQLite, *cost* is without PostgreSQL's own, and *view* is how much later the last run is"
    " shown. The peer is the same with the Prefect server on SQLite"
)


def measure(stand: Stand) -> Iterator[Figure]:
    """Both, one after the other."""
    number = 1000 if stand.quick else 10_000
    folder = postgres.programs()
    if folder is None:
        stand.say("storm_postgres: not measured, there is no PostgreSQL here (Debian: apt install postgresql)")
        return
    with postgres.server(folder) as url, closing(stand.like(PREFECT_SERVER_DATABASE_CONNECTION_URL=url)) as other:
        ours = best_storms(other, number, "Prefect on PostgreSQL")
    peer = best_storms(stand, number, "Prefect on SQLite")
    for kind in KINDS:
        row = f"storm_postgres, {kind}, {number:,}"
        sqlite = "Prefect on SQLite"
        yield Figure(row, "bookings/s", ours[kind].rate, {sqlite: peer[kind].rate}, goal=">= 5,000")
        cost = {sqlite: peer[kind].cpu_ms}
        yield Figure(f"{row}: cost", "CPU ms a booking", ours[kind].cpu_ms, cost, more_is_better=False)
        lag, its = ours[kind].lag_s, peer[kind].lag_s
        if lag is not None and its is not None:
            yield Figure(f"{row}: view", "s", lag, {sqlite: its}, more_is_better=False, goal="<= 2")
