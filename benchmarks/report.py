"""What the as-run report of a month costs, beside a bare query of the same rows."""

from collections.abc import Iterator

from sqlalchemy import Connection, insert, text

from benchmarks.figures import Figure, in_turns
from benchmarks.stand import Stand
from flows.as_run_report import Format, made, written
from lectern.db.engine import transaction
from lectern.model.tables.teacher import as_runs, orders
from lectern.states import BookingState
from tests import laid

WHAT = (
    "a month of classes of ten institutions, each sent in two parts, is reported as CSV. The peer reads the same rows"
    " by a bare query, and sums nothing"
)
DAY_S, START = 86_400.0, 1_764_000_000.0


def measure(stand: Stand) -> Iterator[Figure]:
    """The report of a month with 100,000 classes."""
    number = 10_000 if stand.quick else 100_000
    engine = laid.opened("teacher", stand.folder() / "teacher.db")
    with transaction(engine) as connection:
        _fill(connection, number)

    def report() -> None:
        with transaction(engine) as connection:
            written(made(connection, START, START + 31 * DAY_S, None), Format.csv)

    def bare() -> None:
        with transaction(engine) as connection:
            wanted = "select * from order_list o join as_run_list a on a.class_id = o.class_id order by o.start_time"
            assert len(connection.execute(text(wanted)).all()) == 2 * number

    found = in_turns({"bare query": bare, "report": report}, stand.rounds)
    engine.dispose()
    yield Figure(
        f"report, {number:,} classes",
        "s",
        found["report"],
        {"bare query": found["bare query"]},
        more_is_better=False,
        goal="<= 5",
    )


def _fill(connection: Connection, number: int) -> None:
    booked, sent = [], []
    for one in range(number):
        start = START + one * 30 * DAY_S / number
        booked.append(
            {
                "class_id": f"c-{one}",
                "institution_id": f"i-{one % 10}",
                "record_id": one % 500,
                "resolution": "720P",
                "start_time": start,
                "end_time": start + 2700,
                "payload": "{}",
                "state": BookingState.AIRED,
                "message": "aired whole; 1 session",
                "streamer": "s1",
                "received_at": start,
                "updated_at": start,
            }
        )
        part = {
            "class_id": f"c-{one}",
            "streamer": "s1",
            "url": 0,
            "session": 1,
            "source": "recording",
            "sent_bytes": 1,
        }
        sent += [
            {**part, "begins": start + at, "ends": start + at + 1350, "position_s": at, "sent_s": 1350}
            for at in (0, 1350)
        ]
    connection.execute(insert(orders), booked)
    connection.execute(insert(as_runs), sent)
