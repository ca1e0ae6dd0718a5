"""What the playout tells of a class on air becomes an alarm within 15 s, also if it then tells nothing more."""

import asyncio
import gc
import json
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from flows import failures
from flows.host import StreamerHost, current
from flows.outbox_publisher import patience
from flows.playout_link import NotTaken, Playout, ScheduledClass
from flows.resident import http
from flows.resident.http import HealthReport
from flows.streamer import downloads, maintenance, playout_events, playout_sync
from flows.streamer.playout_events import PlayoutEvents
from flows.streamer.playout_sync import AHEAD_S, Facts, PlayoutSync, TimetableReader, lesson
from lectern import errors
from lectern.allowlist import Allowlist
from lectern.db import leases
from lectern.decide.airing import CANCELLED, NOT_ON_AIR_S
from lectern.errors import ErrorCode, TryAgain
from lectern.media import ffmpeg
from lectern.model.tables.streamer import classes, journal, tasks
from lectern.playout.control_socket import PROTOCOL, Client, write_timetable
from tests import rows
from tests.flows.test_rows_apart import spoil
from tests.waiting import async_wait_until, cancelled

START = 0.0
"""When the class of a test began, a moment before it; a whole run may take longer than the class."""


@pytest.fixture
def streamer(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> StreamerHost:
    """A streamer with a class on air; what it sends stays in its outbox."""
    monkeypatch.setitem(globals(), "START", time.time() - 100)
    monkeypatch.setattr(playout_events, "publish_outbox", rows.unsent)
    rows.commit(streamer.engine, rows.bare, "c-1", START, "on air", end_time=START + 2700)
    return streamer


def alarms(host: StreamerHost) -> list[str]:
    """The sentences of the alarms that were raised."""
    return [one["message"] for one in rows.said(host)]


@pytest.fixture
def following(streamer: StreamerHost) -> PlayoutEvents:
    return PlayoutEvents(streamer)


def told(event: str, after_s: float = 50, **fields: object) -> dict[str, Any]:
    """What the playout tells of the class, so long after its start."""
    return {"event": event, "class_id": "c-1", "at": START + after_s, **fields}


def broke_off(after_s: float = 50, *, was_on_air: bool = True) -> dict[str, Any]:
    """A push ended, or came to nothing."""
    return told("broke_off", after_s, session=1, why="the server took nothing for 5 s", was_on_air=was_on_air)


def slate(why: str = "the recording is missing", **fields: object) -> dict[str, Any]:
    """The recording cannot be sent."""
    return told("slate", 0, slate=True, why=why, **fields)


def back() -> dict[str, Any]:
    return told("back", 0, why="it is there", position_s=9.0)


def on_air(**fields: object) -> dict[str, Any]:
    """What the playout says of the class while a receiver takes it."""
    return {"class_id": "c-1", "state": "on_air", "slate": False, "why": None, "as_run": [], **fields}


def off_air(**fields: object) -> dict[str, Any]:
    """The same while no receiver takes it."""
    return on_air(**{"state": "trying", "why": "the server took nothing for 5 s", **fields})


def lost(**fields: object) -> dict[str, Any]:
    """The same while its recording cannot be sent."""
    return on_air(**{"lost": True, "slate": True, **fields})


def over(**fields: object) -> dict[str, Any]:
    """What the playout says of the class when it is over, and nothing was sent of it."""
    sums = {"sent_s": 0.0, "slate_s": 0.0, "gap_s": 2700.0, "sessions": 0, "as_run": []}
    return {"class_id": "c-1", "state": "ended", "slate": False, "why": "its end has come", **sums, **fields}


def aired() -> dict[str, Any]:
    """The same of one of which all was sent."""
    row = {"url": 0, "session": 1, "source": "recording", "from": START, "to": START + 2700, "position_s": 0.0}
    row |= {"sent_s": 2700.0, "bytes": 9, "open": False}
    return over(sent_s=2700.0, gap_s=0.0, sessions=1, as_run=[row])


async def fetched(following: PlayoutEvents) -> None:
    """Wait until the recording was asked for, if it is."""
    fetching = following._classes["c-1"].fetching
    if fetching is not None:
        await fetching


async def test_a_class_without_its_recording_is_alarmed_each_time_that_it_lacks_it(
    streamer: StreamerHost, following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However soon again. Its playout opens the file some seconds before the class: its slate is not sent yet."""
    monkeypatch.setattr(time, "time", lambda: START)
    for starts_in_s in (2, 0):
        rows.commit(streamer.engine, Connection.execute, update(tasks).values(start_time=START + starts_in_s))
        await following.take(slate())
        for _ in range(2):
            await following.look_around(START, [lost(why="its server refuses it")])
        await following.take(back())
        await following.look_around(START, [on_air()])
    await following.look_around(START, [on_air(state="waiting", slate=True)])
    await following.take(told("behind", behind_s=2.1))
    *said, behind = alarms(streamer)
    missing = [": the recording is missing", ": the recording is missing", ": no reason is known"]
    assert [one.removeprefix("c-1: its slate is sent").strip() for one in said] == missing
    assert behind.startswith("c-1: it falls behind the clock, and 2 s of it were skipped")


@pytest.mark.parametrize(("status", "state"), [(off_air(), "ready"), (on_air(), "on air")], ids=["tries", "on air"])
async def test_a_class_is_on_air_once_its_playout_says_so(
    streamer: StreamerHost, following: PlayoutEvents, status: dict[str, Any], state: str
) -> None:
    """Also if nothing was told meanwhile, as to a process that has just begun."""
    rows.commit(streamer.engine, Connection.execute, update(classes).values(state="ready"))
    await following.look_around(START + 20, [status])
    assert rows.state_of(streamer, "c-1") == state


async def test_it_is_alarmed_once_that_a_slate_is_not_sent_after_all(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    """Its playout says first that the recording is missing; a process that begins has only the status of the class."""
    await following.take(slate())
    for _ in range(2):
        await following.look_around(START, [lost()])
    await following.take(slate("the slate is missing") | {"slate": None})
    status = lost(state="trying", slate=False, why="the slate is missing")
    for its in (following, following, PlayoutEvents(streamer)):
        await its.look_around(START, [status])
    nothing = "c-1: nothing is sent, there is no slate: the slate is missing"
    assert alarms(streamer) == ["c-1: its slate is sent: the recording is missing", nothing, nothing]


async def test_a_push_that_broke_off_is_alarmed_unless_it_comes_back_at_once(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    """By its statuses: nothing is told after it."""
    streamer.playout.until = math.inf
    await following.look_around(START + 20, [off_air()])
    await following.look_around(START + 22, [on_air()])
    await following.look_around(START + 50, [off_air()])
    await following.look_around(START + 49.9 + NOT_ON_AIR_S, [off_air()])
    assert alarms(streamer) == []
    await following.look_around(START + 50 + NOT_ON_AIR_S, [off_air()])
    (said,) = alarms(streamer)
    assert "it is not on air: the server took nothing for 5 s" in said


async def test_trouble_of_a_class_on_air_is_not_called_over_because_its_playout_is_away(streamer: StreamerHost) -> None:
    """Nobody sees how the class is aired then, if it is."""
    streamer.playout.until = math.inf
    handing = playout_sync.PlayoutSync(streamer)
    await handing._following.look_around(START + 20, [lost(state="trying"), on_air(class_id="without trouble")])
    streamer.ongoing.clear()
    streamer.playout.is_away("it was killed")
    await handing._say_away()
    assert {errors.NO_RECORDING.number, errors.AIRING_BROKEN.number}.issubset(patience(streamer).goes_on)


async def test_the_end_of_the_playouts_lease_is_alarmed_if_this_streamer_holds_one(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    for until, codes in ((0.0, list[int]()), (math.inf, [errors.PLAYOUT_AWAY.number])):
        streamer.playout.until = until
        await following.take({"event": "lease_over", "class_id": None})
        assert [one["code"] for one in rows.said(streamer)] == codes


@pytest.mark.parametrize(
    ("state", "why", "said"),
    [
        ("connecting", "no answer", "no answer"),
        ("trying", None, "no receiver"),
        ("no_lease", None, "no lease"),
        ("no_lease", "a cut long ago", "no lease"),
    ],
)
async def test_trouble_of_a_class_that_is_another_streamers_now_goes_on_no_more(
    streamer: StreamerHost, following: PlayoutEvents, state: str, why: str | None, said: str
) -> None:
    """Also if its playout told nothing of it, and only its status said that it is not on air."""
    for until, is_alarmed in ((0.0, False), (math.inf, True)):  # without a lease it is not to be on air
        streamer.playout.until = until
        for after_s in (60, 60 + NOT_ON_AIR_S):
            await following.look_around(START + after_s, [on_air(state=state, why=why)])
        assert [said in one for one in alarms(streamer)] == [True] * is_alarmed
    following.still()
    assert errors.AIRING_BROKEN.number in patience(streamer).goes_on
    streamer.ongoing.clear()
    await following.look_around(START + 70)
    assert errors.AIRING_BROKEN.number not in patience(streamer).goes_on


@pytest.mark.parametrize("statuses", [[], [on_air()]], ids=["over", "on air"])
async def test_trouble_that_is_over_goes_on_no_longer_although_nobody_heard_of_its_end(
    streamer: StreamerHost, following: PlayoutEvents, statuses: list[dict[str, Any]]
) -> None:
    """The statuses say so; those of what should be on air lack a class that is over.

    No alarm is raised, nor kept open for ever, for it.
    """
    streamer.playout.until = math.inf
    await following.take(slate(wants_file=False))
    await following.look_around(START + 60, [lost(state="trying")])
    raised = rows.said(streamer, "alarm")
    streamer.ongoing.clear()
    await following.look_around(START + 90, statuses)
    assert (streamer.ongoing, rows.said(streamer, "alarm")) == ({}, raised)


@pytest.fixture
def timetable(tmp_path: Path) -> Path:
    """Where the playout has its timetable."""
    return tmp_path / "timetable.jsonl"


@pytest.fixture
def statuses(streamer: StreamerHost, timetable: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a playout that takes each timetable says of its classes."""
    found = list[dict[str, Any]]()

    async def ask(_do: str, **fields: Any) -> dict[str, Any]:
        answer = {"holder_pid": 1, "classes": found, "release": "2.0.0", "protocol": PROTOCOL}
        taken: dict[str, Any] = {"version": fields.get("version"), "refused": {}, "left_out": 0}
        return {**answer, **taken, "timetable": {"path": str(timetable), "version": None}}

    monkeypatch.setattr(playout_sync, "publish_outbox", rows.unsent)
    monkeypatch.setattr(playout_sync, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(streamer.playout, "ask", ask)
    monkeypatch.setattr(streamer.playout, "client", cast("Client", Told()))
    return found


@pytest.mark.parametrize(
    ("was", "cmd", "code"),
    [
        ({"state": "cancelled"}, "ended", errors.CANCELLED),
        ({"state": "refused", "code": 318}, "prepared", errors.DOWNLOAD_FAILED),
    ],
    ids=["on air", "its download failed"],
)
async def test_each_end_of_a_class_that_was_taken_away_is_told_once(
    streamer: StreamerHost, statuses: list[dict[str, Any]], was: dict[str, object], cmd: str, code: ErrorCode
) -> None:
    """Though nobody heard it: the process died then, and the next one asks the playout. The class had come back."""
    rows.commit(streamer.engine, Connection.execute, update(classes).values(**was, placement=3))
    rows.commit(streamer.engine, rows.bare, "never sent", START, "cancelled")
    whole = {**aired(), "why": str(CANCELLED)}
    for number, later_s in enumerate((0, 1000), 1):
        part = whole["as_run"][0] | {"from": START + later_s}
        statuses[:] = [{**whole, "as_run": [part]}, over(class_id="never sent"), over(class_id="another's")]
        for _ in range(2):
            await PlayoutSync(streamer)._bring_up_to_date()
        said = [(one["class_id"], one["code"], one["placement"]) for one in rows.said(streamer, cmd)]
        assert said == [("c-1", code.number, 3)] * number


async def test_the_ends_of_classes_are_heard_beside_one_that_nobody_can_read(
    streamer: StreamerHost, statuses: list[dict[str, Any]]
) -> None:
    """It was aired as it was before somebody wrote into its row, and is over; its playout is followed all the same."""
    rows.commit(streamer.engine, rows.bare, "odd", START, "on air")
    spoil(streamer, "odd")
    statuses[:] = [over(class_id="odd"), aired()]
    await PlayoutSync(streamer)._bring_up_to_date()
    assert [(one["class_id"], one["result"]) for one in rows.said(streamer, "ended")] == [("c-1", "success")]


async def test_a_playout_that_was_back_and_is_away_again_is_alarmed_again(
    streamer: StreamerHost, statuses: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """People were told that the first time is over, and nothing is aired again. Its classes on air were cut by it."""
    monkeypatch.setattr(playout_sync, "ALARM_AFTER_S", 0.0)
    monkeypatch.setattr(time, "time", lambda: START)
    rows.commit(streamer.engine, rows.bare, "c-2", START + 5000)
    handing = playout_sync.PlayoutSync(streamer)
    statuses += [on_air(start=START), on_air(class_id="c-2", state="waiting", start=START + 5000)]
    for number in (1, 2):
        streamer.playout.is_away("it was killed")
        streamer.playout.away_since = time.monotonic() - 30
        await handing._say_away()
        await handing._say_away()
        assert [one["code"] for one in rows.said(streamer)] == [errors.PLAYOUT_AWAY.number] * number
        streamer.playout.client = cast("Client", Told())
        await handing._bring_up_to_date()
    told = journal.events.c
    its = select(told.class_id, told.detail, told.at).where(told.what == "playout away")
    (found,) = rows.look(streamer.engine, Connection.execute, its).all()
    assert found[:2] == ("c-1", "it was killed")
    assert found.at == pytest.approx(START - 30, abs=10)


async def test_a_playout_is_there_once_it_airs_the_timetable_however_much_it_did_meanwhile(
    streamer: StreamerHost, statuses: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To write down that of 600 classes takes seconds, in which /health said that nothing is aired."""
    statuses.append({"class_id": "c-1", "state": "on_air", "slate": False, "start": START})
    report, handing, wrong = HealthReport(streamer.settings), PlayoutSync(streamer), list[str]()
    monkeypatch.setattr(http, "AWAY_S", -1.0)
    report._has_aired = True
    assert len(report._unaired(streamer)) == 1

    async def caught_up(_: object) -> None:
        wrong.append(f"{report._unaired(streamer)}")

    statuses.append(over())
    monkeypatch.setattr(handing._following, "take", caught_up)
    await handing._bring_up_to_date()
    assert wrong == ["[]"]


async def test_a_playout_that_cannot_be_followed_is_tried_after_ever_longer_pauses_until_it_can(
    streamer: StreamerHost, statuses: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an older release takes each connection: it would be asked 20 times a second until its upgrade."""
    pauses, answers = list[int](), streamer.playout.ask

    async def of_old(do: str, **fields: Any) -> dict[str, Any]:
        return await answers(do, **fields) | {"protocol": PROTOCOL - 1}

    def paused(tries: int, *_: object) -> float:
        pauses.append(tries)
        if len(pauses) == 3:
            monkeypatch.setattr(streamer.playout, "ask", answers)
        if len(pauses) == 6:
            raise InterruptedError
        return 0.0

    monkeypatch.setattr(playout_sync, "backoff_s", paused)
    monkeypatch.setattr(streamer.playout, "ask", of_old)
    monkeypatch.setattr(streamer.playout, "connect", AsyncMock(return_value=Told()))
    monkeypatch.setattr(ffmpeg, "make_slate", AsyncMock())
    with pytest.raises(InterruptedError):
        await PlayoutSync(streamer).run()
    assert pauses == [1, 2, 3, 0, 0, 0]


async def test_what_was_missed_while_nobody_listened_the_next_statuses_say(
    streamer: StreamerHost, statuses: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked for at once when a process connects: the recording of the class is missing."""
    monkeypatch.setattr(playout_sync, "LOOK_EVERY_S", 60.0)
    statuses.append(lost(start=START, why="the recording is missing"))
    handing = PlayoutSync(streamer)
    await handing._bring_up_to_date()
    looking = asyncio.create_task(handing._keep_looking_around())
    await async_wait_until(lambda: alarms(streamer), description="it is alarmed")
    await cancelled(looking)
    assert ["its slate is sent" in one for one in alarms(streamer)] == [True]


async def test_what_the_playout_does_not_take_is_alarmed_and_counts_as_not_aired(
    streamer: StreamerHost,
    statuses: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It refuses it, its timetable is full, or it has another timetable although the class has begun.

    Each reason is logged, and alarmed, once. The alarm stays open until the playout takes the class: it was
    called over after five minutes, hours before the class that was not aired.
    """
    for class_id, in_s in (("odd", 200), ("last", 300)):
        rows.commit(streamer.engine, rows.bare, class_id, START + in_s)
    ask, more = streamer.playout.ask, dict[str, Any](left_out=1, refused={"odd": "its URL is odd"})

    async def asked(do: str, **fields: Any) -> dict[str, Any]:
        return await ask(do, **fields) | more

    monkeypatch.setattr(streamer.playout, "ask", asked)
    handing = PlayoutSync(streamer)

    def goes_on() -> bool:
        streamer.ongoing.clear()
        handing._following.still()
        return errors.AIRING_BROKEN.number in patience(streamer).goes_on

    await handing._bring_up_to_date()
    assert list(streamer.playout.confirmed) == ["c-1"]
    for why in ("its URL is odd", "its URL is odd", "its URL is odder"):
        more["refused"] = {"odd": why}
        await handing.step()
        await handing._following.look_around(START)
        for one in handing._following._classes.values():
            one.alarmed.forget()  # a minute has passed
        assert goes_on()
    assert sorted(one["class_id"] for one in rows.said(streamer, "alarm")) == ["last", "odd", "odd"]
    assert [one.levelname for one in caplog.records].count("ERROR") == 3
    more.update(left_out=0, refused={})
    await handing.step()
    assert not goes_on()
    more["version"] = "another"
    rows.commit(streamer.engine, Connection.execute, update(tasks).values(end_time=START + 5000))
    await handing.step()
    await handing._following.look_around(START)
    assert [one["class_id"] for one in rows.said(streamer, "alarm")].count("c-1") == 1
    assert goes_on()


async def test_a_disk_that_hangs_on_the_timetable_holds_up_one_step_and_not_each(
    streamer: StreamerHost, statuses: list[dict[str, Any]], timetable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would be confirmed in time: no lease that is granted would be held, and no change answered."""
    monkeypatch.setattr(failures, "publish_outbox", rows.unsent)
    monkeypatch.setattr(playout_sync, "WRITE_S", 0.1)
    go = threading.Event()

    def hangs(path: Path, lines: Sequence[str]) -> str:
        assert path.parent != timetable.parent or go.wait(60)
        return write_timetable(path, lines)

    monkeypatch.setattr(playout_sync, "write_timetable", hangs)
    handing = PlayoutSync(streamer)
    await handing._bring_up_to_date()
    monkeypatch.setattr(playout_sync, "WRITE_S", 60.0)
    rows.commit(streamer.engine, rows.bare, "c-2", START + 200)
    async with asyncio.timeout(30):
        await handing.step()
    assert list(streamer.playout.confirmed) == ["c-1", "c-2"]
    assert not timetable.exists()
    assert handing._writing is not None
    go.set()
    await handing._writing
    await handing.step()
    assert len(timetable.read_text().splitlines()) == 3


@pytest.mark.usefixtures("statuses")
async def test_who_waits_for_a_step_does_not_wait_for_the_alarms_of_what_is_not_aired(
    streamer: StreamerHost, timetable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis hangs, or thousands of classes are refused: a change would not be confirmed, nor a cancel, in time."""
    ask, handing, asked = streamer.playout.ask, PlayoutSync(streamer), asyncio.Event()

    async def refuses(do: str, **fields: Any) -> dict[str, Any]:
        return await ask(do, **fields) | {"refused": {"c-1": "its URL is odd"}}

    async def hangs(_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(streamer.playout, "ask", refuses)
    monkeypatch.setattr(playout_events, "publish_outbox", hangs)
    handing._path = timetable
    looking = asyncio.create_task(handing._keep_looking_around())
    for _ in range(2):
        assert await streamer.playout.in_force(10.0)
        handing._following.news.set()
        await asked.wait()
    await cancelled(looking)


@pytest.mark.usefixtures("statuses")
async def test_a_step_that_fails_after_all_who_waited_gave_up_is_nobodys_error(
    streamer: StreamerHost, timetable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The playout hangs for longer than a change waits for it; the next step says what is wrong with it.

    Nor is what the step logs in the log of the run that waited for it: it is about all classes.
    """
    go, handing, faults = asyncio.Event(), PlayoutSync(streamer), list[object]()
    current.set("the run")

    async def hangs(_do: str, **_: object) -> None:
        await go.wait()
        faults.extend(value for value in copy_context().values() if value == "the run")
        raise TryAgain("it does not answer")

    monkeypatch.setattr(streamer.playout, "ask", hangs)
    monkeypatch.setattr(asyncio.get_running_loop(), "call_exception_handler", faults.append)
    handing._path = timetable
    assert not await streamer.playout.in_force(0.2)
    go.set()
    async with handing._one_at_a_time:
        await asyncio.sleep(0)
    gc.collect()
    assert faults == []


@pytest.mark.usefixtures("statuses")
async def test_what_the_playout_does_not_take_is_alarmed_once_when_the_database_takes_that(
    streamer: StreamerHost, timetable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full at that second: the class would not be aired, and nobody would hear of it before its start."""
    rows.commit(streamer.engine, rows.bare, "odd", START + 200)
    ask, handing = streamer.playout.ask, PlayoutSync(streamer)
    full = OperationalError("INSERT INTO outbox", {}, Exception("database or disk is full"))

    async def asked(do: str, **fields: Any) -> dict[str, Any]:
        return await ask(do, **fields) | {"refused": {"odd": "its URL is odd"}}

    monkeypatch.setattr(streamer.playout, "ask", asked)
    handing._path = timetable
    with monkeypatch.context() as patch:
        patch.setattr(streamer, "write_tx", AsyncMock(side_effect=full))
        await handing.step()
        await handing._following.look_around(START)
    assert alarms(streamer) == []
    for _ in range(2):
        await handing.step()
        await handing._following.look_around(START)
    assert alarms(streamer) == ["odd: the playout does not take it: its URL is odd"]


async def test_classes_are_handed_over_beside_an_odd_one(
    streamer: StreamerHost, statuses: list[dict[str, Any]], timetable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw of one class would end the work on the playout, and no class would be handed over.

    They are handed over together, those first that begin first.
    """
    monkeypatch.setattr(failures, "publish_outbox", rows.unsent)
    for class_id, start in (("odd", START - 30), ("later", START + 30)):
        rows.commit(streamer.engine, rows.bare, class_id, start, "on air")
    statuses.append({"class_id": "odd", "state": "on_air"})  # and not a word more

    def urls() -> dict[str, list[str]]:
        lessons = map(json.loads, timetable.read_text().splitlines()[1:])
        return {one["class_id"]: one["push_urls"] for one in lessons}

    def odd(facts: Facts, host: StreamerHost) -> ScheduledClass:
        if facts[0].class_id == "odd":
            raise RecursionError("odd")
        return lesson(facts, host)

    monkeypatch.setattr(playout_sync, "lesson", odd)
    handing = PlayoutSync(streamer)
    await handing._bring_up_to_date()
    assert list(urls()) == list(streamer.playout.confirmed) == ["c-1", "later"]
    monkeypatch.setattr(playout_sync, "lesson", lesson)
    await handing.step()
    assert list(urls()) == ["odd", "c-1", "later"], "it is made again at the next beat"
    rows.commit(streamer.engine, Connection.execute, update(tasks).values(push_url="rtmp://other.example/live/x"))
    monkeypatch.setattr(playout_sync, "lesson", odd)
    await handing.step()
    assert urls()["c-1"] == ["rtmp://other.example/live/x"]
    assert urls()["odd"] != urls()["c-1"], "it is aired as before"


async def test_of_a_series_of_the_same_event_few_are_written_down(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    """With their number; another reason is news, and so is the same one after the class was on air."""

    def noted() -> list[bool]:
        its = select(journal.events.c.detail).where(journal.events.c.what == "push broke off")
        return ["so far" in one for one in rows.look(streamer.engine, Connection.execute, its).scalars()]

    for _ in range(12):
        await following.take(broke_off())
    assert (noted(), following.news.is_set()) == ([False, True], False)
    await following.take(broke_off() | {"why": "it refuses the push"})
    assert noted()[2:] == [False]
    await following.take(told("on_air", 52, session=2, position_s=52.0))
    assert following.news.is_set()
    await following.take(broke_off())
    assert noted()[3:] == [False]


async def test_a_class_that_ends_while_others_are_looked_at_is_passed_over(
    streamer: StreamerHost, following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are taken beside the look; one of the last class must not end the whole work on the playout."""
    streamer.playout.until = math.inf
    look = streamer.read_tx

    async def slowly(*asked: Any) -> Any:
        found = await look(*asked)
        following._classes.clear()
        return found

    monkeypatch.setattr(streamer, "read_tx", slowly)
    await following.look_around(START + 60, [off_air()])
    assert alarms(streamer) == []


@pytest.mark.parametrize(
    ("state", "after_s", "is_alarmed"), [("on air", 50, True), ("ready", -1000, False), ("broken", 50, False)]
)
async def test_only_a_class_that_should_be_on_air_is_alarmed_if_it_is_not(
    streamer: StreamerHost,
    following: PlayoutEvents,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    after_s: float,
    is_alarmed: bool,
) -> None:
    """Before its start it is just being connected, and of one that ended broken people know."""
    rows.commit(streamer.engine, Connection.execute, update(classes).values(state=state))
    monkeypatch.setattr(streamer.playout, "held", lambda: True)
    for later_s in (0, NOT_ON_AIR_S):
        await following.look_around(START + after_s + later_s, [off_air()])
    assert any("it is not on air" in one for one in alarms(streamer)) == is_alarmed
    assert (following._off != {}) == is_alarmed


async def test_a_class_not_aired_is_reported_once(streamer: StreamerHost, following: PlayoutEvents) -> None:
    """The playout tells its end to each process that begins; the story and the teacher need it once."""
    for _ in range(2):
        await following.take({**over(), **told("ended", 2700)})
    assert [one["cmd"] for one in rows.said(streamer) if one["cmd"] != "alarm"] == ["ended"]


async def test_a_class_closed_too_early_is_aired(streamer: StreamerHost, following: PlayoutEvents) -> None:
    """The playout was away when the sweeper closed it, and says now what it has sent."""
    broken = update(classes).values(state="broken", message="nobody knows how much of it was sent")
    rows.commit(streamer.engine, Connection.execute, broken)
    await following.take(aired())
    assert rows.state_of(streamer, "c-1") == "aired"
    for class_id in ("c-1", "nobody's"):
        await following.take(told("behind", behind_s=2.1) | {"class_id": class_id})
    assert rows.said(streamer, "alarm") == []


@pytest.mark.parametrize(
    ("ago_s", "state", "statuses", "after", "says"),
    [
        (20, "on air", [], "on air", ""),
        (299, "on air", TryAgain("it is not there"), "on air", ""),
        (300, "on air", TryAgain("it is not there"), "broken", "nobody knows"),
        (299, "on air", NotTaken("odd"), "on air", ""),
        (300, "on air", NotTaken("odd"), "broken", "nobody knows"),
        (100, "on air", [{}], "aired", ""),
        (100, "on air", [{"end": 1e12}], "aired", ""),  # it was shortened meanwhile
        (100, "on air", [{"state": "on_air"}], "broken", "nobody knows"),
        (100, "on air", [{"start": 5.0}], "broken", "nobody knows"),
        (100, "on air", [], "broken", "nobody knows"),
        (100, "ready", [], "broken", "nothing was sent"),
        (100, "ready", [{"state": "waiting"}], "broken", "nobody knows"),
        (100, "waiting", [{}], "refused", "before its rendition"),
        (100, "lost", [{}], "aired", ""),
    ],
)
async def test_a_class_past_its_end_is_closed_as_its_playout_says(
    streamer: StreamerHost,
    monkeypatch: pytest.MonkeyPatch,
    ago_s: float,
    state: str,
    statuses: list[dict[str, Any]] | Exception,
    after: str,
    says: str,
) -> None:
    """By what it has sent of the class as it is now, if anything; one that is away, or refuses, is waited for."""

    async def ask(*_: object, **__: object) -> dict[str, Any]:
        if isinstance(statuses, Exception):
            raise statuses
        return {"classes": [aired() | one for one in statuses]}

    its = {"state": "waiting", "lost_at": START} if state == "lost" else {"state": state}
    rows.commit(streamer.engine, Connection.execute, update(classes).values(**its))
    monkeypatch.setattr(streamer.playout, "ask", ask)
    monkeypatch.setattr(time, "time", lambda: START + 2700 + ago_s)
    await maintenance._sweep(streamer, dry_run=False)
    assert rows.state_of(streamer, "c-1") == after
    assert says in " ".join(one["message"] for one in rows.said(streamer, "ended", "prepared"))


@pytest.mark.parametrize("is_swept", [False, True])
async def test_what_was_sent_of_a_class_whose_recording_never_came_is_told_with_its_refusal(
    streamer: StreamerHost, following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch, is_swept: bool
) -> None:
    """It was moved here while it was on air: the account of its streamers together has its slate, too."""
    monkeypatch.setattr(time, "time", lambda: START + 2800)
    slate_rows = [one | {"source": "slate"} for one in aired()["as_run"]]
    ending = aired() | {"as_run": slate_rows}

    async def ask(*_: object, **__: object) -> dict[str, Any]:
        return {"classes": [ending]}

    rows.commit(streamer.engine, Connection.execute, update(classes).values(state="waiting"))
    monkeypatch.setattr(streamer.playout, "ask", ask)
    if is_swept:
        await maintenance._sweep(streamer, dry_run=False)
    await following.take(ending)
    (report,) = rows.said(streamer, "prepared", "ended")
    assert (report["code"], rows.state_of(streamer, "c-1")) == (errors.ENDED.number, "refused")
    assert [(part["source"], part["sent_s"]) for part in report["as_run"]] == [("slate", 2700.0)]


async def test_how_a_class_is_aired_is_stated_to_the_teacher_when_it_changes(
    streamer: StreamerHost, following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the playout says that it has sent; a process that begins states it once more, which changes nothing.

    So it is after ten minutes, for Redis may have lost it: the platform would hear of no class that it is on air.
    """

    def stated() -> list[tuple[str, float]]:
        return [(one["event"], one["at"] - START) for one in rows.said(streamer, "airing")]

    part = aired()["as_run"][0] | {"to": START + 20}
    status = on_air(as_run=[part])
    for _ in range(2):
        await following.look_around(START + 20, [status])
    assert stated() == [("on_air", 0)]
    for at in (23, 26):
        await following.look_around(START + at, [status | {"state": "trying"}])
    assert stated()[1:] == [("interrupted", 20)]
    again = status | {"as_run": [part, part | {"source": "slate", "from": START + 28, "to": START + 40}]}
    for its in (following, PlayoutEvents(streamer)):
        await its.look_around(START + 40, [again])
    assert stated()[2:] == [("on_air", 28), ("slate", 28)] * 2
    monkeypatch.setattr(playout_events, "STATED_AGAIN_S", 0.0)
    await following.look_around(START + 40, [again])
    assert stated()[6:] == [("on_air", 28), ("slate", 28)]


@pytest.mark.parametrize("what", ["lease", "playout"])
async def test_what_interrupted_a_class_is_stated_and_not_what_went_wrong_long_before(
    streamer: StreamerHost, following: PlayoutEvents, what: str
) -> None:
    """Else the platform hears that its server had closed the connection again."""
    await following.take(broke_off(2))
    if what == "lease":
        await following.take(told("fenced", 20, session=1))
    else:
        await following.was_away(["c-1"], START + 20)
    parts = [aired()["as_run"][0] | {"to": START + 20}, aired()["as_run"][0] | {"from": START + 28, "to": START + 40}]
    status = {"class_id": "c-1", "state": "on_air", "why": "the server took nothing for 5 s", "as_run": parts}
    await following.look_around(START + 40, [status])
    (stated,) = rows.said(streamer, "airing")
    assert (stated["since"], what in stated["message"]) == (START + 20, True)


async def test_a_database_that_takes_nothing_does_not_end_the_work_on_the_playout(
    streamer: StreamerHost, following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How classes are aired, and that the playout is away, is told when it takes it."""
    monkeypatch.setattr(playout_sync, "ALARM_AFTER_S", 0.0)
    monkeypatch.setattr(playout_sync, "publish_outbox", rows.unsent)
    handing = PlayoutSync(streamer)
    streamer.playout.is_away("it was killed")
    streamer.playout.until = math.inf
    status = on_air(as_run=aired()["as_run"])
    full = OperationalError("INSERT INTO outbox", {}, Exception("database or disk is full"))
    with monkeypatch.context() as patch:
        patch.setattr(streamer, "write_tx", AsyncMock(side_effect=full))
        await following.take({"event": "lease_over", "class_id": None})
        await following.look_around(START + 20, [status])
        await handing._say_away()
    await following.look_around(START + 23, [status])
    await handing._say_away()
    assert [one["event"] for one in rows.said(streamer, "airing")] == ["on_air"]
    assert [one["code"] for one in rows.said(streamer, "alarm")] == [errors.PLAYOUT_AWAY.number]


async def test_an_odd_word_of_the_playout_about_a_class_is_alarmed_and_ends_nothing(
    streamer: StreamerHost, following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end the whole work on the playout, which passes the lease on: all classes would leave the air."""
    monkeypatch.setattr(failures, "publish_outbox", rows.unsent)
    await following.look_around(START + 60, [{"class_id": "c-1", "state": "on_air"}])
    await following.take(told("behind"))
    (said,) = alarms(streamer)
    assert said.startswith("streamer1: class c-1 does not work: KeyError")


async def test_a_recording_is_downloaded_again_each_time_it_is_lost(
    following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if nobody listened; not at each look, for its download takes its time.

    Nor when its slate is lost, too: that would put aside the file that has just come.
    """
    asked: list[tuple[str, str, float]] = []

    async def replace(_host: object, stem: str, why: str, *, seen_at: float) -> bool:
        asked.append((stem, why, seen_at - START))
        return seen_at > 0

    monkeypatch.setattr(downloads, "redownload", replace)
    missing = "the recording is missing"
    await following.look_around(START + 20, [lost(why=missing)])  # an older playout does not say what helps
    for after_s in (23, 26):
        await following.look_around(START + after_s, [lost(why=missing, wants_file=True)])
        await fetched(following)
    assert asked == [("6666", missing, 20)]
    for at, why in ((29, "it is missing again"), (30, "it is missing once more")):
        await following.take(back())
        await following.take(slate(why, wants_file=True) | {"at": START + at})
        for _ in range(2):
            await following.look_around(START + 32, [lost(wants_file=True)])
            await fetched(following)
    await following.take(slate("the slate is missing", wants_file=True) | {"at": START + 33})
    await following.look_around(START + 35, [lost(wants_file=True, slate=False)])
    await fetched(following)
    assert asked[1:] == [("6666", "it is missing again", 29), ("6666", "it is missing once more", 30)]


@pytest.mark.parametrize("is_event", [True, False], ids=["event", "status"])
async def test_a_recording_that_is_lost_while_the_database_takes_nothing_is_downloaded_again_and_alarmed_when_it_does(
    streamer: StreamerHost, following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch, is_event: bool
) -> None:
    """So if the disk hangs. Else the slate would be sent to the end of the class.

    A process that begins has only the status of the class.
    """
    full = OperationalError("DELETE FROM video_list", {}, Exception("database or disk is full"))
    asked = Mock(side_effect=[full, full, TryAgain("is the disk busy?"), True])

    async def redownload(*_: object, **__: object) -> bool:
        return bool(asked())

    monkeypatch.setattr(downloads, "redownload", redownload)
    status = lost(wants_file=True, why="the recording is missing")
    with monkeypatch.context() as patch:
        patch.setattr(streamer, "write_tx", AsyncMock(side_effect=full))
        if is_event:
            await following.take(slate(wants_file=True))
        await following.look_around(START + 60, [status])
        await fetched(following)
    for after_s in (63, 66, 69, 72):
        await following.look_around(START + after_s, [status])
        await fetched(following)
    assert asked.call_count == 4
    assert ["the recording is missing" in one for one in alarms(streamer)] == [True]
    with monkeypatch.context() as patch:
        patch.setattr(streamer, "write_tx", AsyncMock(side_effect=full))
        await following.look_around(START + 75, [on_air(as_run=aired()["as_run"])])
    streamer.ongoing.clear()
    following.still()
    assert streamer.ongoing == {}


class Told:
    """A playout that answers as it is told to."""

    def __init__(self, *answers: dict[str, Any], events: Sequence[dict[str, Any]] = ()) -> None:
        self._answers, self._events = iter(answers), events

    async def ask(self, _: str, **__: Any) -> dict[str, Any]:
        return next(self._answers)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Those that it reports before its end."""
        for event in self._events:
            yield event

    async def close(self) -> None:
        pass


async def test_playout_that_would_forget_class_is_said_once_until_it_writes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else its next restart would be the first to show that its disk takes nothing."""
    kept, lost = {"durable": True}, {"durable": False, "why": "the timetable is not written yet"}
    playout = Playout(client=cast("Client", Told(lost, kept, lost, kept, lost)))

    with caplog.at_level(logging.WARNING, logger="lectern"):
        for do in ("timetable", "status", "timetable", "timetable", "timetable"):
            await playout.ask(do)
    assert caplog.messages == ["playout: the timetable is not written yet; if it ends now, it forgets that"] * 2


async def test_a_slate_that_could_not_be_made_is_made_later(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full when the process began: else its classes would have no slate until the next one."""
    monkeypatch.setattr(playout_sync, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(playout_sync, "SLATE_AGAIN_S", 0.0, raising=False)
    monkeypatch.setattr(ffmpeg, "make_slate", AsyncMock(side_effect=[TryAgain("No space left on device"), None]))
    handing = PlayoutSync(streamer)
    await handing._make_slate()
    assert Path(handing._slate or "").name == "slate.flv"


# -- the timetable ----------------------------------------------------------------------------------------------------


def test_a_class_is_in_the_timetable_until_the_playout_has_told_its_end(
    streamer: StreamerHost,
) -> None:
    """It would be cancelled, if the clock of this host were a moment ahead of that by which the playout airs."""
    now = time.time()
    for class_id, was, starts_in_s in (
        ("ended", "on air", -61),
        ("told", "aired", -61),
        ("forgotten", "on air", -360),
        ("soon", "ready", AHEAD_S - 60),
        ("later", "ready", AHEAD_S + 60),
    ):
        start = now + starts_in_s
        rows.commit(streamer.engine, rows.bare, class_id, start, was, end_time=start + 60)
    found = rows.look(streamer.engine, TimetableReader(streamer).wanted, now, None, Allowlist(), None)
    assert (list(found.lessons), found.session) == (["c-1", "ended", "soon"], "")
    rows.commit(streamer.engine, leases.hold, streamer.settings.name, "s0", now)
    assert rows.look(streamer.engine, TimetableReader(streamer).wanted, now, None, Allowlist(), None).session == "s0"


def test_a_class_whose_row_cannot_be_read_stays_in_the_timetable_as_it_was(
    streamer: StreamerHost, tmp_path: Path
) -> None:
    """As this process made it; if it never did, as it is on the disk."""
    reader, before = TimetableReader(streamer), tmp_path / "timetable.jsonl"

    def slates(reader: TimetableReader) -> dict[str, object]:
        its = "/slate.flv", Allowlist(), before
        found = rows.look(streamer.engine, reader.wanted, time.time(), *its).lessons
        return {class_id: one["slate"] for class_id, one in found.items()}

    assert slates(reader) == {"c-1": "/slate.flv"}
    rows.commit(streamer.engine, rows.bare, "c-2", START + 1)
    lines = [{"class_id": name, "start": START, "slate": "/old.flv"} for name in ("c-1", "c-2")]
    before.write_text("\n".join(map(json.dumps, [{"version": "1"}, *lines])))
    odd = "UPDATE task_list SET start_time = 'soon' WHERE class_id = 'c-1'"
    rows.commit(streamer.engine, Connection.exec_driver_sql, odd)
    assert slates(reader) == {"c-1": "/slate.flv", "c-2": "/slate.flv"}
    assert slates(TimetableReader(streamer)) == {"c-1": "/old.flv", "c-2": "/slate.flv"}
