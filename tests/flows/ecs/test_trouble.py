"""What is wrong with a source, an upload, a host: each is told, and blamed on nobody else."""

from pathlib import Path

import pytest

from tests.flows.ecs.servers import Ecs
from tests.stage import wait_until
from town import recordings
from town.oss_transcoder import Behaviour, Rule
from town.ports import HOST

pytestmark = pytest.mark.live


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
