"""The timetable that a worker takes over: what changed costs time, what is not due costs a tick nothing."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lectern.playout import kernel, schedule, timetable
from lectern.playout.as_run import AIRED, AiredClass, read_aired
from lectern.playout.control_socket import write_timetable
from lectern.playout.demuxer import MISSING
from lectern.playout.kernel import Now
from lectern.playout.publisher import ClassPublisher, WorkerContext
from lectern.playout.schedule import AiredFile, Schedule
from tests.playout.turned import Clock
from tests.waiting import cancelled

HOUR_S = 3600.0
NOW = Now(1000.0, 1_700_000_000.0)


def fields(class_id: str, starts_in_s: float = HOUR_S, **more: Any) -> dict[str, Any]:
    start = NOW.wall + starts_in_s
    urls = [f"rtmp://127.0.0.1:1/live/{class_id}"]
    return {"class_id": class_id, "file": "/a.flv", "push_urls": urls, "start": start, "end": start + 60, **more}


def at(seconds: float) -> Now:
    """So many seconds after NOW."""
    return Now(NOW.mono + seconds, NOW.wall + seconds)


def row(session: int, begins_s: float, ends_s: float, *, source: str = "recording") -> dict[str, Any]:
    """A row of what was sent, from and to seconds after NOW."""
    times = {"from": NOW.wall + begins_s, "to": NOW.wall + ends_s, "position_s": 0.0, "sent_s": ends_s - begins_s}
    return {"url": 0, "session": session, "source": source, **times, "bytes": 1, "open": False}


class Worker:
    """A schedule that takes over what a test writes, and tells its events."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.told: list[dict[str, Any]] = []
        self.pool = pool
        self.path = folder / timetable.NAME
        self.context = WorkerContext(pool, pool, self.told.append, lambda _key, _session: None, lambda _: None, bool)
        self.schedule = Schedule(self.context)

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
        self.schedule.tick(at(seconds))
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
    assert (worker.starts(), worker.told) == ({}, [])
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


def test_a_class_whose_time_is_not_yet_after_all_keeps_no_connection(worker: Worker) -> None:
    """The clock was set back when it had connected: nobody ended its connection if it was cancelled before its time."""
    player, pushes = on_three_urls(worker, 10)
    assert worker.active_at(10) == {"c"}
    assert worker.active_at(-HOUR_S) == set()
    assert {push.state for push in pushes} == {"ended"}
    assert worker.active_at(9) == {"c"}
    assert "ended" not in {push.state for push in player.pushes.values()}, "others are made at its time"


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
    both = fields("again", 0), fields("other", 0)
    for session, wanted in enumerate((both, both[1:], both), 1):
        worker.take(*wanted)
        worker.active_at(0)
        for name in ("again", "other") if session == 1 else ("other",):
            worker.schedule.airings[name].entry.as_run.append(row(session, session, session))
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


def on_three_urls(worker: Worker, starts_in_s: float = 0) -> tuple[schedule.ClassPlayer, list[ClassPublisher]]:
    """A class that is pushed to three URLs, and its pushes."""
    urls = [f"rtmp://127.0.0.1:1/live/c{number}" for number in range(3)]
    worker.take(fields("c", starts_in_s, push_urls=urls, slate="/slate.flv"))
    player = worker.schedule.airings["c"]
    return player, list(player.pushes.values())


@pytest.mark.parametrize(
    ("states", "lost", "said"),
    [
        (("trying", "on_air", "ended"), (None, None, MISSING), ("on_air", False, False, 2.0, 0.2)),
        (("on_air", "connecting", "trying"), (None, "has a hole", None), ("on_air", True, False, 1.0, 0.1)),
        (("connecting", "trying", "no_lease"), (MISSING, None, None), ("trying", True, True, None, 0.0)),
        (("ended", "ended", "ended"), (MISSING, MISSING, MISSING), ("ended", False, False, None, 0.0)),
    ],
)
def test_a_class_is_as_well_as_its_best_push(
    worker: Worker, states: tuple[str, ...], lost: tuple[str | None, ...], said: tuple[object, ...]
) -> None:
    player, pushes = on_three_urls(worker)
    for number, (push, state, why) in enumerate(zip(pushes, states, lost, strict=True), 1):
        push.state, push.feed.lost, push.behind_s, push.why = state, why, number / 10, f"odd {number}"
        push.feed.muxer.last_ms, push.as_run.bytes, push.backoff.failures = 1000 * number, number, number
    found = player.status(NOW)
    assert tuple(found[name] for name in ("state", "slate", "wants_file", "position_s", "behind_s")) == said
    assert (found["why"], found["bytes"], [one["state"] for one in found["pushes"]]) == ("odd 1", 6, list(states))
    assert [(one["why"], one["failures"]) for one in found["pushes"]] == [(f"odd {n}", n) for n in (1, 2, 3)]
    player.end("it is over", NOW)
    assert (player.state, player.status(NOW)["why"], {push.state for push in pushes}) == (
        "ended",
        "it is over",
        {"ended"},
    )


def test_a_class_far_ahead_is_told_without_pushes_that_were_made(worker: Worker) -> None:
    worker.take(fields("c"))
    found = worker.schedule.airings["c"].status(NOW)
    assert (found["state"], found["position_s"], found["behind_s"], found["why"]) == ("waiting", None, 0.0, None)
    assert [(one["state"], one["why"]) for one in found["pushes"]] == [("waiting", None)]


@pytest.mark.parametrize(
    ("rows", "at_s", "sums"),
    [
        ([], 30, (0, 0, 30)),
        ([("recording", 5, 20), ("recording", 0, 10), ("recording", 6, 9)], 30, (20, 0, 10)),
        ([("slate", 0, 10), ("recording", 10, 25)], 30, (15, 10, 5)),
        ([("slate", 2, 10)], 90, (0, 8, 52)),
        ([("recording", -1, 70)], 90, (60, 0, 0)),
    ],
)
def test_what_was_sent_of_a_class_is_counted_within_its_time(
    worker: Worker, rows: list[tuple[str, float, float]], at_s: float, sums: tuple[float, ...]
) -> None:
    worker.take(fields("c", 0))
    player = worker.schedule.airings["c"]
    for number, (source, begins, ends) in enumerate(rows):
        player.entry.as_run.append(row(number, begins, ends, source=source))
    found = player.sums(at(at_s))
    assert tuple(found[name] for name in ("sent_s", "slate_s", "gap_s")) == sums
    assert (found["sessions"], player.slate_s(at(at_s))) == (len(rows), sums[1])


def test_a_class_ends_with_its_last_push_and_one_at_fault_takes_no_other_along(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    player, pushes = on_three_urls(worker)
    says: list[str | None] = [None, "its recording is over", None]
    for number, push in enumerate(pushes):
        monkeypatch.setattr(push, "tick", lambda _, number=number: 1 / 0 if says[number] == "odd" else says[number])
    worker.active_at(0)
    assert ([one.state for one in pushes], player.entry.ended) == (["waiting", "ended", "waiting"], None)
    says[:] = ["odd", "it is not asked again", None]
    worker.active_at(1)
    assert [one.state for one in pushes] == ["trying", "ended", "waiting"]
    assert str(pushes[0].why).startswith("a fault of the playout: ZeroDivisionError")
    says[:] = ["its end has come", None, "its recording is over"]
    player.rest(at(2))
    assert worker.active_at(2.9) == {"c"}
    assert worker.active_at(3.1) == set()
    assert player.entry.ended == "its end has come"


def test_a_class_is_left_alone_until_one_of_its_pushes_is_due_or_the_lease_is_over(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its URLs is sent in time, and none for a moment after the lease."""
    _, pushes = on_three_urls(worker)
    ticked: list[int] = []
    for number, push in enumerate(pushes):
        monkeypatch.setattr(push, "tick", lambda _, number=number: ticked.append(number))
        push.rests_until = at(1 + number).mono
    worker.active_at(0)
    for time_s, is_held, due in ((0.1, True, []), (0.2, False, [0, 1, 2]), (0.3, True, []), (1.1, True, [0, 1, 2])):
        ticked.clear()
        worker.context.is_held = is_held
        worker.active_at(time_s)
        assert ticked == due


def test_a_class_that_changes_keeps_the_pushes_that_it_leaves_as_they_are(worker: Worker) -> None:
    player, (ended, kept, gone) = on_three_urls(worker)
    ended.end()
    kept.as_run.first_byte_at, gone.as_run.first_byte_at = NOW.wall + 2, NOW.wall + 1
    player.write_down()
    urls = [kept.url, ended.url, "rtmp://127.0.0.1:1/live/new"]
    worker.take(fields("c", 0, push_urls=urls, file="/b.flv"))
    assert [push.number for push in map(player.pushes.get, urls) if push is not None] == [0, 1, 2]
    assert (player.pushes[kept.url], kept.state, kept.feed.lesson.file) == (kept, "waiting", "/b.flv")
    assert (gone.state, player.pushes[ended.url].state) == ("ended", "waiting")
    assert player.entry.first_byte_at == NOW.wall + 1
    worker.take(fields("c", 60, push_urls=urls, file="/b.flv"))
    assert kept.state == "ended"
    assert player.pushes[kept.url].state == "waiting"


async def test_long_work_gives_the_loop_its_turn_after_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = Clock(), []
    monkeypatch.setattr(schedule, "time", clock)

    async def other() -> None:
        while True:
            turns.append(clock.mono)
            await asyncio.sleep(0)

    def work() -> Iterator[None]:
        for _ in range(10):
            clock.mono += schedule.SLICE_S * 0.75
            yield

    task = asyncio.create_task(other())
    await schedule.in_slices(work())
    await cancelled(task)
    assert len(turns) == 5


@pytest.mark.parametrize(
    ("class_id", "starts_in_s", "started_in_s", "is_known"),
    [
        *(("aired", 4, 4, True), ("on-air", 4, 4, True), ("other", 4, 4, False), ("aired", 6, 4, False)),
        *(
            ("on-air", -9, 4, True),
            ("on-air", 4, -9, True),
            ("aired", HOUR_S, HOUR_S, True),
            ("other", HOUR_S, HOUR_S, False),
        ),
    ],
)
def test_a_worker_that_begins_knows_at_once_what_is_on_air(
    worker: Worker, class_id: str, starts_in_s: float, started_in_s: float, is_known: bool
) -> None:
    """Also if the clock was set to before the start of a class that is on air: by it, its time has not come yet."""
    write_timetable(worker.path, [json.dumps(fields(class_id, starts_in_s))])
    entries = {"aired": AiredClass(timetable.lesson(fields("aired", started_in_s)), first_byte_at=7.0)}
    worker.schedule.begin(timetable.difference(worker.path, ()), entries, ["on-air"], NOW)
    assert list(worker.schedule.airings) == [class_id] * is_known
    if class_id == "aired" and is_known:
        assert worker.schedule.airings["aired"].entry is entries["aired"]


def test_what_was_over_before_a_worker_began_takes_nobodys_place(worker: Worker) -> None:
    worker.take(fields("c", 0))
    player = worker.schedule.airings["c"]
    lines = [AiredClass(timetable.lesson(fields(name)), ended="it was").line().encode() for name in ("c", "over")]
    assert len([*AiredFile(worker.path.with_name(AIRED), worker.schedule).restore([*lines, b"odd"])]) == 3
    assert worker.schedule.airings["c"] is player
    assert (list(worker.schedule.over), worker.schedule.airings["over"].pushes) == (["over"], {})


def test_a_class_that_is_moved_very_often_is_still_due_once(worker: Worker) -> None:
    worker.take(fields("on-air", 0), fields("over", -70), fields("c"))
    worker.active_at(0)
    starts_in_s, were = 600, 0
    while len(worker.schedule._coming) > were:
        were, starts_in_s = len(worker.schedule._coming), starts_in_s + 1
        worker.take(fields("on-air", 0), fields("over", -70), fields("c", starts_in_s))
    assert starts_in_s < 710, "those that came to nothing are forgotten"
    assert worker.active_at(starts_in_s - 4) == set()
    assert worker.active_at(starts_in_s - 2) == {"c"}


def test_a_class_is_forgotten_a_day_after_its_end_or_when_there_are_too_many(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.take(*(fields(f"c{number}", -100 + number) for number in range(3)))
    worker.active_at(0)
    for now, left in ((schedule.FORGET_S - 41, 3), (schedule.FORGET_S - 39.5, 2)):
        worker.schedule.forget(NOW.wall + now)
        assert (len(worker.schedule.over), len(worker.schedule.airings)) == (left, left)
    for most, left in ((2, 2), (1, 1)):
        monkeypatch.setattr(schedule, "MAX_CLASSES", most)
        worker.schedule.forget(NOW.wall)
        assert len(worker.schedule.over) == left


async def test_what_is_aired_is_written_when_it_is_new_and_every_two_seconds_on_air(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is slow is waited for only at an upgrade, and then for a while."""
    clock, writes, waits = Clock(), list[str](), list[float]()
    aired = AiredFile(worker.path.with_name(AIRED), worker.schedule)
    aired._on_air_at = clock.mono
    problem: list[str | None] = [None]

    async def sleep(seconds: float) -> None:
        if seconds:  # none between two slices of the work
            waits.append(seconds)
            clock.mono += 1.0

    monkeypatch.setattr(schedule, "time", clock)
    monkeypatch.setattr(schedule, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(kernel.StateFile, "write", lambda _: writes.append(aired._text()))
    monkeypatch.setattr(kernel.StateFile, "problem", property(lambda _: problem[0]))
    monkeypatch.setattr(kernel.StateFile, "is_written", property(lambda _: len(waits) > 1))

    async def is_written(seconds: float = 0.0, *, everything: bool = False) -> bool:
        clock.mono += seconds
        before = len(writes)
        await aired.save(everything=everything)
        return len(writes) > before

    worker.take(fields("c", 0), fields("d", 0))
    worker.active_at(0)
    assert not await is_written(3), "nothing was sent"
    player = worker.schedule.airings["c"]
    player.entry.as_run.append(row(1, 0, 1))
    assert await is_written()
    assert not await is_written(3), "it is not on air any more"
    for push in player.pushes.values():
        push.state = "on_air"
    assert [await is_written(1.5) for _ in range(4)] == [False, True, False, True]
    problem[0] = "the disk is full"
    push.state = "trying"
    assert [await is_written(1.5) for _ in range(3)] == [False, True, False]
    problem[0] = None
    assert await is_written(everything=False) is False
    worker.take(fields("c", 0))
    player.end("it was", NOW)
    assert await is_written()
    assert [json.loads(line).get("ended") for line in writes[-1].splitlines()] == [None, "it was"]
    assert waits == []
    player.entry.ended, push.state = None, "on_air"
    assert await is_written(everything=True)
    assert len(waits) == 2
    worker.schedule.airings.clear()
    worker.schedule.active.clear()
    assert await is_written()
    assert writes[-1] == '{"on_air": 0}\n'
