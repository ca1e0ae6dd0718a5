"""The HTTP API: the same inbox, decisions and answers as on Redis; who may, what is refused, and what is waited for."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, cast

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import Case, checks
from schemathesis.generation import GenerationMode
from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import OperationalError

from flows.handling import came, handled
from flows.host import TeacherHost
from flows.teacher import api
from flows.teacher import bookings as flow
from flows.teacher.bookings import decided_reports as reported
from lectern.db import inbox, outbox, viewers
from lectern.db.inbox import ReceivedMessage
from lectern.model.facts import InboxMessage
from lectern.model.tables.teacher import class_events as class_rows
from lectern.model.tables.teacher import journal, orders, videos
from lectern.model.views import StreamerStatus
from lectern.timing import Rate
from lectern.wire import outgoing
from lectern.wire.messages import Booking, Cancel, Change, Report
from lectern.wire.outgoing import Outgoing, OutgoingKind
from tests import rows
from tests.faults.hosts import ALIVE
from tests.marks import share
from tests.rows import commit, look
from tests.waiting import async_wait_until

Client = httpx.AsyncClient
CLASS, START = "/v1/classes/c-1", time.time() + 3600
"""A class, and when it begins: an hour from a test's own beginning, for a whole run may take longer."""


def fields(**other: object) -> dict[str, Any]:
    urls = {"video_url": "http://origin.example/6666.flv", "push_url": "rtmp://push.example/live/c-1"}
    whole = {**urls, "start_time": START, "end_time": START + 600}
    return {name: value for name, value in (whole | other).items() if value is not None}


async def handle(host: TeacherHost, kept: Sequence[InboxMessage]) -> None:
    """What the flows do with the messages of one transaction, and that their answers are sent."""
    kinds: Any = {"order": flow.decided_bookings, "cancel": flow.decided_bookings, "change": flow.decided_changes}
    for one in kept:
        message: Any = came(one, (Booking, Cancel, Change))
        await handled(host, [message], partial(kinds[one.command], ALIVE))
    host.waiters.wake(["c-1"])


def order(host: TeacherHost, class_id: str = "c-1") -> Any:
    """The row of a class, if it is booked; *answered_at* is when the platform heard that."""
    its = select(orders).where(orders.c.class_id == class_id)
    return look(host.engine, lambda c: c.execute(its).one_or_none())


async def ready(host: TeacherHost, class_id: str = "c-1", **other: Any) -> None:
    """Its streamer has prepared a class, or reports what *other* says."""
    row = order(host, class_id)
    said: Any = {"cmd": "prepared", "streamer": row.streamer, "placement": row.placement, "result": "success"}
    (kept,) = rows.came(host, Report(class_id=class_id, **said | other))
    await handled(host, [came(kept, (Report,))], partial(reported, ALIVE))
    host.waiters.wake([class_id])


@pytest.fixture
def teacher(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> TeacherHost:
    """A teacher that handles what comes at once."""
    monkeypatch.setitem(globals(), "START", time.time() + 3600)

    async def intake(arrived: Sequence[ReceivedMessage]) -> None:
        await handle(teacher, await teacher.write_tx(inbox.keep_claimed, arrived, time.time(), 60.0))

    teacher.intake = intake
    return teacher


def serving(host: TeacherHost, words: Any = None) -> FastAPI:
    """Its API, to which the *words* of streamers have come; None if Redis does not answer."""

    async def heard() -> Any:
        return words

    return api.application(host, None, heard)  # type: ignore[arg-type]  # nothing is asked of Prefect


def at(app: FastAPI) -> Client:
    """A client of it."""
    return Client(transport=httpx.ASGITransport(app=app), base_url="http://api")


@pytest.fixture
def app(teacher: TeacherHost) -> FastAPI:
    return serving(teacher)


@pytest.fixture
async def anybody(app: FastAPI) -> AsyncIterator[Client]:
    async with at(app) as made:
        yield made


@pytest.fixture
async def client(anybody: Client, teacher: TeacherHost) -> Client:
    """A client that may do everything."""
    anybody.headers["Authorization"] = f"Bearer {token(teacher)}"
    return anybody


def token(host: TeacherHost, institution: str | None = None, may: str = "book,read", name: str = "platform") -> str:
    return commit(host.engine, viewers.make, name, institution, time.time(), may)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def kept(host: TeacherHost) -> int:
    return int(look(host.engine, lambda c: c.execute(select(func.count()).select_from(journal.inbox)).scalar_one()))


async def test_a_booking_is_kept_then_answered_and_again_alike(
    client: Client, teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "LOOK_S", 60.0)
    first = await client.put(CLASS, json=fields())
    assert (first.status_code, first.headers["location"]) == (202, CLASS)
    early = await asyncio.wait_for(client.put(CLASS, params={"wait": 0.05}, json=fields()), 30)
    assert early.json() == {"class_id": "c-1", "result": "pending"}
    await ready(teacher)
    again = await client.put(CLASS, json=fields(start_time=float(START)))
    assert (again.status_code, again.json()["result"], again.json()["code"]) == (200, "success", 0)
    other = await client.put(CLASS, json=fields(end_time=START + 900))
    assert (other.status_code, other.json()["code"]) == (409, 409)
    assert "end_time" in other.json()["detail"]
    assert other.headers["content-type"] == "application/problem+json"
    assert kept(teacher) == 2, "its booking and its report: what changes nothing is no message"


@pytest.mark.parametrize("by_another", [False, True], ids=["by us", "by another teacher"])
async def test_a_request_that_waits_is_answered_as_soon_as_the_streamer_is_ready(
    client: Client, teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, *, by_another: bool
) -> None:
    monkeypatch.setattr(api, "LOOK_S", 0.02 if by_another else 60.0)
    if by_another:
        monkeypatch.setattr(type(teacher.waiters), "wake", lambda *_: None)
    asked = asyncio.create_task(client.put(CLASS, params={"wait": 30}, json=fields()))
    await async_wait_until(lambda: order(teacher), description="it is booked")
    await ready(teacher)
    found = await asyncio.wait_for(asked, 10)
    assert (found.status_code, found.json()["cmd"], found.json()["streamer"] in ALIVE) == (200, "order_result", True)
    assert teacher.waiters.number == 0
    assert order(teacher).answered_at, "so it stays a success on Redis, however late that gets it"


async def test_a_refusal_has_the_status_of_its_code(client: Client, teacher: TeacherHost) -> None:
    """The body is the order_result that is sent on Redis, too; another booking may be the one that came first."""
    over = await client.put(CLASS, params={"wait": 5}, json=fields(start_time=1, end_time=2))
    assert (over.status_code, over.json()["cmd"], over.json()["code"]) == (410, "order_result", 410)
    path = "/v1/classes/c-2"
    await client.put(path, json=fields())
    await ready(teacher, "c-2", result="fail", code=316, message="no room")
    full = await client.put(path, params={"wait": 5}, json=fields())
    assert (full.status_code, full.json()["message"]) == (507, "no room")


async def test_a_booking_that_is_given_up_is_answered_though_it_has_no_row(
    client: Client, teacher: TeacherHost
) -> None:
    async def gives_up(_: object) -> None:
        answer = outgoing.answer("c-1", 400, "it could not be handled")
        sending = Outgoing(teacher.settings.order_result_channel, OutgoingKind.CHANNEL, answer, "c-1")
        await teacher.write_tx(outbox.put, [sending], time.time())

    teacher.intake = gives_up
    assert (await client.put(CLASS, params={"wait": 5}, json=fields())).json()["code"] == 400


async def test_a_change_and_a_cancel_are_answered_and_say_who_asked(client: Client, teacher: TeacherHost) -> None:
    for class_id, typed, by in (("c-5", 5, "platform"), ("c-6", "", "platform"), ("c-1", "anna", "platform (anna)")):
        its = {"push_url": f"rtmp://push.example/live/{class_id}", "push_url_backup": f"rtmp://b.example/{class_id}"}
        await client.put(f"/v1/classes/{class_id}", json=fields(by=typed, **its))
        assert json.loads(order(teacher, class_id).payload)["by"] == by
    assert "backup" in (await client.get(CLASS)).json()
    unbooked = await client.patch("/v1/classes/c-9", params={"wait": 5}, json={"end_time": START + 700})
    assert (unbooked.status_code, unbooked.json()["code"]) == (404, 404)
    assert (await client.patch(CLASS, json={"end_time": START + 700})).status_code == 202
    asked = asyncio.create_task(client.delete(CLASS, params={"wait": 30}))
    await async_wait_until(lambda: order(teacher).state == "cancelled", description="it is cancelled")
    await ready(teacher, cmd="ended")
    gone = await asyncio.wait_for(asked, 10)
    assert (gone.status_code, gone.json()["result"]) == (200, "success")
    shown = (await client.get(CLASS)).json()
    assert (shown["state"], shown["standing"], shown["by"]) == ("cancelled", "cancelled", "platform (anna)")
    assert shown["backup"]["state"] == "cancelled"
    told = {one["what"]: one["detail"] for one in shown["events"]}
    assert told["cancelled"] == told["change 1 is asked for"] == "by platform"
    assert not order(teacher).answered_at, "nobody was told that it is booked"


REFUSED: dict[str, tuple[str, str, Any, int, str]] = {
    "no JSON": ("PUT", CLASS, b"{", 422, "not JSON"),
    "a list": ("PUT", CLASS, [], 422, "JSON object"),
    "no push_url": ("PUT", CLASS, fields(push_url=None), 422, "push_url"),
    "the id of another class": ("PUT", CLASS, fields(class_id="c-2"), 422, "class_id"),
    "another message": ("PUT", CLASS, fields(cmd="cancel"), 422, "cmd"),
    "an odd id": ("PUT", "/v1/classes/a%20b", fields(), 422, "class_id"),
    "half a surrogate": ("PUT", CLASS, b'{"x": "\\ud800"}', 422, "not JSON"),
    "a long message": ("PUT", CLASS, fields(title="x" * 70_000), 422, "longer than"),
    "the longest body": ("PUT", CLASS, b" " * api.MAX_BODY_BYTES, 422, "not JSON"),
    "a long body": ("PUT", CLASS, b" " * (api.MAX_BODY_BYTES + 1), 413, "longer than"),
    "a long wait": ("PUT", f"{CLASS}?wait=61", fields(), 422, "wait"),
    "no wait": ("PUT", f"{CLASS}?wait=nan", fields(), 422, "wait"),
    "nothing to change": ("PATCH", CLASS, {}, 422, "nothing is to be changed"),
    "no such class": ("GET", CLASS, None, 404, "no such class"),
    "an odd cursor": ("GET", "/v1/classes?cursor=x", None, 422, "cursor"),
    "an odd state": ("GET", "/v1/classes?state=x", None, 422, "state"),
    "no list": ("POST", "/v1/bookings:check", {}, 422, "list of 1 to"),
    "too many": ("POST", "/v1/bookings:check", [{}] * 1001, 422, "list of 1 to"),
}


async def test_what_is_wrong_is_refused_with_a_problem_and_not_kept(client: Client, teacher: TeacherHost) -> None:
    wrong = {}
    for name, (method, path, body, status, words) in REFUSED.items():
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        found = await client.request(method, path, content=content)
        problem = found.json()
        is_so = found.status_code == status == problem["status"] and words in problem["detail"]
        if not is_so or not {"type", "title", "code"} <= problem.keys():
            wrong[name] = found.status_code, found.text
    assert (wrong, kept(teacher)) == ({}, 0)


async def test_a_client_that_accepts_chinese_is_refused_in_chinese(client: Client) -> None:
    found = await client.request("GET", CLASS, headers={"Accept-Language": "zh-CN,zh;q=0.9"})
    told = found.json()
    assert (found.status_code, told["detail"]) == (404, "c-1：没有这节课")
    assert (told["title"].isascii(), told["type"]) == (False, "/runbook#404")


async def test_nobody_gets_in_without_a_token_and_a_client_only_to_what_it_may(
    anybody: Client, teacher: TeacherHost
) -> None:
    looks, reads = token(teacher, may="look", name="anna"), token(teacher, may="read", name="reader")
    for headers in ({}, bearer("x"), bearer(looks), bearer("y" * 200), {"Authorization": f"Basic {reads}"}):
        found = await anybody.get(CLASS, headers=headers)
        assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
    assert (await anybody.put(CLASS, headers=bearer(reads), json=fields())).status_code == 403
    assert (await anybody.get("/v1/classes", headers=bearer(reads))).status_code == 200
    assert (await anybody.get("/openapi.json")).status_code == 200


async def test_a_client_neither_sees_nor_touches_another_ones_class(client: Client, teacher: TeacherHost) -> None:
    own = bearer(token(teacher, "i-1", name="school"))
    await client.put(CLASS, json=fields(institution_id="i-2"))
    before = kept(teacher)
    for method, body in (("GET", None), ("PUT", fields()), ("PATCH", {"end_time": START + 700}), ("DELETE", None)):
        found = await client.request(method, CLASS, headers=own, json=body)
        assert found.status_code == 404, method
    assert (await client.delete("/v1/classes/c-9", headers=own)).status_code == 404
    assert (await client.get("/v1/classes?institution=i-2", headers=own)).status_code == 403
    assert (await client.put("/v1/classes/c-9", headers=own, json=fields(institution_id="i-2"))).status_code == 403
    asked = [fields(class_id="c-1", institution_id="i-1")]
    (checked,) = (await client.post("/v1/bookings:check", headers=own, json=asked)).json()["bookings"]
    assert checked["message"] == "the class_id is taken"
    assert kept(teacher) == before
    its = fields(push_url="rtmp://push.example/live/c-3")
    assert (await client.put("/v1/classes/c-3", headers=own, json=its)).status_code == 202
    other = its | {"class_id": "c-3", "end_time": START + 900}
    (checked,) = (await client.post("/v1/bookings:check", headers=own, json=[other])).json()["bookings"]
    assert (checked["code"], "end_time" in checked["message"]) == (409, True)
    for query, headers in (("", own), ("?institution=i-1", own), ("?institution=i-1", {})):
        listed = (await client.get(f"/v1/classes{query}", headers=headers)).json()["classes"]
        assert [(one["class_id"], one["institution"]) for one in listed] == [("c-3", "i-1")]
    arrived = [ReceivedMessage("http", "order", json.dumps(its | {"cmd": "order", "class_id": "c-4"}))]
    commit(teacher.engine, inbox.keep, arrived, time.time())
    early = await client.delete("/v1/classes/c-4", headers=own)
    assert (early.status_code, early.headers["retry-after"]) == (503, "1"), "nobody knows yet whose it is"


async def test_who_loses_a_race_for_a_class_id_hears_nothing_of_the_class_that_won_it(
    client: Client, teacher: TeacherHost
) -> None:
    """Neither its times nor its recording nor its institution, as when it had come a second before."""
    intake: Any = teacher.intake

    async def after_another(arrived: Sequence[ReceivedMessage]) -> None:
        teacher.intake = intake
        await client.put(CLASS, json=fields(institution_id="i-2"))
        await intake(arrived)

    teacher.intake = after_another
    own = bearer(token(teacher, "i-1", name="school"))
    lost = await client.put(CLASS, params={"wait": 5}, headers=own, json=fields())
    assert (lost.status_code, lost.json()["detail"]) == (404, "c-1: there is no such class")


async def test_a_full_inbox_a_database_that_takes_nothing_and_a_teacher_that_ends_are_503(
    client: Client, teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = teacher.intake
    monkeypatch.setattr(api, "MOST_KEPT", 0)
    full = await client.put(CLASS, json=fields())
    monkeypatch.undo()
    teacher.intake = None
    ends = await client.put(CLASS, json=fields())

    async def broken(_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("disk I/O error"))

    teacher.intake = broken
    lost = await client.put(CLASS, json=fields())
    teacher.intake = intake
    monkeypatch.setattr(api, "MOST_WAITING", 0)
    many = await client.put(CLASS, params={"wait": 1}, json=fields())
    assert "0 messages" in full.json()["detail"]
    for one in (full, ends, lost, many):
        assert one.status_code == 503, one.text
        assert int(one.headers["retry-after"]) >= 1
    assert kept(teacher) == 0


async def test_a_class_whose_row_cannot_be_read_is_not_said_to_be_unknown(client: Client, teacher: TeacherHost) -> None:
    """A newer release has written it, and was rolled back. Who hears 404 books the class again, under another id."""
    await client.put(CLASS, json=fields())
    commit(teacher.engine, Connection.execute, update(orders).values(state="on the moon"))
    for method, body in (("GET", None), ("PUT", fields()), ("PATCH", {"end_time": START + 700}), ("DELETE", None)):
        found = await client.request(method, CLASS, json=body)
        assert (found.status_code, "cannot be read" in found.json()["detail"]) == (503, True), method
        assert int(found.headers["retry-after"]) >= 1
    both = [fields(class_id="c-1"), fields(class_id="c-2", push_url="rtmp://push.example/live/c-2")]
    checked = (await client.post("/v1/bookings:check", json=both)).json()["bookings"]
    assert [(one["verdict"], one["code"]) for one in checked] == [("refused", 506), ("placed", 0)]


async def test_a_client_that_asks_too_often_has_to_wait(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """So has an address that tries tokens, and whose clients go on, as other clients do."""
    monkeypatch.setattr(api, "A_SECOND", 5.0)
    app = serving(teacher)
    anybody = at(app)
    one, other = bearer(token(teacher, name="one")), bearer(token(teacher, name="other"))
    many = [await anybody.get(CLASS, headers=one) for _ in range(60)]
    refused = [each for each in many if each.status_code == 429]
    assert int(refused[0].headers["retry-after"]) >= 1
    assert (await anybody.get(CLASS, headers=other)).status_code == 404
    wrong = [await anybody.get(CLASS, headers=bearer("x")) for _ in range(40)]
    assert {each.status_code for each in wrong} == {401, 429}
    assert int(wrong[-1].headers["retry-after"]) >= 1
    assert (await anybody.get(CLASS, headers=other)).status_code == 404, "its address is the same"
    elsewhere = Client(transport=httpx.ASGITransport(app, client=("10.0.0.9", 1)), base_url="http://api")
    assert (await elsewhere.get(CLASS, headers=bearer("x"))).status_code == 401


async def test_classes_are_listed_page_by_page_each_once(
    client: Client, teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PAGE", 2)
    for number in range(5):
        its = fields(push_url=f"rtmp://push.example/live/{number}", start_time=START + number // 2)
        await client.put(f"/v1/classes/c-{number}", json=its)

    async def listed(**query: object) -> tuple[list[str], str | None]:
        found = (await client.get("/v1/classes", params=cast("Any", query))).json()
        return [one["class_id"] for one in found["classes"]], found["next"]

    seen, cursor = await listed()
    while cursor is not None:
        more, cursor = await listed(cursor=cursor)
        seen += more
    assert seen == [f"c-{number}" for number in range(5)]
    assert await listed(state="cancelled") == ([], None)
    assert (await listed(**{"from": START + 1, "to": START + 2}))[0] == ["c-2", "c-3"]
    commit(teacher.engine, Connection.execute, update(orders).values(start_time=time.time() - 2 * 86_400))
    assert await listed() == ([], None), "what began more than a day ago is listed for who asks for it"
    assert (await listed(**{"from": 0}))[0] == ["c-0", "c-1"]


def happened(host: TeacherHost, *events: tuple[str, int, str | None]) -> None:
    """Events of classes: class_id, seq and institution."""
    for class_id, seq, institution in events:
        its = {"class_id": class_id, "seq": seq, "institution_id": institution, "at": 1.0, "event": "on_air"}
        body = json.dumps({"cmd": "class_event", "class_id": class_id, "seq": seq})
        commit(host.engine, Connection.execute, insert(class_rows).values(**its, body=body))


async def test_events_are_read_on_from_where_a_client_stopped(client: Client, teacher: TeacherHost) -> None:
    """Of one class by their numbers, of all that it may see by the rows; who waits gets the next one at once."""
    happened(teacher, ("c-1", 1, "i-1"), ("c-2", 1, "i-2"), ("c-1", 2, "i-1"))
    its = (await client.get(f"{CLASS}/events", params={"after": 1})).json()
    assert [one["seq"] for one in its["events"]] == [2]
    own = bearer(token(teacher, "i-1", name="school"))
    assert (await client.get("/v1/classes/c-2/events", headers=own)).status_code == 404
    seen = (await client.get("/v1/events", headers=own)).json()
    assert [(one["class_id"], one["seq"]) for one in seen["events"]] == [("c-1", 1), ("c-1", 2)]
    asked = asyncio.create_task(client.get("/v1/events", params={"after": seen["next"], "wait": 30}))
    await async_wait_until(lambda: teacher.waiters.number, description="it waits")
    happened(teacher, ("c-2", 2, "i-2"))
    teacher.waiters.wake(["c-2"])
    following = (await asyncio.wait_for(asked, 10)).json()
    assert [one["seq"] for one in following["events"]] == [2]


async def test_a_check_says_what_would_be_answered_and_keeps_nothing(client: Client, teacher: TeacherHost) -> None:
    """Conflicts among the bookings of the list are found, too. That a class is booked already is no promise."""
    await client.put(CLASS, json=fields())
    commit(teacher.engine, lambda c: c.execute(update(orders).values(state="ready")))
    its = fields(class_id="c-7", push_url="rtmp://push.example/live/c-7")
    await client.put("/v1/classes/c-7", json=its)
    await client.delete("/v1/classes/c-7")
    before, away = kept(teacher), "rtmp://push.example/live/other"
    listed: list[tuple[Any, tuple[str | None, str, int]]] = [
        (fields(class_id="c-1"), ("c-1", "booked already", 0)),
        (fields(class_id="c-1", end_time=START + 900), ("c-1", "refused", 409)),
        (fields(class_id="c-3", push_url=away), ("c-3", "placed", 0)),
        (fields(class_id="c-4", push_url=away, start_time=START + 300), ("c-4", "refused", 409)),
        (fields(class_id="c-5", push_url=None), ("c-5", "refused", 400)),
        ("c-6", (None, "refused", 400)),
        (its, ("c-7", "booked already", 411)),
    ]
    found = (await client.post("/v1/bookings:check", json=[one for one, _ in listed])).json()["bookings"]
    assert [(one["class_id"], one["verdict"], one["code"]) for one in found] == [said for _, said in listed]
    assert found[2]["ready_by"] is None, "no streamer says when its recording would be there"
    assert kept(teacher) == before
    assert (await client.put("/v1/classes/c-7", json=its)).json()["message"] == found[-1]["message"]


async def test_it_is_said_when_a_rendition_that_is_yet_to_be_made_will_be_there(teacher: TeacherHost) -> None:
    """By how long the last transcodings took, and how long a download takes; of a class that waits, and before it."""
    now = time.time()
    its: dict[str, object] = {"resolution": "720P", "status": "success", "backend": "oss"}
    its |= {"requested_at": now - 990, "updated_at": now - 900}
    commit(teacher.engine, Connection.execute, insert(videos), [{"record_id": one, **its} for one in range(1, 6)])
    heard = {"streamer1": StreamerStatus(now, {}, {}, [], booked_now_s=(10.0, 70.0))}
    whole = fields(record_id=6666, video_resolution="720P", video_url_list={})
    both = [fields(class_id="c-1", push_url="rtmp://push.example/1"), whole | {"class_id": "c-2"}]
    there = pytest.approx(now + 90 + 10 + 10, abs=20)
    async with at(serving(teacher, heard)) as client:
        client.headers["Authorization"] = f"Bearer {token(teacher)}"
        for _ in range(2):
            placed, waits = (await client.post("/v1/bookings:check", json=both)).json()["bookings"]
            assert (placed["verdict"], placed["ready_by"]) == ("placed", pytest.approx(now + 10, abs=20))
            assert (waits["verdict"], waits["ready_by"]) == ("waiting", there)
            await client.put(f"{CLASS}0", json=whole | {"push_url": "rtmp://push.example/live/0"})
        account = (await client.get(f"{CLASS}0")).json()
        assert (account["state"], account["ready_by"]) == ("waiting", there)


async def test_no_answer_is_said_to_be_held_up_that_nobody_has_given_yet(client: Client, teacher: TeacherHost) -> None:
    """A class that waits gets its answer when a streamer has its rendition; a second airing gets none."""
    await client.put(CLASS, json=fields(record_id=6666, video_resolution="720P", video_url_list={}))
    twice = {"push_url": "rtmp://push.example/live/2", "push_url_backup": "rtmp://other.example/live/2"}
    await client.put("/v1/classes/c-2", json=fields(**twice))
    await ready(teacher, "c-2~backup")
    commit(teacher.engine, Connection.execute, update(orders).values(updated_at=time.time() - 600))
    waits = (await client.get(CLASS)).json()
    second = (await client.get("/v1/classes/c-2")).json()["backup"]
    assert (waits["state"], second["state"]) == ("waiting", "ready")
    assert not [said for said in (*waits["next"], *second["next"]) if "answer has not left" in said]


SAID = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
"""What is checked of each answer. Not whether a booking that fits its schema is taken: a schema says little of URLs."""
ROUTES = ["GET /v1/classes", "GET /v1/classes/{class_id}/events", "GET /v1/events", "POST /v1/bookings:check"]
ROUTES += [f"{method} /v1/classes/{{class_id}}" for method in ("PUT", "PATCH", "DELETE", "GET")]


@pytest.mark.parametrize("operation", ROUTES)
def test_it_does_what_it_says_of_itself(
    app: FastAPI, teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Whatever is asked of any route: a status, a type and a body that are described, and never a 500."""
    monkeypatch.setattr(Rate, "take", lambda *_: 0.0)
    checks.load_all_checks()
    wanted: Any = [checks.CHECKS.get_one(name) for name in SAID]
    sent = b"authorization", f"Bearer {token(teacher)}".encode()

    async def with_token(scope: Any, receive: Any, send: Any) -> None:
        others = [one for one in scope.get("headers", ()) if one[0] != sent[0]]
        await app({**scope, "headers": [*others, sent]}, receive, send)

    described = schemathesis.openapi.from_asgi("/openapi.json", with_token)
    paths: Any = described.raw_schema["paths"]
    assert set(ROUTES) == {f"{verb.upper()} {at}" for at, its in paths.items() for verb in its if "/v1" in at}
    method, path = operation.split()

    @settings(max_examples=share(1), deadline=None, database=None)
    @given(case=st.one_of([described[path][method].as_strategy(generation_mode=mode) for mode in GenerationMode]))
    def asked(case: Case[Any]) -> None:
        case.query.pop("wait", None)
        answer = case.call_and_validate(checks=wanted)
        assert answer.status_code != 401

    asked()


@pytest.mark.parametrize(
    ("silent_s", "is_full", "code"),
    [({}, False, 317), ({"s1": 90.0}, False, 317), ({"s1": None}, True, 317), ({"s1": None, "s2": 90.0}, False, 0)],
    ids=["no streamer is there", "none is heard", "it is drained, or its disk is full", "one is heard"],
)
async def test_a_check_says_what_the_booking_is_answered_then(
    teacher: TeacherHost,
    monkeypatch: pytest.MonkeyPatch,
    silent_s: dict[str, float | None],
    code: int,
    *,
    is_full: bool,
) -> None:
    """What is to be made before is no streamer's yet; a class whose cancel came before is refused."""
    monkeypatch.setitem(globals(), "ALIVE", [] if code else ALIVE)
    for name in silent_s if is_full else ():
        teacher.heard_at[name] = time.monotonic(), "full"
    heard = {name: StreamerStatus(time.time(), {}, {}, [], silent_s=one) for name, one in silent_s.items()}
    made = {"push_url": "rtmp://push.example/2", "record_id": 6666, "video_resolution": "720P"}
    async with at(serving(teacher, heard)) as client:
        client.headers.update(bearer(token(teacher)))
        await client.delete("/v1/classes/c-3")
        some = [
            fields(class_id="c-1"),
            fields(class_id="c-2", **made),
            fields(class_id="c-3", push_url="rtmp://p.example/3"),
        ]
        found = (await client.post("/v1/bookings:check", json=some)).json()["bookings"]
        assert [one["code"] for one in found] == [code, 0, 411]
        assert [one["verdict"] for one in found] == ["refused" if code else "placed", "waiting", "refused"]
        asked = some[0] if code else some[2]
        answered = await client.put(f"/v1/classes/{asked['class_id']}", params={"wait": 5}, json=asked)
        assert answered.json()["code"] == (code or 411)
