"""The bookings of the last 24 hours, as a picture in the UI."""

import time

from flows.host import Host
from flows.show import Board
from lectern.decide import day
from lectern.effects import chart
from lectern.effects.rows import status
from lectern.settings import TeacherSettings

OUTCOME_COLOURS = (chart.GREEN, chart.BLUE, chart.ORANGE, chart.RED, chart.GREY)


async def show_bookings(board: Board, host: Host[TeacherSettings], now: float) -> None:
    """What the bookings of the last 24 hours came to."""
    name = host.settings.name
    key = f"bookings-{name}"
    if not board.is_due(key):
        return
    first = int(now // day.HOUR_S) - day.HOURS + 1
    found = day.outcomes(await host.look(status.by_hour, first * day.HOUR_S, day.HOURS))
    said = f"Bookings of {name}, by the hour in which they came"
    await board.bars(key, _clock(first), found, OUTCOME_COLOURS, said)


def _clock(first: int) -> list[str]:
    """The hours of a clock on the wall, from the hour *first* (since the epoch) on."""
    return [time.strftime("%H", time.localtime((first + one) * day.HOUR_S)) for one in range(day.HOURS)]
