"""One job on our own servers: its place in the line, and what is wrong with a source, a host or the OSS."""

import pytest

from tests.flows.ecs.servers import Ecs, made_once
from tests.stage import wait_until
from town import recordings
from town.oss_transcoder import Behaviour, Rule

pytestmark = pytest.mark.live


# -- its place in the line ---------------------------------------------------------------------------------------------


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


# -- what is wrong is told, and blamed on nobody else -----------------------------------------------------------------


def test_a_recording_without_sound_is_refused_with_a_code_of_its_own(ecs: Ecs) -> None:
    """At the first look, on the first host."""
    record = ecs.town.record()
    source = ecs.town.origin.root / str(record) / f"{record}.flv"
    silent = recordings.make(ecs.town.programs.ffmpeg, source, seconds=4, width=320, height=240, audio=False)
    ecs.town.background.run(silent)
    answer = ecs.answer(ecs.book(ecs.booking(record, "240P")), timeout_s=60)
    assert (answer["code"], "no sound" in answer["message"]) == (208, True)
    assert [one["code"] for one in ecs.results(record)] == [215]
    assert ecs.town.asked(f"{record}/{record}.flv") == 1
    assert ecs.puts(record) == 0


def test_hosts_that_fail_again_and_again_are_put_aside_with_an_alarm(ecs: Ecs) -> None:
    """Both are away: the class is refused in time, and a person is told which host, and why."""
    for server in (ecs.a, ecs.b):
        ecs.town.background.run(server.gate.stop())
    classes = [ecs.book(ecs.booking(ecs.town.record(), "240P")) for _ in range(2)]
    assert [ecs.answer(one, timeout_s=120)["code"] for one in classes] == [208, 208]
    wait_until(lambda: ecs.alarms(212), description="the alarm comes")
    assert any("cannot be reached" in one["message"] for one in ecs.alarms(212))
    for server in (ecs.a, ecs.b):
        ecs.town.background.run(server.gate.start())
    again = ecs.book(ecs.booking(ecs.town.record(), "240P"))
    assert ecs.answer(again, timeout_s=120)["result"] == "success"


def test_while_the_oss_api_is_down_our_own_servers_are_asked_at_once(ecs: Ecs) -> None:
    """After a few failures in a row it is left alone; no class waits for its retries."""
    down = ecs.oss.behave(Rule(Behaviour.ERROR_500, times=1000))
    try:
        for _ in range(3):
            assert ecs.answer(ecs.book(ecs.booking(ecs.town.record(), "240P")), timeout_s=120)["result"] == "success"
        assert 1000 - (down.times or 0) <= 6
    finally:
        down.times = 0
