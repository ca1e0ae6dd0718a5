"""The one process a host runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.stage import Stage, Town, staged, wait_until
from town.oss_transcoder import Behaviour, Rule

pytestmark = pytest.mark.live


def test_what_is_handled_and_shown_leaves_no_thread_and_no_websocket(stage: Stage) -> None:
    """After 20 bookings nothing is left that was not there after 5, and the connections are one pool's."""
    record = stage.town.record()

    def resources() -> tuple[int, int]:
        """Threads of the resident process, and its connections to the Prefect server."""
        process = psutil.Process(stage.residents["teacher"].pid)
        connections = [one for one in process.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
        return process.num_threads(), sum(one.raddr.port == stage.town.prefect_port for one in connections)

    def book(number: int) -> tuple[int, int]:
        booked = []
        for _ in range(number):  # one after the other
            booked.append(stage.book(stage.booking(record, starts_in_s=-60, length_s=1)))
            stage.answer(booked[-1])
        for one in booked:
            wait_until(lambda o: stage.runs("teacher", tags=[f"class:{o}"]), one, description=f"{one} is shown")
        return resources()

    threads, connections = book(5)
    book(15)

    def as_before() -> bool:
        """What is at work at this moment ends; what was left stays."""
        threads_now, connections_now = resources()
        return threads_now <= threads + 4 and connections_now <= min(connections + 4, 20)

    wait_until(as_before, description="it has no more threads and connections than before")


@pytest.fixture(scope="module")
def alone(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A streamer without a teacher: its process is killed, stopped and started by the tests."""
    with staged(town, tmp_path_factory.mktemp("alone"), LEASE_S="60") as found:  # outlasts a slow start
        found.up("streamer1")
        yield found


@pytest.fixture
def streamer(alone: Stage) -> Stage:
    alone.up("streamer1")
    return alone


def put_on_air(stage: Stage, length_s: float) -> tuple[str, int]:
    """A class on air at the streamer: class_id, record_id."""
    # A slow machine needs ten seconds until it is prepared, and half a minute to start a process.
    booking = stage.booking(record := stage.town.record(seconds=240), starts_in_s=15, length_s=length_s)
    stage.tell("streamer1", {**booking, "cmd": "prepare"})
    stage.on_air(booking["class_id"])
    return booking["class_id"], record


def test_a_class_goes_on_while_its_resident_is_killed(streamer: Stage) -> None:
    """No gap, no new session; the next process takes up what is on air, and the end is told once, in true words."""
    class_id, record = put_on_air(streamer, 40)
    wait_until(lambda: streamer.airing("streamer1", class_id)["state"] == "on air", description="it counts as on air")
    streamer.residents["streamer1"].kill()

    def media_ms() -> int:
        """How much of the class its platform has received, in its only session."""
        (push,) = streamer.pushes(class_id)
        return push.last_timestamp_ms or 0

    killed_ms = media_ms()
    wait_until(lambda: media_ms() > killed_ms + 4000, description="it goes on without a resident")
    streamer.up("streamer1")
    assert streamer.num_cite("streamer1", str(record)) == 1
    (push,) = streamer.off_air(class_id, timeout_s=90)
    assert push.largest_step_ms < 500, "nothing of the recording is left out"
    wait_until(lambda: streamer.num_cite("streamer1", str(record)) == 0, description="its citation is taken back")
    assert streamer.airing("streamer1", class_id)["state"] == "aired"

    def reports() -> list[dict[str, Any]]:
        told = streamer.stream(f"{streamer.prefix}:report")
        return [one for one in told if one["class_id"] == class_id and one["cmd"] != "airing"]

    wait_until(lambda: len(reports()) > 1, description="the teacher is told")
    assert [(one["cmd"], one["result"]) for one in reports()] == [("prepared", "success"), ("ended", "success")]
    ended = reports()[-1]
    assert ended["message"] == "aired whole; 1 session; its end has come"
    assert [(one["session"], one["source"]) for one in ended["as_run"]] == [(1, "recording")]


def test_sigterm_drains_and_the_class_goes_on(streamer: Stage) -> None:
    """Exit code 0, at once; the run that watched awaits its retry, and the next process goes on with it."""
    class_id, record = put_on_air(streamer, 230)
    # One that is cut off before Prefect's engine has begun it is logged as crashed, and goes on all the same.
    wait_until(
        lambda: [one["state_name"] for one in streamer.runs("streamer1", f"broadcast {class_id}")] == ["Running"],
        description="its run watches",
    )
    assert streamer.residents["streamer1"].end() == 0
    (run,) = streamer.runs("streamer1", f"broadcast {class_id}")
    assert run["state_name"] == "AwaitingRetry"
    assert "Crash" not in "".join(text for _, text in streamer.logs()), "nothing has crashed"
    streamer.up("streamer1")
    wait_until(lambda: streamer.run(run["id"])["state_name"] == "Running", description="its run watches again")
    (push,) = streamer.pushes(class_id)
    assert push.ended_at is None
    streamer.tell("streamer1", {"cmd": "release", "class_id": class_id})
    streamer.off_air(class_id)
    wait_until(lambda: streamer.num_cite("streamer1", str(record)) == 0, description="its citation is taken back")


def test_one_process_serves_a_queue(streamer: Stage) -> None:
    """A second one says so, waits, and takes over when the first is dead; SIGTERM ends it while it waits."""
    first = streamer.residents["streamer1"]
    third, second = streamer.serve("streamer1"), streamer.serve("streamer1")
    for one in (second, third):
        one.wait_for(f"another process serves {streamer.name('streamer1')}")
    assert "up," not in second.said() + third.said()
    assert third.end(timeout_s=10) == 0
    booking = streamer.booking(streamer.town.record())
    streamer.tell("streamer1", {**booking, "cmd": "prepare"})
    wait_until(lambda: streamer.airing("streamer1", booking["class_id"]), description="the first one works")
    assert first.exit_code is None
    first.kill()
    second.wait_for("started!")


EVERY_LINE = """
import signal, sys, threading, time
from flows.resident.process import next_signal, signals

def heard(at: int) -> bool:
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename != threading.__file__:
            return trace
        lines += event == "line"
        if lines == at:
            lines += 1
            signal.raise_signal(signal.SIGTERM)
        return trace
    over = threading.Event()
    thread = threading.Thread(target=over.wait, args=(60,), daemon=True)
    thread.start()
    sys.settrace(trace)
    try:
        return next_signal(thread, signals(), threading.Event()) == signal.SIGTERM
    finally:
        sys.settrace(None)
        over.set()

heard(1)
print(all(heard(at) for at in range(1, 30)))  # two rounds of the wait, of 13 lines each
"""


def test_sigterm_is_heard_at_every_line_of_the_wait() -> None:
    """Also in the middle of one, where a handler that takes the lock of an event would wait for itself for ever."""
    found = subprocess.run([sys.executable, "-c", EVERY_LINE], capture_output=True, text=True, timeout=100, check=False)
    assert (found.returncode, found.stdout.strip()) == (0, "True"), found.stderr


def test_a_hangup_has_the_process_read_its_settings_anew(streamer: Stage, tmp_path: Path) -> None:
    streamer.residents["streamer1"].end()
    own = tmp_path / "settings.env"
    own.write_text("MAX_DOWNLOADS=4\n")
    resident = streamer.serve("streamer1", LECTERN_SETTINGS=str(own))
    resident.wait_for("started!")
    own.write_text("MAX_DOWNLOADS=2\n")
    os.kill(resident.pid, signal.SIGHUP)
    resident.wait_for("4 -> 2: live")
    assert resident.exit_code is None


def test_what_killed_teacher_was_to_ask_oss_for_is_asked_for_soon_after_its_start(town: Town, tmp_path: Path) -> None:
    """Though the dead run had an hour of its lease left, and the sweeps come every ten minutes."""
    with staged(town, tmp_path, SWEEP_INTERVAL_S="600") as stage:
        stage.up("teacher", "streamer1")
        record = stage.town.record()
        url = f"{stage.town.origin.url}/{{record_id}}/{{record_id}}.flv"
        stage.oss.behave(Rule(Behaviour.SILENT, record_id=record))
        class_id = stage.book(stage.booking(record, "480P", starts_in_s=9000))
        wait_until(lambda: any(one.record_id == record for one in list(stage.oss.posts)), description="it is asked for")
        tag = [f"record:{record}"]
        wait_until(
            lambda: [one["state_type"] for one in stage.runs("teacher", "request", tags=tag)] == ["COMPLETED"],
            description="its run has ended",
        )
        stage.residents["teacher"].kill()
        left = f"owner = '{stage.name('teacher')}/gone', lease_until = {time.time() + 3600}, requested_at = null"
        left += f", updated_at = {time.time() - 60}"
        stage.alter("teacher", f"update video_list set {left} where record_id = {record}")
        stage.oss.behave(Rule(Behaviour.QUICK, record_id=record, url=url))
        stage.serve("teacher").wait_for("started!")
        assert stage.answer(class_id, timeout_s=40)["result"] == "success"
