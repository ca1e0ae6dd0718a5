"""What is played to living hosts: odd messages; then classes whose recordings lie at odd places, and odd rows."""

import time
from collections.abc import Callable, Sequence

from tests.fuzz import kinds, odd_rows
from tests.fuzz.odd_messages import Odd, Sending
from tests.fuzz.odd_values import FAR_S, written
from tests.fuzz.session import Session

PORTION = 250
PLACES = 40
"""So many classes whose recording is at an odd place go together."""

ROWS = 8
ODD_PLACES, ODD_TRANSCODINGS = 6_000_000, 7_000_000

Tell = Callable[[int], None]


def messages(session: Session, indices: Sequence[int], tell: Tell, without: frozenset[str] = frozenset()) -> None:
    """Send the odd messages of *indices*, but for kinds *without*; raises Harm."""
    for first in range(0, len(indices), PORTION):
        portion = indices[first : first + PORTION]
        odds = [kinds.drawn(session.here, index) for index in portion]
        session.portion([one for one in odds if one.kind not in without])
        tell(len(portion))
    session.catch_up()


def places(session: Session, answers: int, tell: Tell) -> None:
    """Book classes of odd places, until servers gave so many odd answers; raises Harm."""
    first, given = 0, 0
    while given < answers:
        rows(session, first)
        session.portion([_at_odd_place(session, first + number) for number in range(PLACES)])
        first += PLACES
        now = session.odd_server.answered.total()
        tell(min(now, answers) - given)
        given = min(now, answers)
    session.catch_up()


def _at_odd_place(session: Session, number: int) -> Odd:
    index = (ODD_TRANSCODINGS if number % 4 == 0 else ODD_PLACES) + number
    resolution = "720P" if index >= ODD_TRANSCODINGS else None
    class_id = f"place-{session.seed}-{number}"
    booking = session.stage.booking(
        index,
        resolution,
        starts_in_s=FAR_S,
        class_id=class_id,
        video_url=f"{session.odd_server.url}/odd/{index}.flv",
        push_url=f"rtmp://127.0.0.1:1/live/{class_id}",
    )
    kind = "odd transcoder" if resolution else "odd origin"
    return Odd(index, kind, (Sending("stream", "order", written(booking)),), class_id)


def rows(session: Session, first: int) -> None:
    """Write some odd rows beside the true ones."""
    key = session.stage.settings["STREAMERS_KEY"]
    for number in range(first, first + ROWS):
        row = odd_rows.drawn(session.seed, number, time.time())
        if row.name != session.here.streamer.encode():
            session.bus.hset(key if row.which == "streamers" else f"{key}:{row.which}", row.name, row.value)
