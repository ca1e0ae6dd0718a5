"""What was handled is shown afterwards: once, found by every class, and never in the way of an answer."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Failed
from sqlalchemy import select

from flows import show, tries
from flows.handling import PUT_BACK
from flows.host import Host
from flows.new_run import NewRun
from flows.resident import record, run_log
from flows.resident.handler import Handler
from flows.resident.record import Recorder
from flows.resident.runs import ResidentRuns
from lectern.effects.rows import inbox
from lectern.effects.rows.inbox import Arrived
from lectern.effects.rows.tables.engine import open_database, reading, transaction
from lectern.errors import TryAgain
from lectern.facts import Kept
from lectern.runs.handled import Handled, of_batch
from lectern.runs.labels import CLASSES
from lectern.settings import TeacherSettings
from tests.faults import hosts
from tests.fundamentals.test_tries import Silence
from tests.waiting import async_wait_until

pytestmark = pytest.mark.asyncio
DEPLOYMENTS = {name: uuid4() for name in ("booking", "change", "settle", "report", "sweep", "transcode")}


class Prefect:
    """A server that keeps the runs that it is told of; it is away, locked, or refuses some, where a test says so."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}  # by idempotency key
        self.logs: list[dict[str, Any]] = []
        self.tables: list[dict[str, Any]] = []
        self.locked = 0  # how often it will say that its database is
        self.away = False
        self.refuses = ""  # a text in the name or the tags of a run
        self.logs_refused_with: int | None = None
        self.refuses_to_end = ""  # a text in the message of a state
        self.tags_refused_with: int | None = None
        self.created_with: list[list[str]] = []  # the tags of each run
        self.deployed_with: list[str] = []  # the tags of its deployments, which each run gets
        self.asked = 0

    async def request(self, method: str, path: str, *, content: bytes, **_: Any) -> httpx.Response:
        self.asked += 1
        if self.away:
            raise httpx.ConnectError("away")
        body = json.loads(content)
        if path.endswith("/bulk"):
            return self._answer(path, {"results": self._create(path.split("/")[2], body)})
        if path.endswith("/set_state"):
            its = [one for one in self.runs.values() if one["id"] == path.split("/")[2]]
            if not its:
                return self._refused(path, 404)
            if self.refuses_to_end and self.refuses_to_end in body["state"]["message"]:
                return self._refused(path, 422)
            its[0]["state"] = body["state"]
        elif method == "PATCH":
            await self._patch(path, body)
        elif path == "/logs/":
            if self.logs_refused_with:
                return self._refused(path, self.logs_refused_with)
            self.logs += body
        else:
            self.tables.append(body)
        return self._answer(path, {})

    async def _patch(self, path: str, body: dict[str, Any]) -> None:
        its = [one for one in self.runs.values() if one["id"] == path.split("/")[2]]
        if not its or self.tags_refused_with:
            self._refused(path, self.tags_refused_with if its and self.tags_refused_with else 404)
        its[0]["tags"] = body["tags"]

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
            said = {"flow_run_id": None, "status": "FAILED", "error": "(sqlite3.OperationalError) database is locked"}
            return [said] * len(asked)
        bad = [bool(self.refuses) and self.refuses in f"{one['name']} {one['tags']}" for one in asked]
        if any(bad):  # one transaction: none of them was created, whatever is said of the others
            return [
                {"flow_run_id": None, "status": "FAILED", "error": "no such run"}
                if one
                else {"flow_run_id": str(uuid4()), "status": "CREATED", "error": None}
                for one in bad
            ]
        for one in asked:
            self.created_with.append(one["tags"])
            more = {"id": str(uuid4()), "deployment": deployment, "tags": [*one["tags"], *self.deployed_with]}
            self.runs.setdefault(one["idempotency_key"], {**one, **more})
        return [
            {"flow_run_id": self.runs[one["idempotency_key"]]["id"], "status": "CREATED", "error": None}
            for one in asked
        ]

    async def read_flow_runs(self, *, flow_run_filter: Any = None, **_: Any) -> list[FlowRun]:
        if self.away:
            raise httpx.ConnectError("away")
        wanted = flow_run_filter.id.any_ if flow_run_filter is not None else None
        return [
            FlowRun(
                id=UUID(one["id"]),
                flow_id=uuid4(),
                deployment_id=UUID(one["deployment"]),
                parameters=one["parameters"],
                tags=one["tags"],
            )
            for one in self.runs.values()
            if wanted is None or UUID(one["id"]) in wanted
        ]

    def ids(self) -> list[int]:
        """Of the inbox, in all runs together."""
        return sorted(id_ for one in self.runs.values() for id_ in inbox.ids_of(one["parameters"].get("inbox_ids", "")))


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that an earlier process has asked for is under way."""
    monkeypatch.setattr(record, "SETTLED_S", 0.0)


class Desk:
    """A teacher whose flow a test writes, and its recorder."""

    def __init__(self, host: Host[TeacherSettings]) -> None:
        self.host = host
        self.prefect = Prefect()
        self.decisions: dict[str, str] = {}  # by class_id; the others proceed
        self.error: Exception | None = None
        self.may_end = asyncio.Event()  # of the flow; a test that looks at one at work clears it
        self.may_end.set()
        self.restart()

    def restart(self) -> None:
        """The next process."""
        self.runs = ResidentRuns(cast("PrefectClient", self.prefect), {"transcode": cast("Any", self)})
        self.runs.host = self.host
        self.runs.created.know(DEPLOYMENTS)
        self.recorder = self.runs.recorder = Recorder(self.host, self.runs)
        self.handler = Handler(self.host, {"booking": self._flow(), "sweep": self._flow()}, self.recorder)

    def _flow(self) -> Any:
        @flow(name="booking")
        async def booking(inbox_ids: str = "") -> State[None]:
            await self.may_end.wait()
            ids = inbox.ids_of(inbox_ids)
            kept = await self.host.look(inbox.read, self.host.journal, ids)
            if self.error is not None:
                raise self.error
            names = [json.loads(one.body)["class_id"] for one in kept] or list(self.decisions)
            rows = [
                {"class": one, "decision": self.decisions.get(one, "proceed"), "code": "", "detail": ""}
                for one in names
            ]
            await show.table("booking-batch", rows, "What became of each")
            logging.getLogger("lectern").warning("%s: looked at", names[0])
            await self.host.commit(inbox.done, self.host.journal, ids)
            return Completed(message="all done")

        return booking

    async def fn(self, **_: Any) -> None:
        """The work of a transcoding, which can be done without a run."""
        await self.may_end.wait()
        if self.error is not None:
            raise self.error

    def book(self, *class_ids: str) -> list[Kept]:
        """The messages come, and are claimed."""
        with transaction(self.host.engine) as connection:
            bodies = [json.dumps({"cmd": "order", "class_id": one, "record_id": 7}) for one in class_ids]
            inbox.keep(connection, self.host.journal, [Arrived("test", "order", body) for body in bodies], time.time())
            return inbox.claim(connection, self.host.journal, ["order"], limit=5000, lease_s=60, now=time.time())

    async def handle(self, *class_ids: str, flow: str = "booking") -> Handled:
        """One batch."""
        batch = Handled(flow, self.book(*class_ids) if class_ids else ())
        await asyncio.create_task(self.handler.handle(batch))
        return batch

    def unrecorded(self) -> int:
        """How many handled messages no run shows."""
        with reading(self.host.engine) as connection:
            return len(inbox.unrecorded(connection, self.host.journal, 100_000))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    engine = open_database(f"sqlite:///{hosts.database('teacher', tmp_path / 'teacher.db')}")
    host = hosts.teacher(engine)
    host.bus = cast("Any", Silence())
    run_log.set_up()
    yield Desk(host)
    engine.dispose()


async def test_a_booking_is_a_run_of_its_name_with_its_true_times(desk: Desk) -> None:
    before = time.time()
    batch = await desk.handle("c-1")
    assert desk.prefect.asked == 0, "nobody has waited for it"
    await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert (run["name"], run["tags"]) == ("booking c-1", ["class:c-1", "record:7"])
    assert run["parameters"] == {"inbox_ids": "1"}
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Completed")
    assert run["state"]["message"].startswith("1 proceed; handled 2")
    assert before - 1 <= batch.began <= (batch.ended or 0) <= time.time()
    assert set(run["labels"]) == {"lectern.began", "lectern.ended"}
    (line,) = desk.prefect.logs
    assert (line["message"], line["flow_run_id"]) == ("c-1: looked at", run["id"])
    (table,) = desk.prefect.tables
    assert [row["class"] for row in json.loads(table["data"])] == ["c-1"]
    assert desk.unrecorded() == 0
    await desk.recorder.tell()
    assert len(desk.prefect.runs) == 1


async def test_batches_that_went_well_are_one_run(desk: Desk) -> None:
    """And one that failed stands alone, with what it did not handle."""
    await desk.handle("c-1", "c-2")
    await desk.handle("c-3")
    desk.error = RuntimeError("boo")
    await desk.handle("c-4")
    await desk.recorder.tell()
    found = {one["name"]: one["state"]["type"] for one in desk.prefect.runs.values()}
    assert found == {"booking 3 messages": "COMPLETED", "booking c-4": "FAILED"}
    (failed,) = [one for one in desk.prefect.runs.values() if one["state"]["type"] == "FAILED"]
    assert "RuntimeError" in failed["state"]["message"]
    assert "RuntimeError: boo" in "".join(line["message"] for line in desk.prefect.logs), "its traceback is in its log"


async def test_the_log_of_a_run_that_failed_or_was_refused_says_why_and_no_other_gets_a_line_for_it(desk: Desk) -> None:
    """Nobody has logged anything, and the UI opens such a run on its log."""
    refused = Handled("booking", desk.book("c-1"), rows=[{"class": "c-1", "decision": "refuse", "code": 207}])
    done = Handled("booking", desk.book("c-2"), rows=[{"class": "c-2", "decision": "proceed"}])
    failed = Handled("booking", desk.book("c-3"), failed="the database is locked")
    for batch in (refused, done, failed):
        with desk.recorder.showing(batch):
            batch.ended = time.time()
    await desk.recorder.tell()
    names = {run["id"]: run["name"] for run in desk.prefect.runs.values()}
    said = {names[line["flow_run_id"]]: (line["message"], line["level"]) for line in desk.prefect.logs}
    assert said.keys() == {"booking c-1", "booking c-3"}
    assert "refuse 207" in said["booking c-1"][0]
    assert ("the database is locked" in said["booking c-3"][0], said["booking c-3"][1]) == (True, logging.ERROR)


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


async def test_the_tags_of_many_classes_are_set_after_their_run_was_created(desk: Desk) -> None:
    """Prefect makes an event of each run, whose cost grows with its tags; of a change of tags it makes none."""
    desk.prefect.deployed_with = [desk.host.settings.queue]
    await desk.handle(*(f"c-{number}" for number in range(CLASSES)), "c-last")
    await desk.recorder.tell()
    many, one = (set(run["tags"]) for run in desk.prefect.runs.values())
    assert desk.prefect.created_with == [["lectern:tags-follow"], ["class:c-last", "record:7"]]
    assert many == {*(f"class:c-{number}" for number in range(CLASSES)), "record:7", desk.host.settings.queue}
    assert one == {"class:c-last", "record:7", desk.host.settings.queue}


async def test_tags_that_a_person_gave_a_deployment_stay_on_runs_that_get_theirs_later(desk: Desk) -> None:
    """Prefect gives each run the tags of its deployment; a change of its tags replaces all of them."""
    desk.prefect.deployed_with = ["prod"]
    await desk.handle(*(f"c-{number}" for number in range(30)))
    await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert {"prod", "class:c-29"} <= set(run["tags"])
    assert "lectern:tags-follow" not in run["tags"]


async def test_a_run_keeps_its_tags_to_come_while_prefect_is_away(desk: Desk) -> None:
    """Its messages count as shown only when all of it can be found."""
    desk.prefect.tags_refused_with = 503
    await desk.handle(*(f"c-{number}" for number in range(30)))
    with pytest.raises(httpx.HTTPStatusError):
        await desk.recorder.tell()
    assert (len(desk.prefect.runs), desk.unrecorded()) == (1, 30)
    desk.prefect.tags_refused_with = None
    await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert ("class:c-29" in run["tags"], "lectern:tags-follow" in run["tags"]) == (True, False)
    assert (desk.prefect.ids(), desk.unrecorded()) == (list(range(1, 31)), 0)


async def test_tags_that_prefect_refuses_hold_up_no_other_run(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.prefect.tags_refused_with = 422
    await desk.handle(*(f"c-{number}" for number in range(200)))
    await desk.recorder.tell()
    assert "is not found by its classes" in caplog.text
    assert desk.unrecorded() == 0


@pytest.mark.parametrize("failed", [False, True])
async def test_a_run_whose_process_died_before_its_tags_gets_them_after_the_next_start(
    desk: Desk, *, failed: bool
) -> None:
    """It is shown once, as what it was, and found by all its classes; those of a failed batch are not handled yet."""
    desk.error = RuntimeError("boo") if failed else None
    desk.prefect.tags_refused_with = 503
    names = [f"c-{number}" for number in range(30)]
    await desk.handle(*names)
    with pytest.raises(httpx.HTTPStatusError):
        await desk.recorder.tell()
    desk.restart()
    desk.prefect.tags_refused_with = None
    await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert run["state"]["name"] == ("Failed" if failed else "Completed")
    assert set(run["tags"]) == {*(f"class:{one}" for one in names), "record:7"}
    assert desk.unrecorded() == 0


async def test_classes_that_no_message_names_are_tagged_at_once(desk: Desk) -> None:
    """After a death nobody could read their names again."""
    desk.decisions = {f"c-{number}": "refuse" for number in range(40)}
    await desk.handle(flow="sweep")
    await desk.recorder.tell()
    assert [len(tags) for tags in desk.prefect.created_with] == [41]


async def test_a_class_that_a_sweep_refuses_is_found(desk: Desk) -> None:
    desk.decisions = {"c-9": "refuse", "6666_720P": "TIME_OUT"}
    await desk.handle(flow="sweep")
    await desk.recorder.tell()
    found = {one["state"]["name"]: one for one in desk.prefect.runs.values()}
    assert set(found) == {"Refused", "Completed"}
    assert {"class:c-9", "lectern:refused"} <= set(found["Refused"]["tags"])
    assert found["Completed"]["tags"] == []
    assert found["Completed"]["name"] == f"sweep {desk.host.settings.name}"


async def test_a_locked_database_inside_a_200_is_asked_again_with_the_same_keys(desk: Desk) -> None:
    desk.prefect.locked = 3
    await desk.handle("c-1")
    await desk.recorder.tell()
    assert desk.prefect.ids() == [1]
    assert desk.prefect.asked >= 4


async def test_a_run_that_prefect_refuses_is_set_aside_alone(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """First without its labels, then wholly; the others are shown, although one transaction had said that they were."""
    desk.error = RuntimeError("boo")
    for name in ("c-1", "c-bad", "c-3"):
        await desk.handle(name)
    desk.prefect.refuses = "c-bad"
    await desk.recorder.tell()
    assert {one["name"] for one in desk.prefect.runs.values()} == {"booking c-1", "booking 1 message", "booking c-3"}
    await desk.handle("c-5")
    desk.prefect.refuses = "booking"
    await desk.recorder.tell()
    assert "its run cannot be shown: no such run" in caplog.text
    desk.prefect.refuses = ""
    desk.error = None
    await desk.handle("c-6")
    await desk.recorder.tell()
    assert "booking c-6" in {one["name"] for one in desk.prefect.runs.values()}


async def test_while_prefect_is_away_nothing_waits_and_all_is_shown_once_later(desk: Desk) -> None:
    desk.prefect.away = True
    working = asyncio.create_task(desk.recorder.run())
    for number in range(30):
        await asyncio.wait_for(desk.handle(f"c-{number}"), 5)
    assert desk.unrecorded() == 30
    desk.prefect.away = False
    for _ in range(200):
        await asyncio.sleep(0.1)
        if desk.unrecorded() == 0:
            break
    working.cancel()
    assert desk.prefect.ids() == list(range(1, 31))


@pytest.mark.parametrize("noted", [False, True])
async def test_what_a_killed_process_did_not_show_is_shown_late_and_once(desk: Desk, *, noted: bool) -> None:
    """Also where it had shown some of it, and could not note that any more."""
    await desk.handle("c-1", "c-2")
    if noted:
        await desk.recorder.tell()
        with transaction(desk.host.engine) as connection:
            connection.execute(desk.host.journal.inbox.update().values(recorded_at=None))
    await desk.handle("c-3")
    desk.restart()
    await desk.handle("c-4")  # the new process has its own work meanwhile
    await desk.recorder.tell()
    await desk.recorder.tell()
    assert desk.prefect.ids() == [1, 2, 3, 4]
    late = [one for one in desk.prefect.runs.values() if "lectern:shown-late" in one["tags"]]
    assert {tag for one in late for tag in one["tags"]} >= {"class:c-3"}
    assert ("class:c-1" in {tag for one in late for tag in one["tags"]}) is not noted
    assert desk.unrecorded() == 0


async def test_all_of_a_storm_is_shown_however_much_of_it_waits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had no room in memory is shown from the inbox, however many messages came after it."""
    monkeypatch.setattr(record, "KEPT", 0)
    monkeypatch.setattr(record, "BACK", 10)
    for number in range(35):
        await desk.handle(f"c-{number}")
    monkeypatch.setattr(record, "KEPT", 1000)
    working = asyncio.create_task(desk.recorder.run())
    for _ in range(200):
        await asyncio.sleep(0.1)
        if desk.unrecorded() == 0:
            break
    working.cancel()
    assert desk.prefect.ids() == list(range(1, 36))


async def test_a_run_that_the_killed_process_had_asked_for_may_come_after_the_next_start(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for before what it shows is shown late."""
    await desk.handle("c-1")
    desk.recorder._lay_out()
    (page,) = desk.recorder._pages
    monkeypatch.setattr(record, "SETTLED_S", 600.0)
    desk.restart()
    await desk.recorder.tell()
    desk.prefect._create(str(DEPLOYMENTS["booking"]), [page.request()])
    monkeypatch.setattr(desk.recorder, "_settled_at", 0.0)  # it has waited long enough
    await desk.recorder.tell()
    assert desk.prefect.ids() == [1]
    assert desk.unrecorded() == 0


async def test_a_host_that_dies_during_a_look_back_is_looked_for_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it handled was not in the inbox yet when that was read."""
    await desk.handle("c-1")
    desk.restart()
    read = inbox.unrecorded

    def read_first(*given: Any) -> list[Kept]:
        found = read(*given)
        inbox.keep(given[0], desk.host.journal, [Arrived("test", "order", '{"class_id": "c-2"}')], 1.0)
        inbox.done(given[0], desk.host.journal, [2])
        monkeypatch.setattr(inbox, "unrecorded", read)
        desk.recorder.look_back()
        return found

    monkeypatch.setattr(inbox, "unrecorded", read_first)
    await desk.recorder.tell()
    assert desk.prefect.ids() == [1]
    await desk.recorder.tell()
    assert desk.prefect.ids() == [1, 2]


async def test_a_batch_at_work_is_shown_while_it_is_and_ends_then(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "LONG_S", 0.2)
    desk.may_end.clear()
    working = asyncio.create_task(desk.recorder.run())
    handling = asyncio.create_task(desk.handle("c-1"))
    await until_shown(desk, ["Running"])
    desk.may_end.set()
    await until_shown(desk, ["Completed"])
    await handling
    working.cancel()
    assert len(desk.prefect.runs) == 1
    assert desk.runs.shown == set()


async def test_a_batch_whose_run_was_deleted_while_it_was_at_work_is_shown_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deleted it, or Prefect's database was lost; nothing behind it waits for that."""
    monkeypatch.setattr(record, "LONG_S", 0.0)
    desk.may_end.clear()
    handling = asyncio.create_task(desk.handle("c-1"))
    await until_at_work(desk)
    await desk.recorder.tell()
    assert [one["state"]["name"] for one in desk.prefect.runs.values()] == ["Running"]
    desk.prefect.runs.clear()
    desk.may_end.set()
    await handling
    await desk.recorder.tell()
    assert [one["state"]["name"] for one in desk.prefect.runs.values()] == ["Completed"]
    assert (desk.prefect.ids(), desk.unrecorded(), desk.runs.shown) == ([1], 0, set())


@pytest.mark.parametrize("text", ["RuntimeError", "handled"])
async def test_an_end_that_prefect_refuses_holds_up_no_other_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """It is ended without its reason if Prefect takes that; if not, the runs behind it are shown all the same."""
    monkeypatch.setattr(record, "LONG_S", 0.0)
    desk.error = RuntimeError("an odd reason")
    desk.may_end.clear()
    handling = asyncio.create_task(desk.handle("c-1"))
    await until_at_work(desk)
    await desk.recorder.tell()
    desk.prefect.refuses_to_end = text
    desk.may_end.set()
    await handling
    desk.error = None
    await desk.handle("c-2")
    await desk.recorder.tell()
    states = {one["name"]: one["state"]["name"] for one in desk.prefect.runs.values()}
    assert states == {"booking c-1": "Failed" if text == "RuntimeError" else "Running", "booking c-2": "Completed"}
    assert "booking c-1: its run cannot be shown" in caplog.text
    assert desk.runs.shown == set()


async def test_a_batch_that_was_shown_at_work_and_is_interrupted_is_shown_as_that(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its run would be *Running* until the process ends; what handles its messages later is another run."""
    monkeypatch.setattr(record, "LONG_S", 0.0)
    desk.error = TryAgain("Redis is away")
    desk.may_end.clear()
    handling = asyncio.create_task(desk.handle("c-1"))
    await until_at_work(desk)
    await desk.recorder.tell()
    assert [one["state"]["name"] for one in desk.prefect.runs.values()] == ["Running"]
    desk.may_end.set()
    await handling
    await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert run["state"]["name"] == PUT_BACK
    assert "Redis is away" in run["state"]["message"]
    assert desk.runs.shown == set()
    desk.error = None
    with transaction(desk.host.engine) as connection:
        kept = inbox.claim(connection, desk.host.journal, ["order"], limit=10, lease_s=60, now=time.time() + 60)
    await asyncio.create_task(desk.handler.handle(Handled("booking", kept)))
    await desk.recorder.tell()
    assert [one["state"]["name"] for one in desk.prefect.runs.values()] == [PUT_BACK, "Completed"]
    assert desk.unrecorded() == 0


async def test_a_batch_whose_failure_cannot_be_noted_is_shown_as_put_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is locked for so long that nothing is put back; its messages are tried when their lease ends."""

    async def locked(*_: Any, **__: Any) -> set[int]:
        raise RuntimeError("database is locked")

    monkeypatch.setattr(record, "LONG_S", 0.0)
    monkeypatch.setattr(tries, "after", locked)
    desk.error = TryAgain("the database is away")
    desk.may_end.clear()
    handling = asyncio.create_task(desk.handle("c-1"))
    await until_at_work(desk)
    await desk.recorder.tell()
    desk.may_end.set()
    await handling
    await desk.recorder.tell()
    assert [one["state"]["name"] for one in desk.prefect.runs.values()] == [PUT_BACK]
    assert desk.runs.shown == set()


async def test_in_a_storm_the_answers_come_first(desk: Desk) -> None:
    """Prefect would take what they need of the machine; it is all shown when the storm is over."""
    await desk.recorder.tell()
    await desk.handle(*(f"c-{number}" for number in range(300)))
    desk.may_end.clear()
    storm = asyncio.create_task(desk.handle(*(f"d-{number}" for number in range(300))))
    await until_at_work(desk)
    telling = asyncio.create_task(desk.recorder.tell())
    await asyncio.sleep(0.2)  # it would have asked by now
    desk.may_end.set()
    await storm
    assert desk.prefect.asked == 0
    await telling
    assert (desk.prefect.ids(), desk.unrecorded()) == (list(range(1, 601)), 0)


async def test_a_storm_that_lasts_is_shown_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "PATIENCE_S", 0.1)
    await desk.recorder.tell()
    await desk.handle(*(f"c-{number}" for number in range(300)))
    desk.may_end.clear()
    storm = asyncio.create_task(desk.handle(*(f"d-{number}" for number in range(300))))
    await until_at_work(desk)
    await desk.recorder.tell()
    assert not storm.done()
    assert desk.prefect.ids() == list(range(1, 301))
    desk.may_end.set()
    await storm


async def test_what_a_storm_leaves_in_memory_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its messages only what will be shown is kept: a body can have 64 KiB."""
    monkeypatch.setattr(record, "HELD", 4)
    for first in range(0, 12, 2):
        await desk.handle(f"c-{first}", f"c-{first + 1}")
        assert sum(len(one.kept) for one in desk.recorder._ended) <= record.HELD
    await desk.recorder.tell()
    assert desk.prefect.ids() == list(range(1, 13))


async def until_at_work(desk: Desk) -> None:
    """Wait for a batch that is at work."""
    await async_wait_until(lambda: desk.recorder._at_work, description="a batch is at work")


async def until_shown(desk: Desk, states: list[str]) -> None:
    """Wait until Prefect has runs in these states, and no others."""
    await async_wait_until(
        lambda: [one["state"]["name"] for one in desk.prefect.runs.values()] == states,
        description=f"{states} are shown",
    )


@pytest.mark.parametrize("status", [422, 500])
async def test_log_lines_that_prefect_refuses_keep_no_run_from_being_shown(desk: Desk, status: int) -> None:
    """On PostgreSQL, a NUL in a line is an error that Prefect did not foresee: 500, also the next time."""
    desk.prefect.logs_refused_with = status
    await desk.handle("c-1")
    await desk.recorder.tell()
    assert (desk.prefect.ids(), desk.unrecorded(), desk.prefect.logs) == ([1], 0, [])


async def test_memory_is_bounded_and_nothing_is_lost_by_that(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "KEPT", 3)
    monkeypatch.setattr(record, "BACK", 2)  # fewer than have no room
    await desk.recorder.tell()
    desk.prefect.away = True
    desk.error = RuntimeError("boo")
    for number in range(3):
        await desk.handle(f"bad-{number}")
    desk.error = None
    for number in range(5):
        await desk.handle(f"c-{number}")
    desk.recorder._lay_out()
    assert len(desk.recorder._pages) == 3
    desk.prefect.away = False
    for _ in range(5):
        await desk.recorder.tell()
    shown = {tag for one in desk.prefect.runs.values() for tag in one["tags"] if tag.startswith("class:c-")}
    assert shown == {f"class:c-{number}" for number in range(5)}
    assert desk.unrecorded() == 0


async def test_a_retry_acts_only_on_messages_of_its_own_flow(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """After a restore the ids of an old report's run are bookings: they are left alone."""
    desk.book("c-1", "c-2")
    with transaction(desk.host.engine) as connection:
        report = Arrived("test", "prepared", "{}")
        inbox.keep(connection, desk.host.journal, [report], time.time())
    assert await desk.runs._own("report", {"inbox_ids": "1-3,99"}) == {"inbox_ids": "3"}
    assert await desk.runs._own("booking", {"inbox_ids": "1-3"}) == {"inbox_ids": "1-2"}
    assert "3 of its 4 messages are not its own, or gone" in caplog.text


async def test_a_run_that_somebody_began_shows_its_messages_itself(desk: Desk) -> None:
    """They are not shown once more after the next start."""
    desk.book("c-1")

    async def done() -> State[Any]:
        await desk.host.commit(inbox.done, desk.host.journal, [1])
        return Completed(message="done")

    run = FlowRun(flow_id=uuid4(), parameters={"inbox_ids": "1"})
    task = asyncio.create_task(done())
    await asyncio.wait({task})
    await tries.after_run(desk.host, run, cast("Any", task))
    assert desk.unrecorded() == 0


async def test_a_batch_says_nothing_into_the_next_one(desk: Desk) -> None:
    assert of_batch.get() is None
    await desk.handle("c-1")
    assert of_batch.get() is None
    with reading(desk.host.engine) as connection:
        assert connection.execute(select(desk.host.journal.inbox.c.state)).scalars().all() == ["done"]


async def test_a_failed_state_counts_a_try(desk: Desk) -> None:
    """And the message waits for the next one."""

    @flow(name="booking")
    async def fails(inbox_ids: str) -> State[None]:
        return Failed(message=f"1 of 1 failed: {inbox_ids}")

    desk.handler._flows = {"booking": fails}
    batch = await desk.handle("c-1")
    assert batch.undone == {1}
    with reading(desk.host.engine) as connection:
        assert [one.tries for one in inbox.read(connection, desk.host.journal, [1])] == [1]


# -- work without a run ------------------------------------------------------------------------------------------------


async def test_work_that_was_done_without_a_run_has_one_afterwards(desk: Desk) -> None:
    """It failed while Prefect took no run: without one, nobody could try it again in the UI."""
    desk.error, desk.prefect.away = TryAgain("404"), True
    with pytest.raises(TryAgain):
        await desk.runs.without(NewRun("transcode", {"record_id": 7}, "transcode 7 240P", ["record:7"]))
    await desk.recorder.close(1)
    assert desk.prefect.runs == {}
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


async def test_work_without_a_run_is_shown_while_it_is_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transcoding takes minutes: when Prefect is back, the UI shows it at work, and then how it ended."""
    monkeypatch.setattr(record, "LONG_S", 0.0)
    desk.may_end.clear()
    desk.prefect.away = True
    working = asyncio.create_task(desk.runs.without(NewRun("transcode", {}, "transcode 7 240P")))
    await asyncio.sleep(0.01)
    await desk.recorder.close(1)
    desk.prefect.away = False
    await desk.recorder.tell()
    (run,) = desk.prefect.runs.values()
    assert (run["state"]["type"], desk.runs.shown) == ("RUNNING", {UUID(run["id"])})
    desk.may_end.set()
    await working
    await desk.recorder.tell()
    assert (run["state"]["type"], desk.runs.shown, len(desk.prefect.runs)) == ("COMPLETED", set(), 1)


async def test_a_run_that_was_not_heard_of_shows_what_was_done_without_it(desk: Desk) -> None:
    """Prefect had created it: it is not done a second time, and it does not look alive for ever."""
    run = NewRun("transcode", {}, "transcode 7 240P", key="k-1")
    desk.runs.created.unheard.append("k-1")
    made: dict[str, Any] = {"id": str(uuid4()), "deployment": str(DEPLOYMENTS["transcode"]), "parameters": {}}
    made |= {"tags": [], "state": {"type": "PENDING"}}
    desk.prefect.runs["k-1"] = made
    await desk.runs.without(run)
    assert not desk.runs.created.unheard
    await desk.recorder.tell()
    assert (made["state"]["type"], len(desk.prefect.runs)) == ("COMPLETED", 1)
