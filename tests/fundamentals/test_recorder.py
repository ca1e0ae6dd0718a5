"""What was handled is shown afterwards: once, found by every class, and never in the way of an answer."""

import asyncio
import json
import logging
import time
from contextlib import nullcontext
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection, func, select

from flows import handling
from flows.handling import Swept, sweep_flow
from flows.host import TeacherHost
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
from lectern.run_records import CLASSES, RunRecord, records_of, said_of
from lectern.wire.messages import Cancel
from tests.faults.turns import Quiet
from tests.rows import commit, look
from tests.waiting import async_wait_until, cancelled

DEPLOYMENTS = {name: uuid4() for name in ("booking", "change", "settle", "report", "sweep", "transcode")}


class Prefect:
    """A server that keeps the runs that it is told of; it is away, locked, or refuses some, where a test says so."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}  # by idempotency key
        self.logs: list[dict[str, Any]] = []
        self.tables: list[dict[str, Any]] = []
        self.locked = 0  # how often it will say that its database is
        self.away = False
        self.full: int | str = 0  # the status, or the error of each run, with which it answers while its disk is full
        self.refuses = ""  # a text in the name or the tags of a run
        self.logs_refused_with: int | None = None
        self.refuses_to_end = ""  # a text in the message of a state
        self.fails_for = ""  # a text of a request that it did not foresee
        self.asked = 0

    async def request(self, method: str, path: str, *, content: bytes, **_: Any) -> httpx.Response:
        self.asked += 1
        if self.away:
            raise httpx.ConnectError("away")
        if isinstance(self.full, int) and self.full:
            return self._refused(path, self.full)
        body = json.loads(content)
        if self.fails_for and self.fails_for in json.dumps(body, ensure_ascii=False):
            return self._refused(path, 500)
        if path.endswith("/bulk"):
            return self._answer(path, {"results": self._create(path.split("/")[2], body)})
        if path.endswith("/set_state"):
            its = [one for one in self.runs.values() if one["id"] == path.split("/")[2]]
            if not its:
                return self._refused(path, 404)
            if self.refuses_to_end and self.refuses_to_end in body["state"]["message"]:
                return self._refused(path, 422)
            its[0]["state"] = body["state"]
        elif path == "/logs/":
            if self.logs_refused_with:
                return self._refused(path, self.logs_refused_with)
            self.logs += body
        else:
            self.tables.append(body)
        return self._answer(path, {})

    @staticmethod
    def _answer(path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.Response(200, json=body, request=httpx.Request("POST", f"http://prefect/api{path}"))

    @staticmethod
    def _refused(path: str, status: int) -> httpx.Response:
        request = httpx.Request("POST", f"http://prefect/api{path}")
        raise httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))

    def _create(self, deployment: str, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert len(asked) <= 100
        if self.locked:
            self.locked -= 1
            return [self._made(None, "(sqlite3.OperationalError) database is locked")] * len(asked)
        if self.full:
            return [self._made(None, str(self.full))] * len(asked)
        bad = [bool(self.refuses) and self.refuses in f"{one['name']} {one['tags']}" for one in asked]
        if any(bad):  # one transaction: none of them was created, whatever is said of the others
            return [self._made(None, "no such run") if one else self._made(str(uuid4())) for one in bad]
        for one in asked:
            self.runs.setdefault(one["idempotency_key"], {**one, "id": str(uuid4()), "deployment": deployment})
        return [self._made(self.runs[one["idempotency_key"]]["id"]) for one in asked]

    @staticmethod
    def _made(id_: str | None, error: str | None = None) -> dict[str, Any]:
        return {"flow_run_id": id_, "status": "FAILED" if error else "CREATED", "error": error}

    def ids(self) -> list[int]:
        """Of the inbox, in all runs together."""
        return sorted(
            id_ for one in self.runs.values() for id_ in inbox.parse_id_ranges(one["parameters"].get("inbox_ids", ""))
        )


class Desk:
    """A teacher whose flow a test writes, and its recorder."""

    def __init__(self, host: TeacherHost) -> None:
        self.host = host
        self.prefect = Prefect()
        self.decisions: dict[str, str] = {}  # by class_id; the others proceed
        self.error: Exception | None = None
        self.may_end = asyncio.Event()  # of the flow; a test that looks at one at work clears it
        self.may_end.set()
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
            await self.may_end.wait()
            ids = inbox.parse_id_ranges(inbox_ids)
            kept = await self.host.read_tx(inbox.read, self.host.journal, ids)
            if self.error is not None:
                raise self.error
            names = [json.loads(one.body)["class_id"] for one in kept]
            said = said_of(zip(ids, names, strict=True), [self.line(one) for one in names])

            def write(connection: Connection) -> None:
                now, noted = time.time(), [Event("placed", one, detail="on streamer1") for one in names]
                events.note(connection, self.host.journal, "teacher", noted, now)
                inbox.done(connection, self.host.journal, ids, inbox.Handling(now, said))

            await self.host.write_tx(write)
            return Completed(message="all done")

        return booking

    def _sweep(self) -> Any:
        @flow(name="sweep")
        async def sweep() -> State[None]:
            if self.error is not None:
                raise self.error
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
        await self.may_end.wait()
        if self.error is not None:
            raise self.error

    def book(self, *class_ids: str) -> list[InboxMessage]:
        """The messages come, and are claimed."""
        host, now = self.host, time.time()
        bodies = [json.dumps({"cmd": "order", "class_id": one, "record_id": 7}) for one in class_ids]
        commit(host.engine, inbox.keep, host.journal, [ReceivedMessage("test", "order", one) for one in bodies], now)
        return commit(host.engine, inbox.claim, host.journal, ["order"], limit=5000, lease_s=60, now=now)

    async def handle(self, *class_ids: str) -> None:
        await asyncio.create_task(self.handler.handle("booking", self.book(*class_ids)))

    def unrecorded(self) -> int:
        """How many handled messages no run shows."""
        with reading(self.host.engine) as connection:
            inbox_, which = self.host.journal.inbox, inbox.unshown(self.host.journal)
            return connection.execute(select(func.count()).select_from(inbox_).where(which)).scalar_one()

    def write(self, **values: object) -> None:
        """Change all rows of the inbox."""
        commit(self.host.engine, Connection.execute, self.host.journal.inbox.update().values(**values))


@pytest.fixture
def desk(teacher: TeacherHost) -> Desk:
    teacher.bus = cast("Any", Quiet())
    return Desk(teacher)


async def test_a_booking_is_a_run_of_its_name_with_its_true_times(desk: Desk) -> None:
    """Its log is what happened to its class."""
    before = time.time()
    await desk.handle("c-1")
    assert desk.prefect.asked == 0, "nobody has waited for it"
    await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert (run["name"], run["tags"]) == ("booking c-1", ["class:c-1", "record:7"])
    assert run["parameters"] == {"inbox_ids": "1"}
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
    (table,) = [json.loads(one["data"]) for one in desk.prefect.tables if one["flow_run_id"] == failed["id"]]
    assert [(line["class"], line["decision"], "RuntimeError" in line["detail"]) for line in table] == [
        ("c-4", "failed", True)
    ]
    names = {run["id"]: run["name"] for run in desk.prefect.runs.values()}
    first = {names[line["flow_run_id"]]: line for line in reversed(desk.prefect.logs)}
    assert "refuse 207" in first["booking c-0"]["message"]
    assert first["booking 3 messages"]["message"].startswith("c-1: placed")
    assert ("RuntimeError" in first["booking c-4"]["message"], first["booking c-4"]["level"]) == (True, logging.ERROR)


async def test_a_failed_batch_of_many_is_a_run_for_each_80_classes(desk: Desk) -> None:
    desk.error = RuntimeError("boo")
    await desk.handle(*(f"c-{number}" for number in range(CLASSES + 1)))
    await desk.recorder.tell()
    tags = [[tag for tag in one["tags"] if tag.startswith("class:")] for one in desk.prefect.runs.values()]
    assert [len(one) for one in tags] == [CLASSES, 1]


async def test_the_classes_of_one_message_are_in_one_run() -> None:
    """A result that more classes wait for than a run has room for is in as few runs as can be."""

    def result(id_: int, classes: int) -> HandledMessage:
        said = [{"class": f"c-{id_}-{number}", "decision": "proceed"} for number in range(classes)]
        return HandledMessage(id_, "transcoding", "{}", None, json.dumps(said), 100.0, "a")

    runs = [run.ids for run in records_of("settle", [result(1, 50), result(2, 50), result(3, 30)], "a", 101.0)]
    assert runs == [[1], [2, 3]]
    runs = [run.ids for run in records_of("settle", [result(1, 2 * CLASSES + 1), result(2, 1)], "a", 101.0)]
    assert runs == [[1], [1], [1, 2]]


async def test_a_message_that_is_given_up_is_one_failed_run_more(desk: Desk) -> None:
    """Each of its tries has one of its own."""
    desk.error = RuntimeError("boo")
    kept = desk.book("c-1")
    tries_ = desk.host.settings.inbox_max_attempts
    for _ in range(tries_):
        await asyncio.create_task(desk.handler.handle("booking", kept))
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
    assert refused["state"]["type"] != "COMPLETED"
    assert refused["parameters"] == {"inbox_ids": "18,301"}


async def test_a_class_that_a_sweep_refuses_is_found(desk: Desk) -> None:
    desk.decisions = {"c-9": "refuse", "6666_720P": "TIME_OUT"}
    await asyncio.create_task(desk.handler.sweep())
    await desk.recorder.tell()
    found = {one["state"]["name"]: one for one in desk.prefect.runs.values()}
    assert set(found) == {"Refused", "Completed"}
    assert {"class:c-9", "lectern:refused"} <= set(found["Refused"]["tags"])
    assert found["Completed"]["tags"] == []
    assert found["Completed"]["name"] == f"sweep {desk.host.settings.name}"
    assert found["Completed"]["parameters"] == {}


async def test_a_sweep_that_fails_is_shown_and_one_that_waits_for_a_service_is_not(desk: Desk) -> None:
    for error in (TryAgain("Redis is away"), RuntimeError("boo")):
        desk.error = error
        await asyncio.create_task(desk.handler.sweep())
    await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert (run["name"], run["state"]["type"]) == (f"sweep {desk.host.settings.name}", "FAILED")


async def test_rows_that_are_no_messages_wait_for_nobody(desk: Desk) -> None:
    """No batch gets them, and no count of messages has them."""
    await asyncio.create_task(desk.handler.sweep())
    await desk.runs.without(NewRun("transcode", {}, "transcode 7 240P"))
    with transaction(desk.host.engine) as connection:
        journal = desk.host.journal
        assert inbox.claim(connection, journal, ["work", "sweep"], limit=9, lease_s=1, now=time.time()) == []
        assert (inbox.waiting(connection, journal), inbox.oldest(connection, journal)) == (0, None)


async def test_a_run_that_prefect_refuses_is_set_aside_alone(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """First without its labels, then wholly; the others are shown, although one transaction had said that they were."""
    desk.decisions = {"c-bad": "refuse"}
    await desk.handle("c-1", "c-bad", "c-3")
    desk.prefect.refuses = "c-bad"
    await desk.recorder.tell()
    assert {one["name"] for one in desk.prefect.runs.values()} == {"booking 2 messages", "booking 1 message"}
    await desk.handle("c-5")
    desk.prefect.refuses = "booking"
    await desk.recorder.tell()
    assert "its run cannot be shown: no such run" in caplog.text
    assert desk.unrecorded() == 0
    desk.prefect.refuses = ""
    await desk.handle("c-6")
    await desk.recorder.tell()
    assert "booking c-6" in {one["name"] for one in desk.prefect.runs.values()}


async def test_while_prefect_is_away_nothing_waits_and_all_is_shown_once_later(desk: Desk) -> None:
    desk.prefect.away = True
    working = asyncio.create_task(desk.recorder.run())
    for number in range(30):
        await asyncio.wait_for(desk.handle(f"c-{number}"), 30)
    assert desk.unrecorded() == 30
    desk.prefect.away = False
    await async_wait_until(lambda: desk.unrecorded() == 0, description="all is shown")
    working.cancel()
    assert desk.prefect.ids() == list(range(1, 31))


POSTGRES_FULL = "(sqlalchemy.dialects.postgresql.asyncpg.Error) <class 'asyncpg.exceptions.DiskFullError'>: could not"
FULL = [500, "(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT INTO flow_run]", POSTGRES_FULL]


@pytest.mark.parametrize(
    ("trouble", "waits"),
    [
        *(({"full": one}, True) for one in FULL),
        *(({"logs_refused_with": one}, False) for one in (422, 500)),
        ({"locked": 3}, False),
    ],
    ids=str,
)
async def test_all_is_shown_once_though_prefect_takes_nothing_for_a_while(
    desk: Desk, trouble: dict[str, object], *, waits: bool
) -> None:
    """While its disk is full it answers, and refuses each run: it does not say that the run is bad.

    A database that is locked, inside a 200, is asked again at once. Of log lines, it refuses some each time: on
    PostgreSQL, a NUL in one is an error that it did not foresee.
    """
    await desk.handle("c-1", "c-2")
    await desk.runs.without(NewRun("transcode", {}, "transcode 7 240P"))
    well = {name: vars(desk.prefect)[name] for name in trouble}
    vars(desk.prefect).update(trouble)
    for _ in range(2):
        with pytest.raises(TryAgain) if waits else nullcontext():
            await desk.recorder.tell()
    assert desk.unrecorded() == (3 if waits else 0)
    vars(desk.prefect).update(well)
    await desk.recorder.tell()
    assert {one["name"] for one in desk.prefect.runs.values()} == {"booking 2 messages", "transcode 7 240P"}
    assert desk.unrecorded() == 0
    assert "class:c-1" in str(desk.prefect.runs), "with its labels"


async def test_a_run_whose_text_prefect_did_not_foresee_holds_up_no_other(desk: Desk) -> None:
    """It answers 500 then, too: the run is shown without its labels, and the text in plain characters."""
    await desk.handle("c-1")
    desk.error, desk.prefect.fails_for = TryAgain("\N{SNOWMAN}"), "\N{SNOWMAN}"
    with pytest.raises(TryAgain):
        await desk.runs.without(NewRun("transcode", {}, "transcode 7 240P"))
    await desk.recorder.tell()
    messages = {one["name"]: one["state"]["message"] for one in desk.prefect.runs.values()}
    assert messages["transcode 7 240P"].startswith(r"\u2603; handled ")
    assert (set(messages), desk.unrecorded()) == ({"booking c-1", "transcode 7 240P"}, 0)


async def test_the_end_of_a_run_waits_while_the_disk_of_prefect_is_full(desk: Desk) -> None:
    await desk.runs.without(NewRun("transcode", {}, "transcode 7 240P", key="k-1"))
    desk.prefect.fails_for = "force"
    with pytest.raises(TryAgain):
        await desk.recorder.tell()
    assert desk.unrecorded() == 1
    desk.prefect.fails_for = ""
    await desk.recorder.tell()
    assert desk.unrecorded() == 0


@pytest.mark.parametrize("asked", [False, True])
async def test_what_a_killed_process_did_not_show_is_shown_once(desk: Desk, *, asked: bool) -> None:
    """Also if Prefect had made its runs, which could not be noted; what was handled since does not change them."""
    (early,) = desk.book("c-early")
    await desk.handle(*(f"c-{number}" for number in range(100)))
    if asked:
        await desk.recorder.tell()
        desk.write(recorded_at=None)
    desk.restart()
    await asyncio.create_task(desk.handler.handle("booking", [early]))
    await desk.recorder.tell()
    assert desk.prefect.ids() == list(range(1, 102))
    assert len(desk.prefect.runs) == (3 if asked else 2)
    assert desk.unrecorded() == 0


async def test_what_is_shown_a_minute_late_is_marked(desk: Desk) -> None:
    await desk.handle("c-1")
    desk.write(handled_at=time.time() - 61)
    await desk.recorder.tell()
    await desk.handle("c-2")
    await desk.recorder.tell()
    marked = {one["name"]: "lectern:shown-late" in one["tags"] for one in desk.prefect.runs.values()}
    assert marked == {"booking c-1": True, "booking c-2": False}


async def test_all_of_a_storm_is_shown_however_much_of_it_waits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "AT_ONCE", 10)
    await desk.handle(*(f"c-{number}" for number in range(35)))
    await desk.recorder.tell()
    assert desk.prefect.ids() == list(range(1, 36))


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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm has thousands of them, and nobody finds a class without its run."""
    shown: list[list[int]] = []
    detail = desk.recorder._detail

    async def goes_on(record: RunRecord) -> None:
        shown.append(desk.prefect.ids())
        if len(shown) == 1:
            await desk.handle("c-2")
        await detail(record)

    monkeypatch.setattr(desk.recorder, "_detail", goes_on)
    await desk.handle("c-1")
    await desk.recorder.tell()
    assert shown == [[1], [1, 2]]


async def test_messages_that_wait_for_a_service_hold_up_nothing_that_is_shown(desk: Desk) -> None:
    """Redis is away: many wait, and none is handled."""
    await desk.handle("c-1")
    desk.book(*(f"d-{number}" for number in range(100)))
    await desk.recorder.tell()
    assert desk.prefect.ids() == [1]


async def test_a_retry_acts_only_on_messages_of_its_own_flow(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """After a restore the ids of an old report's run are bookings: they are left alone."""
    desk.book("c-1", "c-2")
    commit(desk.host.engine, inbox.keep, desk.host.journal, [ReceivedMessage("test", "prepared", "{}")], time.time())
    assert await desk.runs._own("report", {"inbox_ids": "1-3,99"}) == {"inbox_ids": "3"}
    assert await desk.runs._own("booking", {"inbox_ids": "1-3"}) == {"inbox_ids": "1-2"}
    assert "3 of its 4 messages are not its own, or gone" in caplog.text


async def test_a_run_that_somebody_began_shows_its_messages_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not shown once more by the recorder, whether they can be read or not."""
    monkeypatch.setattr(handling, "FlowRunContext", SimpleNamespace(get=lambda: "a run"))
    cancel = json.dumps({"cmd": "cancel", "class_id": "c-1"})
    with transaction(desk.host.engine) as connection:
        arrived = [ReceivedMessage("test", "cancel", body) for body in (cancel, "{}")]
        inbox.keep(connection, desk.host.journal, arrived, time.time())
        came = [handling.came(one, (Cancel,)) for one in inbox.read(connection, desk.host.journal, [1, 2])]
    await handling.handled(desk.host, came, lambda *_: None)
    assert look(desk.host.engine, inbox.waiting, desk.host.journal) == 0
    assert desk.unrecorded() == 0


async def test_a_failed_state_counts_a_try(desk: Desk) -> None:
    """And the message waits for the next one."""

    @flow(name="booking")
    async def fails(inbox_ids: str) -> State[None]:
        return Failed(message=f"1 of 1 failed: {inbox_ids}")

    desk.handler._flows = {"booking": fails}
    await desk.handle("c-1")
    assert [one.tries for one in look(desk.host.engine, inbox.read, desk.host.journal, [1])] == [1]


# -- what is said of each message --------------------------------------------------------------------------------------


async def test_each_line_of_a_table_belongs_to_its_message() -> None:
    """The classes that a result has decided, to the result; the second airing of a class, to its booking."""
    table = [{"class": one, "decision": "proceed"} for one in ("c-1", "c-2", "7_720P", "c-3", "8_720P")]
    said = said_of([(1, None), (2, None)], table)
    assert {id_: [line["class"] for line in json.loads(lines)] for id_, lines in said.items()} == {
        1: ["c-1", "c-2", "7_720P"],
        2: ["c-3", "8_720P"],
    }
    table = [{"class": one, "decision": "proceed"} for one in ("c-1", "c-1~2", "c-2", "c-1")]
    said = said_of([(1, "c-1"), (2, "c-2"), (3, "c-1"), (4, "c-4")], table)
    assert {id_: [line["class"] for line in json.loads(lines)] for id_, lines in said.items()} == {
        1: ["c-1", "c-1~2"],
        2: ["c-2"],
        3: ["c-1"],
    }


async def test_the_classes_of_a_result_are_found_by_runs_of_its_name(desk: Desk) -> None:
    """However many waited for it; a Retry of each does the result again."""
    names = [f"c-{number}" for number in range(100)]
    said = said_of([(1, None)], [{"class": one, "decision": "proceed"} for one in (*names, "7_720P")])
    body = json.dumps({"cmd": "transcoding", "record_id": 7, "video_resolution": "720P"})
    with transaction(desk.host.engine) as connection:
        inbox.keep(connection, desk.host.journal, [ReceivedMessage("test", "transcoding", body)], time.time())
        inbox.done(connection, desk.host.journal, [1], inbox.Handling(time.time(), said))
    await desk.recorder.tell()
    runs = list(desk.prefect.runs.values())
    assert [(one["name"], one["parameters"]) for one in runs] == [("settle 7 720P", {"inbox_ids": "1"})] * 2
    assert {f"class:{one}" for one in names} <= {tag for one in runs for tag in one["tags"]}


# -- work without a run ------------------------------------------------------------------------------------------------


async def test_work_that_was_done_without_a_run_has_one_afterwards(desk: Desk) -> None:
    """It failed while Prefect took no run: without one, nobody could try it again in the UI. A restart loses none."""
    desk.error, desk.prefect.away = TryAgain("404"), True
    with pytest.raises(TryAgain):
        await desk.runs.without(NewRun("transcode", {"record_id": 7}, "transcode 7 240P", ["record:7"]))
    await desk.recorder.close(1)
    assert desk.prefect.runs == {}
    desk.restart()
    desk.prefect.away = False
    for _ in range(2):
        await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert (run["name"], run["state"]["type"], run["parameters"]) == ("transcode 7 240P", "FAILED", {"record_id": 7})
    assert set(run["tags"]) == {"record:7", "lectern:without-run"}
    assert run["state"]["message"].startswith("404; handled ")
    assert run["state"]["message"].endswith(", without a run because Prefect let none begin")


async def test_work_without_a_run_that_prefect_refuses_to_show_hides_no_other(desk: Desk) -> None:
    for name in ("one", "odd", "other"):
        await desk.runs.without(NewRun("transcode", {}, name))
    desk.prefect.refuses = "odd"
    await desk.recorder.tell()
    assert sorted(one["name"] for one in desk.prefect.runs.values()) == ["one", "other"]


async def test_work_without_a_run_that_is_cut_off_is_not_shown(desk: Desk) -> None:
    """The next try does it again."""
    desk.may_end.clear()
    working = asyncio.create_task(desk.runs.without(NewRun("transcode", {}, "transcode 7 240P")))
    await asyncio.sleep(0)
    await cancelled(working)
    assert desk.unrecorded() == 0


@pytest.mark.parametrize("refused", [False, True])
async def test_a_run_that_was_not_heard_of_shows_what_was_done_without_it(desk: Desk, *, refused: bool) -> None:
    """Prefect had created it: it is not done a second time, and it does not look alive for ever."""
    run = NewRun("transcode", {}, "transcode 7 240P", key="k-1")
    desk.runs.created.unheard.append("k-1")
    made: dict[str, Any] = {"id": str(uuid4()), "deployment": str(DEPLOYMENTS["transcode"]), "parameters": {}}
    made |= {"tags": [], "state": {"type": "PENDING"}}
    desk.prefect.runs["k-1"] = made
    await desk.runs.without(run)
    assert not desk.runs.created.unheard
    desk.prefect.refuses_to_end = "done" if refused else ""
    await desk.recorder.tell()
    assert (made["state"]["type"], len(desk.prefect.runs)) == ("PENDING" if refused else "COMPLETED", 1)
    assert desk.unrecorded() == 0, "one that Prefect refuses to end holds up nothing"
