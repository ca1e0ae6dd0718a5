"""The storm with the teacher's rows on PostgreSQL, by one teacher and by two, beside the same on SQLite."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import make_url

from benchmarks import postgres
from benchmarks.figures import Figure
from benchmarks.stand import Stand
from benchmarks.storm import HOSTS, KINDS, Storm, best_storms

WHAT = (
    "the storm of bookings once more, with the teacher's rows on a PostgreSQL of its own: *one* teacher beside one on"
    " SQLite, *two* beside one. Teachers take turns at writing, and all that a channel brings is heard by each: a"
    " second one is for staying up. *Cost* is without PostgreSQL's own"
)
TWO = ("teacher", "teacher2", "streamer1")


def measure(stand: Stand) -> Iterator[Figure]:
    """SQLite, one teacher on PostgreSQL, two."""
    number = 1000 if stand.quick else 10_000
    folder = postgres.programs()
    if folder is None:
        stand.say("teachers: not measured, there is no PostgreSQL here (Debian: apt install postgresql)")
        return
    sqlite = best_storms(stand, number, "on SQLite")
    one, two = (_on_postgres(stand, folder, number, hosts) for hosts in (HOSTS, TWO))
    for kind in KINDS:
        for row, ours, name, peer in (("one", one, "SQLite", sqlite), ("two", two, "one teacher", one)):
            of, cost = f"teachers, {row}, {kind}, {number:,}", {name: peer[kind].cpu_ms}
            yield Figure(of, "bookings/s", ours[kind].rate, {name: peer[kind].rate})
            yield Figure(f"{of}: cost", "CPU ms a booking", ours[kind].cpu_ms, cost, more_is_better=False)


def _on_postgres(stand: Stand, folder: Path, number: int, hosts: Sequence[str]) -> dict[str, Storm]:
    with postgres.server(folder) as url:
        found = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        where = f"on PostgreSQL, {len(hosts) - 1} teachers"
        return best_storms(stand, number, where, hosts, TEACHER_DATABASE_URL=found)
