"""Renditions of one record: those of one request are made in one run, each with a fate of its own."""

from typing import Any

import pytest

from tests.flows.ecs.servers import Ecs
from tests.stage import wait_until

pytestmark = pytest.mark.live

SETTINGS = {"OSS_TRANSCODE_URL": "", "BATCH_WAIT_S": "0.5"}
"""What is booked at once is asked of our own servers at once."""


def begun(ecs: Ecs, record: int) -> list[str]:
    """Wait until both renditions are begun; returns their jobs."""
    rows = wait_until(
        lambda: found if all(found := [ecs.row(record, one).get("ecs_job") for one in ("240P", "480P")]) else [],
        timeout_s=90,
        description="both are begun",
    )
    return [str(one) for one in rows]


def states(ecs: Ecs, record: int) -> list[str]:
    """How the runs of a record have ended."""
    over = ("COMPLETED", "FAILED", "CANCELLED")

    def ended() -> list[dict[str, Any]]:
        found = ecs.runs("teacher", f"transcode {record}")
        return found if all(one["state"]["type"] in over for one in found) else []

    runs: list[dict[str, Any]] = wait_until(ended, description="the runs have ended")
    return sorted(one["state"]["type"] for one in runs)


def made_once(ecs: Ecs, record: int, *classes: str, downloads: int) -> None:
    """An upload and a result for each class."""
    assert ecs.made(*classes)
    assert ecs.town.asked(f"{record}/{record}.flv") == downloads
    assert [ecs.puts(record, one) for one in ("240P", "480P")] == [1, 1]
    assert [one["result"] for one in ecs.results(record)] == ["sucess", "sucess"]


def test_two_renditions_of_a_request_are_made_in_one_run(ecs: Ecs) -> None:
    """They are booked at once: one download and one ffmpeg."""
    record = ecs.town.record()
    orders = [ecs.booking(record, resolution) for resolution in ("240P", "480P")]
    ecs.residents["teacher"].pause()
    classes = [ecs.book(order) for order in orders]
    ecs.residents["teacher"].go_on()
    made_once(ecs, record, *classes, downloads=1)
    assert states(ecs, record) == ["COMPLETED"]


def test_two_runs_of_one_record_do_not_touch_each_other(ecs: Ecs) -> None:
    """Each has a job of its own; one is cancelled, and the other made."""
    record = ecs.town.record()
    classes = []
    for resolution in ("240P", "480P"):
        classes.append(ecs.book(ecs.booking(record, resolution)))
        wait_until(lambda one=resolution: ecs.row(record, one).get("owner"), description="its run has it")
    assert len({*begun(ecs, record)}) == 2
    ecs.click(ecs.row(record, "240P")["owner"], "CANCELLING", "Cancelling")
    answer = ecs.answer(classes[0], timeout_s=60)
    assert (answer["code"], "cancelled in the UI" in answer["message"]) == (208, True)
    assert ecs.answer(classes[1], timeout_s=120)["result"] == "success"
    assert sorted(one["result"] for one in ecs.results(record)) == ["failed", "sucess"]
    assert states(ecs, record) == ["CANCELLED", "COMPLETED"]
    ecs.clean()
