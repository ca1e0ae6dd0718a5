"""The teacher is killed again and again between a commit and its sending: the platform misses nothing that happened."""

import json
import random
import signal
import sys
from pathlib import Path

import pytest

from tests.faults import lives
from tests.faults.lives import POINTS, Moment
from tests.stage import Stage, Town, staged, wait_until

pytestmark = [pytest.mark.live, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
BEFORE = next(
    n for n, one in enumerate(POINTS) if (one.function, one.when) == ("lectern.redis.client:Bus.send", "before")
)


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.night)])
def test_no_event_is_missing_and_none_comes_twice_with_another_content(
    town: Town, tmp_path_factory: pytest.TempPathFactory, kills: int
) -> None:
    """What the rows have is what was sent, event by event, and the answers to bookings and cancels with them."""
    chance = random.Random(f"told {kills}")
    plan = [Moment(BEFORE, chance.choice((1, 1, 2, 3)), 0.0, lives.LONGEST_S) for _ in range(kills)]
    own = {"HEARTBEAT_INTERVAL_S": "1", "ECS_HOSTS": "", "MAX_VIDEO_NUM": "1000"}
    with staged(town, tmp_path_factory.mktemp("told"), **own) as stage:
        stage.init("teacher", "streamer1")
        stage.serve("streamer1")
        stage.launcher = (sys.executable, "-m", "tests.faults.lives")
        log = stage.folder / "lives.log"
        stage.own["teacher"] = {**lives.environment(plan, log, stage.database("teacher")), "PYTHONPATH": str(ROOT)}
        stage.serve("teacher")
        record, booked = town.record(), list[str]()

        def deaths() -> list[str]:
            return log.read_text().split("\n")[:-1] if log.exists() else []  # the last line may be half written

        def live() -> bool:
            far, past = stage.booking(record, starts_in_s=100_000), stage.booking(record, starts_in_s=-60, length_s=1)
            soon = stage.booking(record, starts_in_s=6, length_s=4)
            booked.extend(stage.book_on_stream(one) for one in (far, past, soon))
            stage.cancel_on_stream(chance.choice(booked))
            return len(deaths()) >= kills

        wait_until(live, timeout_s=30 + 12 * kills, pause_s=0.4, description=f"it has died {kills} times")
        for one in booked:
            stage.answer(one, timeout_s=90)
        wait_until(lambda: not _waits(stage), timeout_s=120, pause_s=0.5, description="all is told")
        died = [json.loads(one) for one in deaths()]
        assert [one["code"] for one in died] == [-signal.SIGKILL] * kills
        assert sum(bool(one["unsent"]) for one in died) >= kills / 5, "a life sends its grants first, of no class"
        assert _wrong(stage) == []


def _waits(stage: Stage) -> bool:
    """Whether a message is to be handled or sent, or a class of which the end is to be told."""
    sql = (
        "select 1 from outbox_list where sent_at is null union select 1 from inbox_list where state = 'new' union"
        " select 1 from order_list where state in ('received', 'waiting', 'placed') or (state in ('ready', 'cancelled')"
        " and start_time < strftime('%s') + 600 and class_id not in (select class_id from class_event_list where event"
        " = 'ended'))"
    )
    return bool(stage.rows("teacher", sql))


def _wrong(stage: Stage) -> list[str]:
    """The events that the rows have and nobody was told, or otherwise, or in another order."""
    told: dict[tuple[str, int], dict[str, object]] = {}
    wrong: list[str] = []
    for one in stage.stream(stage.channels["class_event"]):
        key = one["class_id"], one["seq"]
        if told.setdefault(key, one) != one:
            wrong.append(f"{key} was told as {told[key]}, then as {one}")
    rows = stage.rows("teacher", "select class_id, seq, body from class_event_list order by id")
    kept = {(row["class_id"], row["seq"]): json.loads(row["body"]) for row in rows}
    wrong += [
        f"{key}: kept {kept.get(key)}, told {told.get(key)}" for key in kept | told if kept.get(key) != told.get(key)
    ]
    for class_id in {class_id for class_id, _ in kept}:
        numbers = [seq for id_, seq in told if id_ == class_id]
        if numbers != list(range(1, len(numbers) + 1)):
            wrong.append(f"{class_id} was told as {numbers}")
    return wrong
