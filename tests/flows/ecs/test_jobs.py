"""One job on our own servers: its place, what ends it, and what is wrong with a source, an upload or a host."""

from pathlib import Path

import psutil
import pytest

from tests.flows.ecs.held import Held
from tests.flows.ecs.servers import Ecs, made_once
from tests.stage import wait_until
from town import recordings
from town.oss_transcoder import Behaviour, Rule
from town.ports import HOST

pytestmark = pytest.mark.live


# -- its place in the line ---------------------------------------------------------------------------------------------


def test_step_and_host_are_in_the_row(ecs: Ecs) -> None:
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    wait_until(lambda: ecs.row(record).get("step") == "encode", description="the row says what is done")
    assert ecs.row(record)["ecs_host"] in (ecs.a.name, ecs.b.name)
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


# -- a person, its classes or the clock end it ------------------------------------------------------------------------


def test_a_run_that_is_cancelled_in_the_ui_ends_its_job_there(ecs: Ecs) -> None:
    """Its classes are refused; a Retry makes it after all."""
    held = Held(ecs, "encode").reached()
    record, encoder = held.record, held.program
    (run, *_) = ecs.runs("teacher", f"transcode {record}")
    ecs.click(run["id"], "CANCELLING", "Cancelling")
    answer = ecs.answer(held.class_id, timeout_s=60)
    assert (answer["result"], answer["code"]) == ("fail", 208)
    assert "cancelled in the UI" in answer["message"]
    wait_until(lambda: not psutil.pid_exists(encoder), description="its ffmpeg is gone")
    ecs.clean()
    wait_until(lambda: ecs.run(run["id"])["state"]["type"] == "CANCELLED", description="the run is cancelled")
    ecs.click(run["id"], "SCHEDULED", "AwaitingRetry")
    wait_until(lambda: ecs.status(record, "240P") == "success", timeout_s=90, description="the retry makes it")


def test_a_job_that_no_class_needs_any_more_is_ended(ecs: Ecs) -> None:
    """Its last class was cancelled; nobody is alarmed, and the next booking begins anew."""
    held = Held(ecs, "encode").reached()
    record, first = held.record, held.class_id
    second = ecs.book(ecs.booking(record, "240P"))
    wait_until(lambda: ecs.order(second).get("state") == "waiting", description="the second class waits for it, too")
    ecs.cancel(first)
    assert ecs.answer(first)["code"] == 411
    assert held.lives, "the second class still needs it"
    ecs.cancel(second)
    wait_until(lambda: ecs.status(record, "240P") == "failed", description="it is given up")
    ecs.clean()
    assert ecs.results(record) == []
    assert ecs.alarms(208, record_id=record) == []


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


@pytest.mark.parametrize("key", ["another", "none"])
def test_a_host_that_is_not_the_known_one_is_not_trusted(ecs: Ecs, key: str) -> None:
    """The job goes to the other host, and the log says what to type."""
    known = Path(ecs.settings["ECS_KNOWN_HOSTS"])
    before = known.read_text()
    stranger = f"[{HOST}]:{ecs.a.gate.port} {' '.join(ecs.b.known.split()[1:])}\n"
    known.write_text(ecs.b.known + (stranger if key == "another" else ""))
    try:
        record = ecs.town.record()
        class_id = ecs.book(ecs.booking(record, "240P"))
        assert ecs.answer(class_id, timeout_s=120)["result"] == "success"
    finally:
        known.write_text(before)
    said = "is another than in" if key == "another" else "is not in"
    assert any(f"its key {said}" in text and "ssh-keyscan" in text for _, text in ecs.logs())


def test_while_the_oss_api_is_down_our_own_servers_are_asked_at_once(ecs: Ecs) -> None:
    """After a few failures in a row it is left alone; no class waits for its retries."""
    down = ecs.oss.behave(Rule(Behaviour.ERROR_500, times=1000))
    try:
        for _ in range(3):
            assert ecs.answer(ecs.book(ecs.booking(ecs.town.record(), "240P")), timeout_s=120)["result"] == "success"
        assert 1000 - (down.times or 0) <= 6
    finally:
        down.times = 0
