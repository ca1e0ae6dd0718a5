"""Who gets which host, what is made together, and how far it is."""

import pytest

from tests.flows.ecs.servers import Ecs, made_once
from tests.stage import wait_until

pytestmark = pytest.mark.live


def test_progress_and_host_are_in_the_row(ecs: Ecs) -> None:
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))

    def told() -> bool:
        row = ecs.row(record)
        return bool(row.get("step") == "encode" and 0 < (row["percent"] or 0) < 100 and row["eta"])

    wait_until(told, description="the row says how far it is")
    row = ecs.row(record)
    assert row["ecs_host"] in (ecs.a.name, ecs.b.name)
    assert row["eta"] > row["begun_at"]
    made_once(ecs, record, class_id)


def test_jobs_that_come_at_the_same_time_get_one_place_each(ecs: Ecs) -> None:
    """Also where the second comes while the first is being told where."""
    records = [ecs.town.record() for _ in range(4)]
    orders = [ecs.booking(record, "240P") for record in records]
    ecs.residents["teacher"].pause()
    classes = [ecs.book(order) for order in orders]
    ecs.residents["teacher"].go_on()
    for record, class_id in zip(records, classes, strict=True):
        made_once(ecs, record, class_id)


def test_a_teacher_that_is_killed_while_its_job_waits_for_a_host_makes_it_later(ecs: Ecs) -> None:
    with ecs.busy() as first:
        record = ecs.town.record()
        class_id = ecs.book(ecs.booking(record, "240P"))
        in_line(ecs, record)
        ecs.residents["teacher"].kill()
    ecs.up("teacher")
    made_once(ecs, record, class_id)
    assert ecs.made(*first)


def in_line(ecs: Ecs, *records: int) -> None:
    """Wait until all of *records* wait for a host; who asks the OSS for one owns it before."""

    def waits(record: int) -> bool:
        row = ecs.row(record)
        return bool(row.get("owner")) and row["backend"] == "ecs"

    wait_until(lambda: all(map(waits, records)), description="all wait in line")
    assert {ecs.row(one)["begun_at"] for one in records} == {None}
