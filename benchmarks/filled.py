"""A teacher whose tables are as full as they ever get, beside one whose tables are empty."""

import time
from collections.abc import Callable, Iterator

import httpx

from benchmarks.figures import Figure, timed
from benchmarks.stand import Stand
from benchmarks.storm import Ours, of_record
from tests.stage import Stage
from town.ports import HOST, free_port

WHAT = (
    "what the settings keep of a year of 100,000 classes a day would be 9,000,000 classes, as many events and 700,000"
    " messages in and out; written into the tables is a ninth of it, with --quick an 81st. The peer is the"
    " same teacher before that, with empty tables. `/metrics` as Prometheus asks, `lectern status` and `lectern"
    " explain` as people type them, Python's start included"
)
CLASSES, MESSAGES = 1_000_000, 77_000
GOAL = "<= 1.2 x empty"
ASKS = 5

_NUMBERS = "with recursive n(i) as (select 1 union all select i + 1 from n where i < {number})"
_CLASSES = """
insert into order_list (class_id, institution_id, record_id, resolution, start_time, end_time, stream, payload, state,
 streamer, deliveries, received_at, updated_at, answered_at, placement, promised_at)
select '{prefix}-' || i, 'i-7', i % 5000, '720P', {now} - 86400 - i * {step}, {now} - 83700 - i * {step},
 'rtmp://127.0.0.1/live/{prefix}-' || i, '{{"cmd": "order", "class_id": "{prefix}-' || i || '", "note": "' ||
 hex(zeroblob(120)) || '"}}', 'aired', 'streamer1', 1, {now} - 90000 - i * {step}, {now} - 83700 - i * {step},
 {now} - 90000 - i * {step}, 1, {now} - 90000 - i * {step} from n
"""
_EVENTS = """
insert into event_list (at, host, class_id, what, detail)
select {now} - 90000 - i * {step}, 'teacher', '{prefix}-' || i, 'booked', hex(zeroblob(40)) from n
"""
_INBOX = """
insert into inbox_list (source, command, body, received_at, not_before, state, tries, recorded_at)
select 'channel:order', 'order', hex(zeroblob(200)), {now} - 600000 + i * 0.8, 0, 'done', 0, {now} from n
"""
_OUTBOX = """
insert into outbox_list (target, kind, body, class_id, created_at, sent_at, not_before, tries)
select 'order_result', 'channel', hex(zeroblob(120)), '{prefix}-' || i, {now} - 600000 + i * 0.8, {now}, 0, 0 from n
"""


def measure(stand: Stand) -> Iterator[Figure]:
    """First empty, then full."""
    part = 9 if stand.quick else 1
    with stand.stage() as stage:
        stage.own["teacher"] = {"API_BIND": f"{HOST}:{free_port()}"}
        ours = Ours(stand, stage)
        empty = _looked(stand, stage, ours, "empty")
        stage.residents["teacher"].end()
        began = time.monotonic()
        fill(lambda sql: stage.alter("teacher", sql), CLASSES // part, MESSAGES // part)
        stand.say(f"filled: {CLASSES // part:,} classes written in {time.monotonic() - began:.0f} s")
        stage.up("teacher")
        full = _looked(stand, stage, ours, "full")
    for what, seconds in full.items():
        yield Figure(
            f"filled, {what}", "ms", seconds * 1000, {"empty": empty[what] * 1000}, more_is_better=False, goal=GOAL
        )
        if what.startswith("lectern"):
            yield Figure(f"filled, {what}: time", "ms", seconds * 1000, more_is_better=False, goal="<= 500")


def fill(execute: Callable[[str], object], classes: int, messages: int, prefix: str = "old") -> None:
    """Write so many classes that are over, an event of each, and so many messages in and out."""
    now = time.time()
    for insert, number in ((_CLASSES, classes), (_EVENTS, classes), (_INBOX, messages), (_OUTBOX, messages)):
        sql = insert.format(now=now, step=90 * 86_400 / classes, prefix=prefix)
        into, _, values = sql.partition("select")
        execute(f"{into} {_NUMBERS.format(number=number)} select {values}")


def _looked(stand: Stand, stage: Stage, ours: Ours, name: str) -> dict[str, float]:
    """Seconds of each look, and of a booking in a storm."""
    class_id = stage.book(of_record(stage, ours.records[0]))
    stage.answer(class_id, timeout_s=120)
    url = f"http://{stage.own['teacher']['API_BIND']}/metrics"
    number = 1000
    storms = [ours.storm(number, "refused", f"{name}-{turn}") for turn in range(max(2, stand.rounds))]
    ours.calm()
    found = {
        "/metrics": _timed(lambda: httpx.get(url, timeout=60).raise_for_status()),
        "lectern status": _timed(lambda: stage.lectern("teacher", "status", "--json").check_returncode()),
        "lectern explain": _timed(lambda: stage.lectern("teacher", "explain", class_id, "--json").check_returncode()),
        f"a booking of a storm of {number:,}": 1 / max(one.rate for one in storms),
    }
    stand.say(f"{name}: " + ", ".join(f"{what} {seconds * 1000:,.1f} ms" for what, seconds in found.items()))
    return found


def _timed(ask: Callable[[], object]) -> float:
    return min(timed(ask) for _ in range(ASKS))
