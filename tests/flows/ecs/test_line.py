"""Who gets which host, what is made together, and how far it is."""

import os
import signal
import time

import pytest

from tests.flows.ecs.servers import Ecs, made_once
from tests.stage import wait_until

pytestmark = pytest.mark.timeout(600)  # the first test of a session starts the servers


def test_progress_and_host_are_in_the_row(ecs: Ecs) -> None:
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))

    def told() -> bool:
        row = ecs.row(record)
        return bool(row.get("step") == "encode" and 0 < (row["percent"] or 0) < 100 and row["eta"])

    wait_until(told, timeout_s=60, description="the row says how far it is")
    row = ecs.row(record)
    assert row["ecs_host"] in (ecs.a.name, ecs.b.name)
    assert 0 <= row["eta"] - time.time() < 60
    made_once(ecs, record, class_id)


def test_the_class_that_begins_first_is_served_first(ecs: Ecs) -> None:
    """Each host takes one job at a time; the third and fourth wait in line."""
    busy = [ecs.town.record() for _ in range(2)]
    first = [ecs.book(ecs.booking(record, "240P")) for record in busy]
    encoders = wait_until(
        lambda: found if len(found := ecs.encoders()) == 2 else [], timeout_s=60, description="both hosts are at work"
    )
    for pid in encoders:
        os.kill(pid, signal.SIGSTOP)
    late, early = ecs.town.record(), ecs.town.record()
    classes = [
        ecs.book(ecs.booking(late, "240P", starts_in_s=5000)),
        ecs.book(ecs.booking(early, "240P", starts_in_s=300)),
    ]
    both = (late, early)
    wait_until(lambda: all(ecs.row(one).get("owner") for one in both), timeout_s=30, description="both wait in line")
    assert [ecs.row(one)["begun_at"] for one in both] == [None, None]
    for pid in encoders:
        os.kill(pid, signal.SIGCONT)
    assert all(ecs.answer(one, timeout_s=120)["result"] == "success" for one in [*first, *classes])
    assert ecs.row(early)["begun_at"] <= ecs.row(late)["begun_at"]
