"""How long a lone booking waits with Prefect on PostgreSQL, beside the same with Prefect on SQLite."""

from collections.abc import Iterator
from contextlib import closing

from benchmarks import lone, postgres
from benchmarks.figures import Figure
from benchmarks.stand import Stand
from benchmarks.storm import name_servers

WHAT = (
    "the lone bookings once more, with the Prefect server on a PostgreSQL of its own, as it comes; the peer is the same"
    " with the Prefect server on SQLite, which has one writer and sends away whoever comes second"
)


def measure(stand: Stand) -> Iterator[Figure]:
    """Both, one after the other."""
    folder = postgres.programs()
    if folder is None:
        stand.say("lone_postgres: not measured, there is no PostgreSQL here (Debian: apt install postgresql)")
        return
    name_servers(stand)
    with postgres.server(folder) as url, closing(stand.like(PREFECT_SERVER_DATABASE_CONNECTION_URL=url)) as other:
        ours = lone.ours_waits(other, "postgres")
    sqlite = lone.ours_waits(stand, "sqlite")
    yield from lone.figures("lone_postgres", {"ours": ours, "Prefect on SQLite": sqlite})
