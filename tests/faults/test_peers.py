"""Two teachers on one PostgreSQL: each class is answered, placed and asked for once, whoever dies or stands still."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.teachers.cases import SETTINGS, Case, chosen
from tests.faults.teachers.play import Play
from tests.stage import Stage, Town, staged, wait_until
from tests.stage.postgres import Databases

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def stage(town: Town, tmp_path_factory: pytest.TempPathFactory, postgresql: Databases) -> Iterator[Stage]:
    settings = {"TEACHER_DATABASE_URL": postgresql.fresh(), "TRANSCODING_TIME_OUT_S": "90"}  # none is to be late
    with staged(town, tmp_path_factory.mktemp("stage"), **settings) as found:
        found.init("teacher")
        found.up("teacher", "teacher2", "streamer1")
        yield found


def bookings(stage: Stage, number: int) -> list[str]:
    """Book *number* classes of one cached recording, every other one on the stream, within two seconds."""
    record = stage.town.record("480P")
    booked = []
    for count in range(number):
        booking = stage.booking(record, "480P", listed=("480P",))
        booked.append(stage.book(booking) if count % 2 else stage.book_on_stream(booking))
        time.sleep(2 / number)
    return booked


def answered(stage: Stage, class_ids: list[str], within_s: float, *, times: int = 1) -> dict[str, int]:
    """Wait until each is answered so often, and for one more that would come; returns how often each was."""
    wait_until(
        lambda: all(len(stage.ear.answers[one]) >= times for one in class_ids),
        timeout_s=within_s,
        description=f"all {len(class_ids)} are answered",
    )
    time.sleep(3)  # one more would come now
    return {one: len(stage.ear.answers[one]) for one in class_ids}


def placements(stage: Stage, class_ids: list[str]) -> set[int]:
    rows = stage.rows("teacher", "select class_id, placement from order_list")
    return {row["placement"] for row in rows if row["class_id"] in class_ids}


def nothing_is_left(stage: Stage) -> None:
    """No message unhandled or unsent, none pending on a stream."""

    def done() -> bool:
        new = stage.rows("teacher", "select id from inbox_list where state = 'new'")
        unsent = stage.rows("teacher", "select id from outbox_list where sent_at is null")
        pending: Any = stage.town.redis.xpending(stage.channels["order"], "lectern")
        return not new and not unsent and not pending["pending"]

    wait_until(done, description="nothing is left")


def test_what_both_hear_is_answered_once_and_asked_for_once(stage: Stage) -> None:
    """And what the platform sends twice, twice."""
    record = stage.town.record()
    waiting = [stage.book(stage.booking(record, "480P")) for _ in range(5)]
    booked = bookings(stage, 40)
    twice = stage.booking(stage.town.record("480P"), "480P", listed=("480P",))
    for _ in range(2):
        stage.book(twice)
    assert set(answered(stage, [*booked, *waiting], 60).values()) == {1}
    assert answered(stage, [twice["class_id"]], 30, times=2) == {twice["class_id"]: 2}
    assert stage.posts(record) == 1
    assert placements(stage, [*booked, *waiting]) == {1}
    nothing_is_left(stage)


def test_a_run_of_the_queue_is_executed_by_one_of_them(stage: Stage) -> None:
    """Both poll; the tag says who was first, and nobody runs it again: not at first, nor at its Retry."""
    asked = {"deployments": {"name": {"any_": [stage.name("teacher")]}}, "flows": {"name": {"any_": ["sweep teacher"]}}}
    (deployment,) = stage._post("/deployments/filter", asked)
    runs = [stage.quick_run(deployment["id"], dry_run=True) for _ in range(50)]
    executed(stage, runs, 1)
    for one in runs:
        stage.click(one, "SCHEDULED", "AwaitingRetry")
    executed(stage, runs, 2)


def executed(stage: Stage, runs: list[str], times: int) -> None:
    """Wait until each was executed so often, by one host each time, and no more often."""

    def is_over(run_id: str) -> bool:
        found = stage.run(run_id)
        return bool(found["state_type"] == "COMPLETED" and found["run_count"] >= times)

    left = list(runs)

    def all_over() -> bool:
        left[:] = [one for one in left if not is_over(one)]
        return not left

    wait_until(all_over, timeout_s=150, pause_s=0.5, description=f"all are executed {times} times")
    found = [stage.run(one) for one in runs]
    assert {one["run_count"] for one in found} == {times}
    hosts = [[tag for tag in one["tags"] if tag.startswith("host:")] for one in found]
    assert all(len(one) == 1 for one in hosts), hosts


NUMBER, BOOKINGS = 2, 400
ALWAYS = Case("claimed, not handled", "kill", "channel", ("teacher2",))


def test_whoever_is_struck_every_class_is_answered_once(
    town: Town,
    tmp_path_factory: pytest.TempPathFactory,
    postgresql: Databases,
    capsys: pytest.CaptureFixture[str],
    pytestconfig: pytest.Config,
) -> None:
    seed = int(pytestconfig.getoption("--seed"))
    settings = {**SETTINGS, "TEACHER_DATABASE_URL": postgresql.fresh()}
    with staged(town, tmp_path_factory.mktemp("stage"), **settings) as stage:
        play = Play(stage, seed)
        for case in [ALWAYS, *(one for one in chosen(NUMBER, seed) if one != ALWAYS)]:
            outcome = play.play(case, BOOKINGS)
            with capsys.disabled():
                sys.stdout.write(f" [{outcome.line()}] ")
            again = f"play it again: make faults-teachers CASES={NUMBER} N={BOOKINGS} SEED={seed}"
            assert outcome.faults == [], f"{outcome.line()}; {again}"
