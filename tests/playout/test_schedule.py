"""The timetable that a worker takes over: what changed costs time, what is not due costs a tick nothing."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from lectern.playout import schedule, timetable
from lectern.playout.as_run import AIRED, read_aired
from lectern.playout.control_socket import write_timetable
from lectern.playout.kernel import Now
from lectern.playout.publisher import WorkerContext
from lectern.playout.schedule import AiredFile, Schedule
from tests.playout import flvs
from tests.playout.stage import loopback
from tests.waiting import wait_until

HOUR_S = 3600.0
NOW = Now(1000.0, 1_700_000_000.0)


def fields(class_id: str, starts_in_s: float = HOUR_S, **more: Any) -> dict[str, Any]:
    start = NOW.wall + starts_in_s
    urls = [f"rtmp://127.0.0.1:1/live/{class_id}"]
    return {"class_id": class_id, "file": "/a.flv", "push_urls": urls, "start": start, "end": start + 60, **more}


class Worker:
    """A schedule that takes over what a test writes, and tells its events."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.told: list[dict[str, Any]] = []
        self.pool = pool
        self.path = folder / timetable.NAME
        context = WorkerContext(pool, self.told.append, lambda _key, _session: None, lambda _: None)
        self.schedule = Schedule(context)

    def take(self, *classes: dict[str, Any] | str) -> timetable.TimetableDifference:
        """Write a timetable of *classes*, and take it over; returns how it differed."""
        version = write_timetable(self.path, [one if isinstance(one, str) else json.dumps(one) for one in classes])
        found = timetable.difference(self.path, self.schedule.lines)
        for _ in self.schedule.take_over(found):
            pass
        assert self.schedule.version == version
        return found

    def starts(self) -> dict[str, float]:
        """When the classes begin, in seconds from NOW."""
        return {name: one.entry.lesson.start - NOW.wall for name, one in self.schedule.airings.items()}

    def active_at(self, seconds: float) -> set[str]:
        """The classes that a tick so many seconds from NOW looks at."""
        self.schedule.tick(Now(NOW.mono + seconds, NOW.wall + seconds))
        return set(self.schedule.active)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with ThreadPoolExecutor(1) as pool:
        yield Worker(tmp_path, pool)


def test_only_lines_that_are_new_are_read(worker: Worker) -> None:
    worker.take(*(fields(f"c{number}") for number in range(50)))
    found = worker.take(*(fields(f"c{number}") for number in range(1, 50)), fields("new"))
    assert [json.loads(line)["class_id"] for line in found.new] == ["new"]
    assert len(found.gone) == 1
    assert worker.starts().keys() == {"new", *(f"c{number}" for number in range(1, 50))}


def test_a_class_is_as_the_last_timetable_says_whatever_came_between(worker: Worker) -> None:
    worker.take(fields("c", 60))
    worker.take(fields("c", 7200))
    worker.take(fields("c", 60))
    assert worker.starts() == {"c": 60}
    worker.take()
    assert worker.starts() == {}
    worker.take(fields("c", 60))
    assert worker.starts() == {"c": 60}


def test_a_tick_looks_only_at_classes_whose_time_has_come(worker: Worker) -> None:
    worker.take(fields("soon", 10), fields("later", 600))
    assert worker.active_at(0) == set()
    assert worker.active_at(10) == {"soon"}
    worker.take(fields("soon", 300), fields("later", 12))
    assert worker.active_at(11) == {"later"}
    assert worker.active_at(299) == {"soon"}, "the other one is over"


def test_a_clock_that_is_set_moves_what_is_due_with_it(worker: Worker) -> None:
    worker.take(fields("c", 10))
    assert worker.active_at(10) == {"c"}
    assert worker.active_at(-HOUR_S) == set()
    assert worker.active_at(9) == {"c"}


def test_one_odd_line_is_that_classs_refusal_and_nobody_elses(worker: Worker) -> None:
    odd = ["no JSON", "[]", json.dumps({"class_id": "no-urls"}), json.dumps(fields("url", push_urls=["http://x/y"]))]
    worker.take(*odd, fields("good"), fields("good", 60))
    assert worker.starts() == {"good": HOUR_S}, "of two lines the first counts"
    refused = worker.schedule.refused
    assert len(refused) == 4
    assert refused["no-urls"].startswith("push_urls: ")
    assert "begins neither" in refused["url"]
    worker.take(fields("url"), fields("good"))
    assert worker.schedule.refused == {}
    assert set(worker.starts()) == {"url", "good"}


def test_a_class_that_changes_into_an_odd_one_is_not_aired_as_before_unless_it_is_on_air(worker: Worker) -> None:
    worker.take(fields("on-air", 0), fields("coming"))
    worker.active_at(0)
    worker.take(fields("on-air", 0, slate=7), fields("coming", slate=7))
    assert worker.starts().keys() == {"on-air"}
    assert worker.schedule.refused.keys() == {"on-air", "coming"}


def test_a_class_that_is_taken_out_on_air_ends_and_one_that_is_over_stays_known(worker: Worker) -> None:
    worker.take(fields("over", -60), fields("on-air", 0))
    worker.active_at(1)
    worker.take()
    assert [(one["class_id"], one["why"]) for one in worker.told if one["event"] == "ended"] == [
        ("over", "its end has come"),
        ("on-air", schedule.CANCELLED),
    ]
    assert worker.starts().keys() == {"over"}
    worker.take(fields("over", 300))
    assert worker.schedule.over == {}, "it was moved, and is aired again"


async def test_a_class_that_is_booked_anew_goes_on_though_its_worker_dies_before_it_sends_again(worker: Worker) -> None:
    """What is written down of it must not say that it was cancelled: the next worker goes by that."""
    path = worker.path.with_name(AIRED)
    aired = AiredFile(path, worker.schedule)
    both, row = (fields("again", 0), fields("other", 0)), {"source": "recording", "to": NOW.wall, "position_s": 0.0}
    for session, wanted in enumerate((both, both[1:], both), 1):
        worker.take(*wanted)
        worker.active_at(0)
        for name in ("again", "other") if session == 1 else ("other",):
            more = {"url": 0, "session": session, "from": NOW.wall + session, "sent_s": 0.0, "bytes": 1, "open": False}
            worker.schedule.airings[name].entry.as_run.append({**row, **more})
        await aired.save(everything=True)
    following = Worker(path.parent, worker.pool)
    entries, _ = read_aired(path)
    following.schedule.begin(timetable.difference(following.path, ()), entries, (), NOW)
    assert following.active_at(0) == {"again", "other"}


def test_a_class_at_which_something_unforeseen_happens_rests_and_the_others_are_ticked(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticked: list[str] = []

    def tick(one: schedule.ClassPlayer, _: Now) -> None:
        ticked.append(one.class_id)
        if one.class_id == "bad":
            raise AttributeError("odd")

    monkeypatch.setattr(schedule.ClassPlayer, "tick", tick)
    monkeypatch.setattr(schedule.ClassPlayer, "rest", lambda one, _: ticked.append(f"{one.class_id} rests"))
    worker.take(fields("bad", 0), fields("good", 0))
    worker.active_at(0)
    assert ticked == ["bad", "bad rests", "good"]


def test_of_too_many_classes_the_first_are_aired(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timetable, "MAX_CLASSES", 3)
    worker.take(*(fields(f"c{number}", number) for number in range(5)))
    assert (list(worker.starts()), worker.schedule.left_out) == (["c0", "c1", "c2"], 2)


@pytest.mark.live
def test_thousands_of_classes_at_once_leave_the_class_on_air_alone(tmp_path: Path) -> None:
    """Neither their hand-over, nor the wait for them, nor a status, nor a new worker makes it stutter."""
    with loopback(tmp_path, flvs.lesson(120)) as (playout, receiver, path):
        playout.air("on-air", path, receiver.url("on-air"), starts_in_s=3, length_s=100)
        wait_until(lambda: playout.told("on_air"), description="on air")
        now = time.time()
        for number in range(2000):
            start = now + HOUR_S + number
            one = {**fields(f"c{number}"), "file": str(path), "start": start, "end": start + 60}
            playout.timetable[f"c{number}"] = one
        playout.hand_over()
        playout.air("soon", path, receiver.url("soon"), starts_in_s=3, length_s=50)
        wait_until(lambda: playout.told("on_air", "soon"), description="the class that came last is on air")
        process = psutil.Process(playout.worker())
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(3)  # what a quiet while costs
        assert (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began) < 0.25, "of a core, with two on air"
        assert len(playout.ask("status")["classes"]) == 2002
        process.kill()
        wait_until(lambda: playout.again("hello")["pid"] != process.pid, description="another worker")
        assert len(playout.again("status")["classes"]) == 2002
        for name in ("on-air", "soon"):
            status = playout.status(name)
            assert (status["state"], status["sessions"]) == ("on_air", 1)
            assert status["gap_s"] < 5
