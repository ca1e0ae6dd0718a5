"""What was handled is shown afterwards: once, found by every class, and never in the way of an answer."""

import asyncio
import json
import logging
import sqlite3
import time
from contextlib import nullcontext
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import OperationalError

from flows import handling
from flows.handling import Swept, sweep_flow
from flows.host import TeacherHost, claimed
from flows.prefect_api import NewRun
from flows.resident.consumer import Handler
from flows.resident.prefect import recorder
from flows.resident.prefect.recorder import Recorder
from flows.resident.prefect.runs import ResidentRuns
from lectern.db import events, inbox
from lectern.db.engine import reading, transaction
from lectern.db.inbox import HandledMessage, ReceivedMessage
from lectern.errors import TryAgain
from lectern.model.facts import Event, InboxMessage
from lectern.model.plan import Changes
from lectern.run_records import CLASSES, RunRecord, records_of
from lectern.wire.messages import Cancel
from tests.faults.turns import Quiet
from tests.fundamentals.test_runs import Prefect
from tests.rows import commit, look
from tests.waiting import async_wait_until, cancelled

RENDITION = NewRun("transcode", {"record_id": 7}, "transcode 7 240P", ["record:7"], key="k-1")
DEPLOYMENTS = {name: uuid4() for name in ("booking", "change", "settle", "report", "sweep", "transcode")}


class Desk:
    """A teacher whose flow a test writes, and its recorder."""

    def __init__(self, host: TeacherHost) -> None:
        self.host = host
        self.prefect = Prefect()
        self.decisions: dict[str, str] = {}  # by class_id; the others proceed
        self.error: Exception | State[Any] | None = None  # what the flow, or the work, raises or returns
        self.restart()

    def restart(self) -> None:
        self.runs = ResidentRuns(cast("PrefectClient", self.prefect), {"transcode": cast("Any", self)})
        self.runs.host = self.host
        self.runs.created.know(DEPLOYMENTS)
        self.recorder = Recorder(self.host, self.runs)
        self.handler = Handler(self.host, {"booking": self._booking(), "sweep": self._sweep()})

    def _booking(self) -> Any:
        @flow(name="booking")
        async def booking(inbox_ids: str = "") -> State[None]:
            ids = [one.id for one in claimed.get()] or inbox.parse_id_ranges(inbox_ids)
            kept = await self.host.read_tx(inbox.read, ids)
            if isinstance(self.error, State):
                return self.error
            self.fail()
            names = [json.loads(one.body)["class_id"] for one in kept]
            said = handling.said_of(zip(ids, names, strict=True), [self.line(one) for one in names])

            def write(connection: Connection) -> None:
                now, noted = time.time(), [Event("placed", one, detail="on streamer1") for one in names]
                events.note(connection, "teacher", noted, now)
                inbox.done(connection, ids, now, said)

            await self.host.write_tx(write)
            return Completed(message="all done")

        return booking

    def _sweep(self) -> Any:
        @flow(name="sweep")
        async def sweep() -> State[None]:
            self.fail()
            return await sweep_flow(self.host, self._looked, dry_run=False)

        return sweep

    async def _looked(self, host: TeacherHost, _: bool) -> Swept:
        changes = Changes(host.settings, time.time())
        changes.table += [self.line(one) for one in self.decisions]
        return [changes], "looked at all", ["something is begun"]

    def line(self, name: str) -> dict[str, object]:
        return {"class": name, "decision": self.decisions.get(name, "proceed"), "code": "", "detail": ""}

    async def fn(self, **_: Any) -> None:
        """The work of a transcoding, which can be done without a run."""
        self.fail()

    def fail(self) -> None:
        if isinstance(self.error, Exception):
            raise self.error

    def book(self, *class_ids: str) -> list[InboxMessage]:
        """The messages come, and are claimed."""
        host, now = self.host, time.time()
        bodies = [json.dumps({"cmd": "order", "class_id": one, "record_id": 7}) for one in class_ids]
        commit(host.engine, inbox.keep, [ReceivedMessage("test", "order", one) for one in bodies], now)
        return commit(host.engine, inbox.claim, ["order"], limit=5000, lease_s=60, now=now)

    async def handle(self, *class_ids: str) -> None:
        await asyncio.create_task(self.handler.handle("booking", self.book(*class_ids)))

    def unrecorded(self) -> int:
        """How many handled messages no run shows."""
        with reading(self.host.engine) as connection:
            return connection.execute(select(func.count()).where(inbox.UNSHOWN)).scalar_one()


@pytest.fixture
def desk(teacher: TeacherHost) -> Desk:
    teacher.bus = cast("Any", Quiet())
    return Desk(teacher)


async def test_a_booking_is_a_run_of_its_name_with_its_true_times(desk: Desk) -> None:
    """Its log is what happened to its class. What waits for a service that is away holds up nothing."""
    before = time.time()
    await desk.handle("c-1")
    desk.book(*(f"d-{number}" for number in range(100)))
    assert desk.prefect.asked == 0, "nobody has waited for it"
    await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert (run["name"], run["tags"], run["parameters"]) == (
        "booking c-1",
        ["class:c-1", "record:7"],
        {"inbox_ids": "1"},
    )
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Completed")
    assert run["state"]["message"].startswith("1 proceed; handled 2")
    began, ended = (datetime.fromisoformat(run["labels"][f"lectern.{one}"]).timestamp() for one in ("began", "ended"))
    assert before - 1 <= began <= ended <= time.time()
    (line,) = desk.prefect.logs
    assert (line["message"], line["flow_run_id"]) == ("c-1: placed: on streamer1", run["id"])
    (table,) = desk.prefect.tables
    assert [row["class"] for row in json.loads(table["data"])] == ["c-1"]
    assert desk.unrecorded() == 0
    await desk.recorder.tell()
    assert len(desk.prefect.runs) == 1


async def test_batches_that_went_well_are_one_run(desk: Desk) -> None:
    """One that failed stands alone, with what it did not handle: its Retry does only that.

    The UI opens it, and one that was refused, on its log, which begins with the reason; others need no line for it.
    """
    desk.decisions = {"c-0": "refuse 207"}
    await desk.handle("c-1", "c-2")
    await desk.handle("c-3", "c-0")
    desk.error = RuntimeError("boo")
    await desk.handle("c-4")
    await desk.recorder.tell()
    found = {one["name"]: one["state"]["type"] for one in desk.prefect.runs.values()}
    assert found == {"booking 3 messages": "COMPLETED", "booking c-0": "CANCELLED", "booking c-4": "FAILED"}
    (failed,) = [one for one in desk.prefect.runs.values() if one["state"]["type"] == "FAILED"]
    assert "RuntimeError" in failed["state"]["message"]
    assert (failed["parameters"], failed["tags"]) == ({"inbox_ids": "5"}, ["class:c-4", "record:7"])
    ((line,),) = [json.loads(one["data"]) for one in desk.prefect.tables if one["flow_run_id"] == failed["id"]]
    assert (line["class"], line["decision"], "RuntimeError" in line["detail"]) == ("c-4", "failed", True)
    names = {run["id"]: run["name"] for run in desk.prefect.runs.values()}
    first = {names[line["flow_run_id"]]: line for line in reversed(desk.prefect.logs)}
    assert "refuse 207" in first["booking c-0"]["message"]
    assert first["booking 3 messages"]["message"].startswith("c-1: placed")
    assert ("RuntimeError" in first["booking c-4"]["message"], first["booking c-4"]["level"]) == (True, logging.ERROR)


async def test_a_run_has_no_more_classes_than_it_has_tags_for_and_each_class_is_in_one() -> None:
    """Those of one message may be in several runs. What is shown more than a minute late is marked."""

    def result(id_: int, classes: int) -> HandledMessage:
        said = [{"class": f"c-{id_}-{one}" if one else "7_720P", "decision": "proceed"} for one in range(classes + 1)]
        body = json.dumps({"cmd": "transcoding", "record_id": 7, "video_resolution": "720P"})
        return HandledMessage(id_, "transcoding", body, None, json.dumps(said), 100.0, "a")

    runs = records_of("settle", [result(1, 50), result(2, 2 * CLASSES), result(3, 1)], "a", 161.0)
    assert [run.ids for run in runs] == [[1, 2], [2], [2, 3]]
    assert runs[1].name == "settle 7 720P"
    classes = [class_id for run in runs for class_id in run.classes]
    assert len(classes) == len(set(classes)) == 50 + 2 * CLASSES + 1
    assert max(len(run.classes) for run in runs) <= CLASSES
    assert all("lectern:shown-late" in run.tags for run in runs)
    failed = [HandledMessage(one, "prepared", "{}", "boo", None, 100.0, None) for one in range(CLASSES + 1)]
    runs = records_of("report", failed, "a", 160.0)
    assert [(len(run.ids), run.tags) for run in runs] == [(CLASSES, []), (1, [])]


@pytest.mark.parametrize("how", [RuntimeError("boo"), Failed(message="1 of 1 failed")], ids=["raised", "returned"])
async def test_a_message_that_is_given_up_is_one_failed_run_more(desk: Desk, how: Exception | State[Any]) -> None:
    """Each of its tries has one of its own."""
    desk.error = how
    kept = desk.book("c-1")
    tries_ = desk.host.settings.inbox_max_attempts
    for _ in range(tries_):
        await asyncio.create_task(desk.handler.handle("booking", kept))
    assert look(desk.host.engine, inbox.read, [1]) == []
    await desk.recorder.tell()
    assert [one["state"]["type"] for one in desk.prefect.runs.values()] == ["FAILED"] * tries_
    assert desk.prefect.ids() == [1] * tries_


async def test_every_class_of_a_storm_is_found_and_refused_ones_stand_out(desk: Desk) -> None:
    """However many there are: no run has more tags than Prefect takes."""
    names = [f"c-{number}" for number in range(500)]
    desk.decisions = {"c-17": "refuse", "c-300": "refuse"}
    await desk.handle(*names)
    await desk.recorder.tell()
    runs = list(desk.prefect.runs.values())
    assert {tag for one in runs for tag in one["tags"] if tag.startswith("class:")} == {f"class:{one}" for one in names}
    assert max(len(one["tags"]) for one in runs) <= 92
    assert desk.prefect.ids() == list(range(1, 501)), "each is in one run"
    (refused,) = [one for one in runs if one["state"]["name"] == "Refused"]
    assert {"class:c-17", "class:c-300", "lectern:refused"} <= set(refused["tags"])
    assert (refused["state"]["type"], refused["parameters"]) == ("CANCELLED", {"inbox_ids": "18,301"})


async def test_a_class_that_a_sweep_refuses_is_found_and_a_sweep_that_fails_is_shown(desk: Desk) -> None:
    """Not one that waits for a service. Its rows are no messages: no batch gets them, and no count has them."""
    desk.decisions = {"c-9": "refuse", "6666_720P": "TIME_OUT"}
    for error in (None, TryAgain("Redis is away"), RuntimeError("boo")):
        desk.error = error
        await asyncio.create_task(desk.handler.sweep())
    assert commit(desk.host.engine, inbox.claim, ["sweep"], limit=9, lease_s=1, now=1e10) == []
    assert [look(desk.host.engine, one) for one in (inbox.waiting, inbox.oldest)] == [0, None]
    await desk.recorder.tell()
    found = {one["state"]["name"]: one for one in desk.prefect.runs.values()}
    assert (set(found), len(desk.prefect.runs)) == ({"Refused", "Completed", "Failed"}, 3)
    assert {"class:c-9", "lectern:refused"} <= set(found["Refused"]["tags"])
    assert {found[one]["name"] for one in ("Completed", "Failed")} == {f"sweep {desk.host.settings.name}"}
    assert (found["Completed"]["parameters"], found["Completed"]["tags"]) == ({}, [])


async def test_a_run_that_prefect_refuses_is_set_aside_alone(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """First without its labels, then wholly; the others are shown, although one transaction had said that they were."""
    desk.decisions = {"c-bad": "refuse"}
    await desk.handle("c-1", "c-bad", "c-3")
    for name in ("one", "c-bad", "other"):
        await desk.runs.without(NewRun("transcode", {}, name))
    desk.prefect.refuses = "c-bad"
    await desk.recorder.tell()
    assert desk.prefect.names == ["booking 1 message", "booking 2 messages", "one", "other"]
    await desk.handle("c-5")
    desk.prefect.refuses = "booking"
    await desk.recorder.tell()
    assert "its run cannot be shown: no such run" in caplog.text
    assert desk.unrecorded() == 0
    desk.prefect.refuses = ""
    await desk.handle("c-6")
    await desk.recorder.tell()
    assert "booking c-6" in desk.prefect.names


async def test_while_prefect_is_away_nothing_waits_and_all_is_shown_once_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much it is."""
    monkeypatch.setattr(recorder, "AT_ONCE", 10)
    desk.prefect.away()
    working = asyncio.create_task(desk.recorder.run())
    for number in range(30):
        await asyncio.wait_for(desk.handle(f"c-{number}"), 30)
    assert desk.unrecorded() == 30
    desk.prefect.well()
    await async_wait_until(lambda: desk.unrecorded() == 0, description="all is shown")
    working.cancel()
    assert desk.prefect.ids() == list(range(1, 31))


POSTGRES_FULL = "(sqlalchemy.dialects.postgresql.asyncpg.Error) <class 'asyncpg.exceptions.DiskFullError'>: could not"
FULL = [500, "(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT INTO flow_run]", POSTGRES_FULL]


@pytest.mark.parametrize(
    ("path", "trouble", "waits"),
    [
        *(("", one, True) for one in FULL),
        ("set_state", 500, True),
        *(("/logs/", one, False) for one in (422, 500)),
    ],
)
async def test_all_is_shown_once_though_prefect_takes_nothing_for_a_while(
    desk: Desk, path: str, trouble: int | str, *, waits: bool
) -> None:
    """While its disk is full it answers, and refuses each run: it does not say that the run is bad.

    Of log lines, it refuses some each time: on PostgreSQL, a NUL in one is an error that it did not foresee.
    """
    await desk.handle("c-1", "c-2")
    await desk.runs.without(RENDITION)
    desk.prefect.trouble = lambda asked, _: trouble if asked.endswith(path) else None
    for _ in range(2):
        with pytest.raises(TryAgain) if waits else nullcontext():
            await desk.recorder.tell()
    assert desk.unrecorded() == (3 if waits else 0)
    desk.prefect.well()
    await desk.recorder.tell()
    assert (desk.prefect.names, desk.unrecorded()) == (["booking 2 messages", RENDITION.name], 0)
    assert "class:c-1" in str(desk.prefect.runs), "with its labels"


async def test_a_database_of_prefect_that_is_locked_inside_a_200_is_asked_again_at_once(desk: Desk) -> None:
    await desk.handle("c-1")
    locked = iter(["(sqlite3.OperationalError) database is locked"] * 3)
    desk.prefect.trouble = lambda path, _: next(locked, None) if path.endswith("/bulk") else None
    await desk.recorder.tell()
    assert (desk.prefect.names, desk.unrecorded()) == (["booking c-1"], 0)


async def test_a_run_whose_text_prefect_did_not_foresee_holds_up_no_other(desk: Desk) -> None:
    """It answers 500 then, too: the run is shown without its labels, and the text in plain characters."""
    await desk.handle("c-1")
    desk.error = TryAgain("\N{SNOWMAN}")
    desk.prefect.trouble = lambda _, body: 500 if "\N{SNOWMAN}" in body else None
    with pytest.raises(TryAgain):
        await desk.runs.without(RENDITION)
    await desk.recorder.tell()
    messages = {one["name"]: one["state"]["message"] for one in desk.prefect.runs.values()}
    assert messages[RENDITION.name].startswith(r"\u2603; handled ")
    assert (set(messages), desk.unrecorded()) == ({"booking c-1", RENDITION.name}, 0)


@pytest.mark.parametrize("asked", [False, True])
async def test_what_a_killed_process_did_not_show_is_shown_once(desk: Desk, *, asked: bool) -> None:
    """Also if Prefect had made its runs, which could not be noted; what was handled since does not change them."""
    (early,) = desk.book("c-early")
    await desk.handle(*(f"c-{number}" for number in range(100)))
    if asked:
        await desk.recorder.tell()
        all_rows = inbox.inbox.update().values(recorded_at=None)
        commit(desk.host.engine, Connection.execute, all_rows)
    desk.restart()
    await asyncio.create_task(desk.handler.handle("booking", [early]))
    await desk.recorder.tell()
    assert desk.prefect.ids() == list(range(1, 102))
    assert (len(desk.prefect.runs), desk.unrecorded()) == (3 if asked else 2, 0)


async def test_in_a_storm_the_answers_come_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect would take what they need of the machine; it is all shown when the storm is over, or lasts for long."""
    monkeypatch.setattr(recorder, "STORM", 2)
    sleep = asyncio.sleep
    storm = iter([["c-2"], ["c-3", "c-4"], [], ["none in time"]])

    async def goes_on(delay: float) -> None:
        if delay != recorder.CALM_S:
            return await sleep(delay)
        assert desk.prefect.ids() == shown
        return await desk.handle(*next(storm))

    monkeypatch.setattr(asyncio, "sleep", goes_on)
    shown: list[int] = []
    await desk.handle("c-0", "c-1")
    await desk.recorder.tell()
    assert list(storm) == [["none in time"]]
    shown = desk.prefect.ids()
    assert shown == [1, 2, 3, 4, 5]

    monkeypatch.setattr(recorder, "PATIENCE_S", 0.1)
    storm = ([f"d-{number}"] for number in range(10_000))
    await desk.handle("d", "e")
    await desk.recorder.tell()
    assert {6, 7} <= set(desk.prefect.ids())
    assert next(storm) != ["d-0"]


async def test_what_was_handled_meanwhile_is_shown_before_the_logs_of_what_is_shown(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A storm has thousands of them, and nobody finds a class without its run. One that cannot be made is alone."""
    shown: list[list[int]] = []
    made = RunRecord.log

    async def goes_on(record: RunRecord) -> None:
        shown.append(desk.prefect.ids())
        if len(shown) == 1:
            await desk.handle("c-2")
        await detail(record)

    def odd(record: RunRecord, *given: Any) -> Any:
        assert record.name != "booking c-odd", "boo"
        return made(record, *given)

    detail = desk.recorder._detail
    monkeypatch.setattr(desk.recorder, "_detail", goes_on)
    monkeypatch.setattr(RunRecord, "log", odd)
    await desk.handle("c-odd")
    await desk.recorder.tell()
    assert shown == [[1], [1, 2]]
    assert [line["message"] for line in desk.prefect.logs] == ["c-2: placed: on streamer1"]
    assert "the log of booking c-odd cannot be shown" in caplog.text


async def test_a_retry_acts_only_on_messages_of_its_own_flow(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """After a restore the ids of an old report's run are bookings: they are left alone."""
    desk.book("c-1", "c-2")
    commit(desk.host.engine, inbox.keep, [ReceivedMessage("test", "prepared", "{}")], time.time())
    assert await desk.runs._own("report", {"inbox_ids": "1-3,99"}) == {"inbox_ids": "3"}
    assert await desk.runs._own("booking", {"inbox_ids": "1-3"}) == {"inbox_ids": "1-2"}
    assert "3 of its 4 messages are not its own, or gone" in caplog.text


async def test_a_run_that_somebody_began_shows_its_messages_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not shown once more by the recorder, whether they can be read or not."""
    monkeypatch.setattr(handling, "FlowRunContext", SimpleNamespace(get=lambda: "a run"))
    cancel = json.dumps({"cmd": "cancel", "class_id": "c-1"})
    with transaction(desk.host.engine) as connection:
        arrived = [ReceivedMessage("test", "cancel", body) for body in (cancel, "{}")]
        inbox.keep(connection, arrived, time.time())
        came = [handling.came(one, (Cancel,)) for one in inbox.read(connection, [1, 2])]
    await handling.handled(desk.host, came, lambda *_: None)
    assert look(desk.host.engine, inbox.waiting) == 0
    assert desk.unrecorded() == 0


async def test_each_line_of_a_table_belongs_to_its_message() -> None:
    """The classes that a result has decided, to the result; a second airing, to the booking; a revision, to the change.

    Else the refused change of one class would show what was decided of another.
    """

    def said(messages: list[tuple[int, str | None]], *names: str) -> dict[int, list[str]]:
        lines = handling.said_of(messages, [{"class": one, "decision": "proceed"} for one in names])
        return {id_: [line["class"] for line in json.loads(its)] for id_, its in lines.items()}

    results = said([(1, None), (2, None)], "c-1", "c-2", "7_720P", "c-3", "8_720P")
    assert results == {1: ["c-1", "c-2", "7_720P"], 2: ["c-3", "8_720P"]}
    bookings = said([(1, "c-1"), (2, "c-2"), (3, "c-1"), (4, "c-4")], "c-1", "c-1~2", "c-2", "c-1")
    assert bookings == {1: ["c-1", "c-1~2"], 2: ["c-2"], 3: ["c-1"]}
    bookings = said([(1, "c-1"), (2, "c-2"), (3, None)], "c-1", "c-1~backup", "c-2", "?")
    assert bookings == {1: ["c-1", "c-1~backup"], 2: ["c-2"], 3: ["?"]}
    results = said([(1, None), (2, None)], "c-1", "c-1~backup", "c-2^1", "7_720P", "c-3~backup^1", "8_720P")
    assert results == {1: ["c-1", "c-1~backup", "c-2^1", "7_720P"], 2: ["c-3~backup^1", "8_720P"]}
    changes = said([(1, "c-1"), (2, "c-2"), (3, "c-2")], "c-1^1", "c-1~backup^1", "c-2^1", "c-2^2")
    assert changes == {1: ["c-1^1", "c-1~backup^1"], 2: ["c-2^1"], 3: ["c-2^2"]}
    assert said([(1, "c-1"), (2, "c-2")], "c-1", "c-2^1") == {1: ["c-1"], 2: ["c-2^1"]}
    assert said([(1, "c-5"), (2, "c-1^2")], "c-5", "c-1") == {1: ["c-5"], 2: ["c-1"]}
    numbers = said([(1, None), (2, None)], "1001", "7_720P", "1002", "8_720P")
    assert numbers == {1: ["1001", "7_720P"], 2: ["1002", "8_720P"]}, "no recordings: each result names a resolution"
    lines = json.dumps([{"class": one, "decision": "proceed"} for one in numbers[1]])
    (run,) = records_of("settle", [HandledMessage(1, "transcoding", "{}", None, lines, 100.0, "a")], "a", 101.0)
    assert run.classes == {"1001"}


async def test_work_that_was_done_without_a_run_has_one_afterwards(desk: Desk) -> None:
    """It failed while Prefect took no run: without one, nobody could try it again in the UI. A restart loses none."""
    desk.error = TryAgain("404")
    desk.prefect.away()
    with pytest.raises(TryAgain):
        await desk.runs.without(RENDITION)
    await desk.recorder.close(1)
    assert desk.prefect.runs == {}
    desk.restart()
    desk.prefect.well()
    for _ in range(2):
        await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert (run["name"], run["state"]["type"], run["parameters"]) == (RENDITION.name, "FAILED", {"record_id": 7})
    assert set(run["tags"]) == {"record:7", "lectern:without-run"}
    assert run["state"]["message"].startswith("404; handled ")
    assert run["state"]["message"].endswith(", without a run because Prefect let none begin")


@pytest.mark.parametrize("body", [{"flow": "transcode", "mood": "good"}, {"flow": "mood", "name": "x", "began": 1.0}])
async def test_work_that_cannot_be_read_or_shown_holds_up_nothing_else(desk: Desk, body: dict[str, object]) -> None:
    """As that of a newer release, which was rolled back: nothing was shown any more."""
    newer = update(inbox.inbox).values(body=json.dumps(body))
    desk.error = TryAgain("404")
    with pytest.raises(TryAgain):
        await desk.runs.without(RENDITION)
    commit(desk.host.engine, Connection.execute, newer)
    desk.error = None
    await desk.handle("c-1")
    await desk.recorder.tell()
    assert (desk.prefect.names, desk.unrecorded()) == (["booking c-1"], 0)


async def test_a_database_that_takes_nothing_at_the_end_holds_up_nothing_else_that_ends(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk. The rest is shown after the restart."""
    await desk.handle("c-1")
    full = OperationalError("update", {}, sqlite3.OperationalError("database or disk is full"))
    with monkeypatch.context() as patch:
        patch.setattr(inbox, "give_keys", Mock(side_effect=full))
        await desk.recorder.close(5)
    assert desk.unrecorded() == 1
    desk.restart()
    await desk.recorder.tell()
    assert (desk.prefect.names, desk.unrecorded()) == (["booking c-1"], 0)


async def test_work_without_a_run_that_is_cut_off_is_not_shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try does it again."""
    monkeypatch.setattr(desk, "fn", lambda **_: asyncio.sleep(60))
    working = asyncio.create_task(desk.runs.without(RENDITION))
    await asyncio.sleep(0)
    await cancelled(working)
    assert desk.unrecorded() == 0


@pytest.mark.parametrize("refused", [False, True])
async def test_a_run_that_was_not_heard_of_shows_what_was_done_without_it(desk: Desk, *, refused: bool) -> None:
    """Prefect had created it: it is not done a second time, and it does not look alive for ever."""
    made: dict[str, Any] = {"id": str(uuid4()), "parameters": {}, "tags": [], "state": {"type": "PENDING"}}
    desk.prefect.runs[str(RENDITION.key)] = made
    await desk.runs.without(RENDITION)
    desk.prefect.trouble = lambda path, _: 422 if refused and path.endswith("set_state") else None
    await desk.recorder.tell()
    assert (made["state"]["type"], len(desk.prefect.runs)) == ("PENDING" if refused else "COMPLETED", 1)
    assert desk.unrecorded() == 0, "one that Prefect refuses to end holds up nothing"
