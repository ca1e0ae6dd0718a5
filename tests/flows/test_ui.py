"""What a person does in Prefect's UI is done here."""

import json

import pytest

from tests.stage import PROMPT_S, Stage, wait_until

pytestmark = pytest.mark.live


def test_a_booking_that_the_database_refuses_holds_up_none_that_came_with_it(stage: Stage) -> None:
    """Its run has failed and says which it was; the others are answered. Retry does what is not done."""
    booked = [stage.booking(stage.town.record()) for _ in range(5)]
    *good, bad = [str(one["class_id"]) for one in booked]
    booked.insert(2, booked.pop())
    when = f"BEFORE INSERT ON order_list WHEN NEW.class_id = '{bad}'"
    stage.alter("teacher", f"CREATE TRIGGER refuses {when} BEGIN SELECT RAISE(ABORT, 'not this one'); END")
    with stage.town.redis.pipeline() as together:
        for one in booked:
            together.xadd(stage.channels["order"], {"body": json.dumps(one)})
        together.execute()
    assert [stage.answer(class_id)["result"] for class_id in good] == ["success"] * 4
    (*_, run) = wait_until(
        lambda: [one for one in stage.runs("teacher", f"booking {bad}") if one["state_type"] == "FAILED"],
        description="its run has failed",
    )
    assert run["state"]["message"].startswith("1 of 5 failed: IntegrityError")
    assert "not this one; the others: 4 proceed" in run["state"]["message"]
    assert stage.ear.answers[bad] == []

    stage.alter("teacher", "DROP TRIGGER refuses")
    stage.click(run["id"], "SCHEDULED", "AwaitingRetry")
    assert stage.answer(bad)["result"] == "success"
    assert [len(stage.ear.answers[class_id]) for class_id in good] == [1] * 4


def test_cancel_takes_a_class_off_the_air(stage: Stage) -> None:
    """Its push ends within seconds, its citation is taken back, and no other push begins."""
    booking = stage.booking(record := stage.town.record(seconds=90), starts_in_s=15, length_s=60)
    class_id = stage.book(booking)
    stage.on_air(class_id)
    (run,) = wait_until(
        lambda: stage.runs("streamer1", f"broadcast {class_id}"), description="the class on air has its run"
    )
    stage.click(run["id"], "CANCELLING", "Cancelling")
    (push,) = stage.off_air(class_id)
    assert push.ended_at is not None
    assert push.ended_at < booking["end_time"] - 5
    wait_until(lambda: stage.num_cite("streamer1", str(record)) == 0, description="the citation is taken back")
    wait_until(
        lambda: stage.run(run["id"])["state_type"] == "CANCELLED", timeout_s=90, description="the run is cancelled"
    )
    assert stage.airing("streamer1", class_id)["state"] == "cancelled"
    wait_until(lambda: stage.order(class_id)["state"] == "cancelled", description="the teacher knows")
    assert stage.alarms(321, class_id=class_id) == []
    assert len(stage.pushes(class_id)) == 1


def test_a_class_that_a_quick_run_airs_can_be_cancelled(stage: Stage) -> None:
    """Its run is another than that of the timetable: both end."""
    booking = stage.booking(record := stage.town.record(), starts_in_s=900)
    class_id = stage.book(booking)
    stage.answer(class_id)
    (planned,) = wait_until(lambda: stage.runs("streamer1", f"broadcast {class_id}"), description="its run is there")
    quick = stage.quick_run(planned["deployment_id"], class_id=class_id)
    # Its progress: *Running* says the engine before the flow has looked at the class.
    wait_until(stage.tables, quick, description="the quick run waits for its second")
    assert stage.run(quick)["name"] == f"broadcast {class_id}", "what it does, if nobody gave it a name"
    stage.cancel(class_id)
    wait_until(lambda: stage.num_cite("streamer1", str(record)) == 0, description="its citation is taken back")
    for run_id in (quick, planned["id"]):
        wait_until(lambda one: stage.run(one)["state_type"] == "CANCELLED", run_id, description="the run is cancelled")


def test_a_paused_queue_holds_back_what_is_pressed_and_no_class(stage: Stage) -> None:
    """A class is on air at its second all the same; what was pressed is done when the queue goes on."""
    booking = stage.booking(stage.town.record(), starts_in_s=18, length_s=8)
    class_id = stage.book(booking)
    stage.answer(class_id)
    (planned,) = wait_until(lambda: stage.runs("streamer1", f"broadcast {class_id}"), description="its run is there")
    path = f"/work_pools/resident/queues/{stage.name('streamer1')}"
    stage.change(path, is_paused=True)
    try:
        pressed = stage.quick_run(planned["deployment_id"], class_id=class_id)
        push = stage.on_air(class_id)
        assert push.first_media_at is not None
        assert push.first_media_at - booking["start_time"] < PROMPT_S
        (push,) = stage.off_air(class_id)
        assert stage.run(pressed)["state_type"] == "SCHEDULED"
    finally:
        stage.change(path, is_paused=False)
    wait_until(lambda: stage.run(pressed)["state_type"] == "COMPLETED", description="what was pressed is done")
    assert "nothing to do" in stage.run(pressed)["state"]["message"]
    assert len(stage.pushes(class_id)) == 1
    assert stage.airing("streamer1", class_id)["state"] == "aired"
