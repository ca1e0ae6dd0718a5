"""A job that a person, its classes or the clock end."""

import psutil
import pytest

from tests.flows.ecs.servers import Ecs
from tests.stage import wait_until

pytestmark = pytest.mark.live


def test_a_run_that_is_cancelled_in_the_ui_ends_its_job_there(ecs: Ecs) -> None:
    """Its classes are refused; a Retry makes it after all."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    encoder = ecs.encoding()
    (run, *_) = ecs.runs("teacher", f"transcode {record}")
    ecs.click(run["id"], "CANCELLING", "Cancelling")
    answer = ecs.answer(class_id, timeout_s=60)
    assert (answer["result"], answer["code"]) == ("fail", 208)
    assert "cancelled in the UI" in answer["message"]
    wait_until(lambda: not psutil.pid_exists(encoder), description="its ffmpeg is gone")
    ecs.clean()
    wait_until(lambda: ecs.run(run["id"])["state"]["type"] == "CANCELLED", description="the run is cancelled")
    ecs.click(run["id"], "SCHEDULED", "AwaitingRetry")
    wait_until(lambda: ecs.status(record, "240P") == "success", timeout_s=90, description="the retry makes it")


def test_a_job_that_no_class_needs_any_more_is_ended(ecs: Ecs) -> None:
    """Its last class was cancelled; nobody is alarmed, and the next booking begins anew."""
    record = ecs.town.record()
    first, second = (ecs.book(ecs.booking(record, "240P")) for _ in range(2))
    encoder = ecs.encoding()
    ecs.cancel(first)
    assert ecs.answer(first)["code"] == 411
    assert psutil.pid_exists(encoder), "the second class still needs it"
    ecs.cancel(second)
    wait_until(lambda: ecs.status(record, "240P") == "failed", description="it is given up")
    ecs.clean()
    assert ecs.results(record) == []
    assert ecs.alarms(208, record_id=record) == []
