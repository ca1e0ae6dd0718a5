"""The storm with the teacher's rows on PostgreSQL, by one teacher and by two, beside the same on SQLite."""

from collections.abc import Iterator, Sequence

from sqlalchemy import make_url

from benchmarks import postgres
from benchmarks.figures import Figure
from benchmarks.stand import Stand
from benchmarks.storm import Ours, Storm

WHAT = (
    "the storm of bookings once more, with the teacher's rows on a PostgreSQL of its own: *one* teacher beside one on"
    " SQLite, *two* beside one. Teachers take turns at writing, and all that a channel brings is heard by each: a"
    " second one is for staying up. *Cost* is without PostgreSQL's own"
)
KINDS = ("refused", "cached")
ONE, TWO = ("teacher", "streamer1"), ("teacher", "teacher2", "streamer1")


def measure(stand: Stand) -> Iterator[Figure]:
    """SQLite, one teacher on PostgreSQL, two."""
    number = 1000 if stand.quick else 10_000
    folder = postgres.programs()
    if folder is None:
        stand.say("teachers: not measured, there is no PostgreSQL here (Debian: apt install postgresql)")
        return
    sqlite = _storms(stand, number, "on SQLite", ONE)
    one, two = (_on_postgres(stand, number, hosts) for hosts in (ONE, TWO))
    for kind in KINDS:
        for row, ours, name, peer in (("one", one, "SQLite", sqlite), ("two", two, "one teacher", one)):
            of, cost = f"teachers, {row}, {kind}, {number:,}", {name: peer[kind].cpu_ms}
            yield Figure(of, "bookings/s", ours[kind].rate, {name: peer[kind].rate})
            yield Figure(f"{of}: cost", "CPU ms a booking", ours[kind].cpu_ms, cost, more_is_better=False)


def _on_postgres(stand: Stand, number: int, hosts: Sequence[str]) -> dict[str, Storm]:
    folder = postgres.programs()
    assert folder is not None
    with postgres.server(folder) as url:
        found = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        return _storms(stand, number, f"on PostgreSQL, {len(hosts) - 1} teachers", hosts, TEACHER_DATABASE_URL=found)


def _storms(stand: Stand, number: int, where: str, hosts: Sequence[str], **settings: str) -> dict[str, Storm]:
    """The best storm of each kind."""
    found: dict[str, list[Storm]] = {kind: [] for kind in KINDS}
    with stand.stage(**settings) as stage:
        ours = Ours(stand, stage, hosts)
        for turn in range(stand.rounds):
            for kind in KINDS:
                found[kind].append(ours.storm(number, kind, f"{kind}{turn}"))
                stand.say(f"storm of {number:,}, {kind}, {where}: {found[kind][-1]}")
                ours.calm()
    return {kind: max(storms, key=lambda one: one.rate) for kind, storms in found.items()}
