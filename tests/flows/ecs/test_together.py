"""Renditions of one record that are wanted at the same time are made in one run, each with a fate of its own."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.flows.ecs.servers import Ecs
from tests.stage import wait_until
from town.faults import Fault

pytestmark = pytest.mark.live


def test_two_renditions_of_a_record_are_made_in_one_run(ecs: Ecs) -> None:
    record = ecs.town.record()
    orders = [ecs.booking(record, resolution) for resolution in ("240P", "480P")]
    ecs.residents["teacher"].pause()
    both = [ecs.book(order) for order in orders]
    os.kill(ecs.residents["teacher"].pid, signal.SIGCONT)
    assert ecs.made(*both)
    assert ecs.town.asked(f"{record}/{record}.flv") == 1


@pytest.fixture
def joint(ecs: Ecs) -> Iterator[tuple[int, str, str]]:
    """A record, and two classes that were booked one after the other while both hosts were busy, and just were not."""
    with ecs.busy() as before:
        record = ecs.town.record()
        classes = []
        for resolution in ("240P", "480P"):
            classes.append(ecs.book(ecs.booking(record, resolution)))
            wait_until(
                lambda one: ecs.row(record, one).get("owner"), resolution, description=f"{resolution} waits in line"
            )
        assert [ecs.row(record, one)["begun_at"] for one in ("240P", "480P")] == [None, None]
        # The first run takes the second rendition as soon as its row is there, which can be before its own run is.
        wait_until(lambda: len(ecs.runs("teacher", f"transcode {record}")) == 2, description="each has a run")
    first, second = classes
    yield record, first, second
    assert ecs.made(*before)


def in_one_job(ecs: Ecs, record: int) -> str:
    """Wait until it is begun; returns its name."""
    rows = wait_until(
        lambda: found if all((found := ecs.row(record, one))["begun_at"] for one in ("480P", "240P")) else {},
        timeout_s=90,
        description="both are begun",
    )
    assert ecs.row(record, "480P")["ecs_job"] == ecs.row(record, "240P")["ecs_job"]
    return str(rows["ecs_job"])


def states(ecs: Ecs, record: int) -> list[str]:
    """How the runs of a record have ended, in the order of their resolutions."""
    over = ("COMPLETED", "FAILED", "CANCELLED")

    def ended() -> list[dict[str, Any]]:
        found = ecs.runs("teacher", f"transcode {record}")
        return found if all(one["state"]["type"] in over for one in found) else []

    runs: list[dict[str, Any]] = wait_until(ended, description="the runs have ended")
    return [one["state"]["type"] for one in sorted(runs, key=lambda one: str(one["name"]))]


def test_a_rendition_that_has_not_begun_is_joined_by_a_later_wish(ecs: Ecs, joint: tuple[int, str, str]) -> None:
    """One download, one ffmpeg, an upload and a result each; both runs end as their renditions do."""
    record, *classes = joint
    in_one_job(ecs, record)
    assert ecs.made(*classes)
    assert ecs.town.asked(f"{record}/{record}.flv") == 1
    assert [ecs.puts(record, one) for one in ("240P", "480P")] == [1, 1]
    assert [one["result"] for one in ecs.results(record)] == ["sucess", "sucess"]
    assert states(ecs, record) == ["COMPLETED", "COMPLETED"]
    ecs.clean()


def test_a_joint_job_is_found_again_by_a_teacher_that_was_killed(ecs: Ecs, joint: tuple[int, str, str]) -> None:
    record, *classes = joint
    job = in_one_job(ecs, record)
    wait_until(lambda: ecs.encoders_of(record), description="it encodes")
    (encoder,) = ecs.encoders_of(record)
    ecs.residents["teacher"].kill()
    assert ecs.encoders_of(record) == [encoder]
    ecs.up("teacher")
    assert {ecs.row(record, one)["ecs_job"] for one in ("240P", "480P")} <= {job, None}
    assert ecs.made(*classes)
    assert ecs.town.asked(f"{record}/{record}.flv") == 1
    assert [ecs.puts(record, one) for one in ("240P", "480P")] == [1, 1]
    assert [one["result"] for one in ecs.results(record)] == ["sucess", "sucess"]
    ecs.clean()


def test_a_rendition_that_can_not_be_uploaded_does_not_fail_the_other(ecs: Ecs, joint: tuple[int, str, str]) -> None:
    record, first, second = joint
    ecs.town.origin.faults.add(Fault(f"put/{record}/{record}_480P.flv", method="PUT", status=403))
    in_one_job(ecs, record)
    assert ecs.answer(first, timeout_s=120)["result"] == "success"
    refused = ecs.answer(second, timeout_s=120)
    assert refused["code"] == 208
    assert "403" in refused["message"]
    assert sorted((one["video_resolution"], one.get("code")) for one in ecs.results(record)) == [
        ("240P", None),
        ("480P", 214),
    ]
    assert ecs.puts(record, "240P") == 1
    assert "FAILED" in states(ecs, record)
    ecs.clean()


def test_a_run_whose_rendition_is_made_by_another_can_be_cancelled(ecs: Ecs, joint: tuple[int, str, str]) -> None:
    """Its own class is refused; the other rendition is made."""
    record, first, second = joint
    in_one_job(ecs, record)
    runs = {str(one["name"]): one["id"] for one in ecs.runs("teacher", f"transcode {record}")}
    owner = ecs.row(record, "480P")["owner"]
    (follower,) = [name for name, id_ in runs.items() if id_ != owner]
    ecs.click(runs[follower], "CANCELLING", "Cancelling")
    refused, made = (first, second) if follower.endswith("240P") else (second, first)
    answer = ecs.answer(refused, timeout_s=60)
    assert (answer["code"], "cancelled in the UI" in answer["message"]) == (208, True)
    assert ecs.answer(made, timeout_s=120)["result"] == "success"
    assert sorted(one["result"] for one in ecs.results(record)) == ["failed", "sucess"]
    ecs.clean()
