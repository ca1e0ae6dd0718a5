"""Thousands of classes of the next two hours, booked at once beside a class on air and one that begins soon."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from benchmarks import on_air
from benchmarks.figures import Figure, growth
from benchmarks.on_air import WHO
from benchmarks.receiver import Receiver
from benchmarks.stand import Ear, Stand
from benchmarks.storm import cpu_percent, publish
from tests.stage import Stage, wait_until

WHAT = (
    "so many classes of one recording that begin in an hour are booked in one go, each with its own push URL, while a"
    " class is on air; then one more that begins 25 s later. *Gap* is the longest time without a packet of the class on"
    " air, *sessions* are those that it needed besides its first. *Handed over* is counted from the last answer until"
    " the playout has all of them, *late* is how far from its second the first packet of the other class came, and"
    " *idle* what the playout's worker uses afterwards, when nothing is on air. The playout takes 10,000 in all"
)
SIZES = (1000, 6000, 9900)
SOON_S, IDLE_S = 25.0, 20.0


@dataclass(frozen=True)
class Storm:
    """What became of the class on air, of the one that began soon, and of all the others."""

    gap_s: float
    new_sessions: int
    late_s: float
    handed_over_s: float
    idle_percent: float


def measure(stand: Stand) -> Iterator[Figure]:
    """Each size with hosts of its own."""
    sizes = SIZES[:2] if stand.quick else SIZES
    found = {number: _measured(stand, number) for number in sizes}
    for number, one in found.items():
        goals = number == 6000
        rows = {
            "longest gap of the class on air": ("s", one.gap_s, "<= 0.15"),
            "its new sessions": ("sessions", one.new_sessions, "<= 0"),
            "a class 25 s ahead: first byte": ("s", one.late_s, "<= 0.1"),
            "handed over after the last answer": ("s", one.handed_over_s, "<= 5"),
            "idle worker": ("% of a core", one.idle_percent, "<= 2"),
        }
        for what, (unit, value, goal) in rows.items():
            row = f"timetable, {number:,}: {what}"
            yield Figure(row, unit, value, more_is_better=False, goal=goal if goals else "", size=number)
    handed = [
        Figure("", "s", max(one.handed_over_s, 0.1), more_is_better=False, size=size) for size, one in found.items()
    ]
    yield growth("timetable: growth of handing over", handed)


def _measured(stand: Stand, number: int) -> Storm:
    with stand.stage(BROADCAST_LEAD_S="20") as stage, Receiver() as receiver:
        stage.up("teacher", WHO)
        record = stage.town.record()
        on_air.recording(stage, record, 600)
        on_air.book(stage, receiver, record, 1, time.time() + 90_000, 60)  # the recording is there when classes come
        start = time.time() + 10
        (first,) = on_air.book(stage, receiver, record, 1, start, 120 + number / 50)
        on_air.until_on_air(receiver, [first], {first: 1})
        since = time.monotonic()
        late_s, handed_over_s = _booked(stand, stage, receiver, record, number)
        until, sessions = time.monotonic(), receiver.of(first)
        times = [at for one in sessions for at in one.at if since <= at <= until]
        gap_s = max(after - before for before, after in pairwise([since, *times, until]))
        stage.cancel(first)
        wait_until(
            lambda: not stage.playing(WHO)["worker"]["classes_on_air"], timeout_s=120, description="nothing is on air"
        )
        idle = cpu_percent([stage.playing(WHO)["pid"]], IDLE_S)
        found = Storm(gap_s, len(sessions) - 1, late_s, handed_over_s, idle)
    stand.say(f"timetable, {number:,}: {found}")
    return found


def _booked(stand: Stand, stage: Stage, receiver: Receiver, record: int, number: int) -> tuple[float, float]:
    """Book *number* classes, and one that begins soon: how late it began, and how late the last was handed over."""
    ear = Ear(stand.town.redis_url, stage.channels["order_result"], number + 1, give_up_s=120 + number / 20)
    start = time.time() + 3600
    bookings = []
    for _ in range(number):
        booking = stage.booking(record)
        times = {"start_time": start, "end_time": start + 600, "push_url": receiver.url(booking["class_id"])}
        bookings.append({**booking, **times})
    publish(stand, stage.channels["order"], [json.dumps(one) for one in bookings])
    soon = stage.booking(record, starts_in_s=SOON_S, length_s=20)
    class_id = stage.book({**soon, "push_url": receiver.url(soon["class_id"])})
    answered_at = max(ear.all().values())
    wait_until(
        lambda: len(stage.playing(WHO)["classes"]) >= number,
        timeout_s=120 + number / 20,
        pause_s=0.5,
        description="the playout has all classes",
    )
    handed_over_s = time.time() - answered_at
    on_air.until_on_air(receiver, [class_id], {class_id: 1}, timeout_s=120)
    offset_s = time.time() - time.monotonic()
    return abs(receiver.of(class_id)[0].at[0] + offset_s - soon["start_time"]), max(handed_over_s, 0.0)
