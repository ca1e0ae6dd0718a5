"""Settings are read anew again and again while bookings storm in and a class is on air; nobody notices."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.marks import share
from tests.stage import Stage, Town, staged, wait_until
from town.ports import HOST, free_port

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200)]
HOSTS = {"teacher": "API_BIND", "streamer1": "HEALTH_BIND"}
PAIR = ("ALARM_ESCALATE_S", "ALARM_QUIET_S")
"""Two settings that always have the same value."""
STORM = 3
"""Bookings for each reload."""


@pytest.fixture
def stage(town: Town, tmp_path: Path) -> Iterator[Stage]:
    """Hosts whose settings are in files of their own, and which answer where they are asked to read them."""
    with staged(town, tmp_path, LEASE_S="45") as found:
        for who, bind in HOSTS.items():
            found.own[who] = {bind: f"{HOST}:{free_port()}", "LECTERN_SETTINGS": str(tmp_path / f"{who}.env")}
            write(found, who, 1)
        found.up(*HOSTS)
        yield found


def write(stage: Stage, who: str, value: int, wrong: str = "") -> None:
    text = "".join(f"{name}={value}\n" for name in PAIR)
    Path(stage.own[who]["LECTERN_SETTINGS"]).write_text(text + wrong)


def reloads(stage: Stage, who: str, number: int, record: int) -> tuple[list[str], list[str]]:
    """Book and reload, a tenth of the times with a wrong value; returns the classes, and each reload that was odd.

    Each answer has both of the pair, from the last right value: else a part of a wrong file was taken, or lost.
    """
    booked, odd, last = [], [], 1
    with httpx.Client(base_url=f"http://{stage.own[who][HOSTS[who]]}", trust_env=False, timeout=60) as client:
        for value in range(2, number + 2):
            booked += [stage.book(stage.booking(record, starts_in_s=7200, length_s=60)) for _ in range(STORM)]
            is_wrong = value % 10 == 0
            write(stage, who, value, "MAX_VIDEO_NUM=none\nMAX_ATTEMPTS_A_DAY=none\n" if is_wrong else "")
            answer = client.post("/reload")
            expected = [f"{name} {last} -> {value}: live" for name in PAIR]
            if (answer.status_code, answer.json().get("said")) != ((422, None) if is_wrong else (200, expected)):
                odd.append(f"{value}: {answer.status_code} {answer.text}")
            last = last if is_wrong else value
    return booked, odd


def test_no_answer_is_lost_no_class_is_cut_and_no_setting_is_half_applied(stage: Stage) -> None:
    """100 reloads in the CI, 1,000 in the night."""
    number = share(0.5)
    length_s = 240 + number
    record = stage.town.record(seconds=length_s)
    on_air = stage.book(stage.booking(record, starts_in_s=20, length_s=length_s))
    push = stage.on_air(on_air, timeout_s=120)
    with ThreadPoolExecutor(len(HOSTS)) as threads:
        done = list(threads.map(lambda who: reloads(stage, who, number // len(HOSTS), record), HOSTS))
    assert [odd for _, odds in done for odd in odds] == []
    assert push.ended_at is None, "the class is still on air"
    booked = [class_id for classes, _ in done for class_id in classes]
    assert len(booked) == number * STORM
    wait_until(lambda: all(stage.ear.answers[one] for one in booked), timeout_s=120, description="all are answered")
    assert {answer["result"] for one in booked for answer in stage.ear.answers[one]} == {"success"}
    assert {len(stage.ear.answers[one]) for one in booked} == {1}
    stage.cancel(on_air)
    (push,) = stage.off_air(on_air)
    assert push.largest_step_ms < 500, "nothing of the recording is left out"
    assert all(child.exit_code is None for child in stage.residents.values())
