"""The page: how things stand, for whoever has a token; the same account as explain; nothing can be written."""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import httpx
import pytest
from sqlalchemy import Connection, Engine, insert
from starlette.applications import Starlette

from flows import as_run_report as as_run_page
from flows.host import TeacherHost
from flows.resident import page
from flows.resident.page import Page
from lectern import formatting as written
from lectern import health
from lectern.db import events, viewers
from lectern.db.engine import transaction
from lectern.decide.account import NEEDED
from lectern.decide.forecast import NEVER
from lectern.errors import CODES
from lectern.i18n import Text
from lectern.model.facts import AsRun, Event, Usage
from lectern.model.tables.teacher import orders, streamers, videos
from lectern.model.views import Check, EventView, Gap, Network, OpenAlarm, Sending, StreamerStatus
from lectern.page import strip, view
from lectern.redis.client import Bus
from lectern.settings import TeacherSettings
from lectern.wire import schema
from tests.rows import commit

Client = httpx.AsyncClient
NOON = 0.0
"""Noon of the day on which a test begins; a whole run may begin on the day before."""


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "NOON", time.mktime((*time.localtime()[:3], 12, 0, 0, 0, 0, -1)))


class Words:
    """Stands for Redis: what the streamers said last; None if it does not answer."""

    def __init__(self) -> None:
        self.said: dict[str, StreamerStatus] | None = {}

    async def words(self, *_: object) -> dict[str, StreamerStatus]:
        if self.said is None:
            raise OSError("no Redis")
        return self.said


def order(class_id: str, state: str, start: float, **more: object) -> dict[str, object]:
    push_url, video_url = f"rtmp://push.example/live/secret-{class_id}", "http://o.example/6666.flv?sign=s3"
    its = {"class_id": class_id, "institution_id": "i-1", "record_id": 6666, "resolution": "720P", "state": state}
    times = {"start_time": start, "end_time": start + 2700, "received_at": start - 9000, "updated_at": start - 8000}
    payload = json.dumps({"push_url": push_url, "video_url": video_url})
    return {**its, **times, "payload": payload, "streamer": "streamer1", **more}


@pytest.fixture
def teacher(teacher_engine: Engine) -> TeacherHost:
    settings = TeacherSettings.load(transcode_sign_key="made up", teacher_name="teacher")
    return TeacherHost(settings, teacher_engine, cast("Bus", Words()), cast("Any", None))


def at(served: Page) -> Client:
    return Client(transport=httpx.ASGITransport(app=Starlette(routes=served.routes())), base_url="http://page")


@pytest.fixture
async def client(teacher: TeacherHost) -> AsyncIterator[Client]:
    async with at(Page(teacher)) as made:
        yield made


def book(host: TeacherHost, *rows: dict[str, object]) -> None:
    with transaction(host.engine) as connection:
        for row in rows:
            connection.execute(insert(orders).values(**row))


def token(host: TeacherHost, institution: str | None = None) -> str:
    return commit(host.engine, viewers.make, f"viewer-{institution}", institution, time.time())


async def let_in(client: Client, host: TeacherHost, institution: str | None = None) -> None:
    client.cookies.clear()
    answer = await client.get("/", params={"token": token(host, institution)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")  # the token leaves the address
    assert "HttpOnly" in answer.headers["set-cookie"]


@pytest.fixture
async def reader(client: Client, teacher: TeacherHost) -> Client:
    """Somebody who was let in, and may see all."""
    await let_in(client, teacher)
    return client


async def test_nobody_is_let_in_without_a_token_or_with_one_that_was_revoked_and_nobody_can_write(
    client: Client, teacher: TeacherHost
) -> None:
    book(teacher, order("c-1", "ready", NOON))
    await let_in(client, teacher)
    assert (await client.get("/")).status_code == 200
    for path in ("/", "/class/c-1", "/timetable.ics", "/runbook"):
        assert {(await client.request(method, path)).status_code for method in ("POST", "DELETE")} == {405}
    commit(teacher.engine, viewers.revoke, "viewer-None")
    assert (await client.get("/")).status_code == 401
    client.cookies.clear()
    for path in ("/", "/class/c-1", "/timetable.ics", "/?token=wrong", f"/?token={'x' * 5000}"):
        answer = await client.get(path)
        assert (answer.status_code, "c-1<" in answer.text, "lectern viewer add" in answer.text) == (401, False, True)


async def test_the_page_and_the_report_are_there_beside_a_class_in_a_state_that_nobody_knows(
    reader: Client, teacher: TeacherHost
) -> None:
    """A newer release has written it, and was rolled back."""
    book(teacher, order("c-odd", "on the moon", NOON, received_at=time.time()), order("c-1", "ready", NOON))
    for path in ("/", "/as-run", f"/as-run?day={time.strftime('%Y-%m-%d')}"):
        answer = await reader.get(path)
        assert answer.status_code == 200
        assert "c-odd" not in answer.text
    assert "c-1" in (await reader.get("/")).text
    its = await reader.get("/class/c-odd")
    assert its.status_code == 404
    assert "c-odd: its row cannot be read: &#39;on the moon&#39;" in its.text


async def test_a_page_that_stays_open_over_midnight_does_not_go_on_showing_what_was_on_air(reader: Client) -> None:
    """Its script puts each part that comes in the place of the old one; of the day before there are other parts."""
    today, before = [(await reader.get(path)).text for path in ("/", "/?day=2026-01-01")]
    parts = re.compile(r'<section id="([^"]*)"')
    assert sorted(parts.findall(before)) == sorted(parts.findall(today))


async def test_an_address_that_tries_tokens_has_to_wait_and_keeps_out_nobody_who_has_a_right_one(
    reader: Client,
) -> None:
    """Behind one proxy or router all are at one address: a page that stays open with an old token shut all others."""
    answers = [(await reader.get(f"/?token=guess-{n}")).status_code for n in range(100)]
    assert set(answers) == {401, 429}
    assert (await reader.get("/")).status_code == 200


async def test_pages_that_take_long_hold_up_no_read_and_no_more_of_them_wait_than_have_room(
    reader: Client, teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pages at once in threads of their own; the reads that answer bookings go on beside them."""
    let_go, begun = threading.Event(), list[int]()
    made = as_run_page.made

    def slow(*args: Any) -> Any:
        begun.append(1)
        assert let_go.wait(30)
        return made(*args)

    monkeypatch.setattr(as_run_page, "made", slow)
    monkeypatch.setattr(page, "MOST_WAITING", 4)
    asked = [asyncio.create_task(reader.get("/as-run")) for _ in range(9)]
    try:
        refused = [await one for one in islice(asyncio.as_completed(asked, timeout=30), 3)]
        assert await asyncio.wait_for(teacher.read_tx(viewers.everybody), 30)
        assert len(begun) <= 2
        assert {one.status_code for one in refused} == {503}
        assert {one.headers["retry-after"] for one in refused} == {"5"}
    finally:
        let_go.set()
    answers = [one.status_code for one in await asyncio.gather(*asked)]
    assert (answers.count(200), answers.count(503)) == (6, 3)


async def test_the_day_shows_each_class_as_it_stands(reader: Client, teacher: TeacherHost) -> None:
    now = time.time()
    book(
        teacher,
        order("c-air", "ready", now - 60),
        order("c-missing", "ready", now - 61),
        order("c-refused", "refused", now - 50, code=316, message="no room for 6666"),
        order("c-waiting", "waiting", now - 62, streamer=None),
    )
    said = cast("Words", teacher.bus)
    sendings = {
        "c-air": Sending(True, since=now - 60, position_s=61),
        "c-missing": Sending(False, failures=17, why="Connection refused"),
    }
    alarm = OpenAlarm(321, "streamer1", 3, now, "c-missing: it is not on air", ("c-missing",))
    out = StreamerStatus(1, {}, {}, [OpenAlarm(318, "out", 1, 1, "no")], 1, silent_s=now - 1)
    said.said = {"streamer1": StreamerStatus(now, sendings, {}, [alarm], 1, 2), "out": out}
    page = (await reader.get("/")).text
    assert "<td>out" not in page, "it was taken out long ago, and its incidents with it"
    assert "on air on streamer1 since" in page
    assert "17 attempts to connect failed, the last because: Connection refused" in page
    assert re.search(r'Connection refused <a href="/runbook#321">321: [^<]+</a>', page)
    assert "1 × 316 disk full" in page
    assert '<a href="/runbook#316">316: disk full</a>' in page
    assert "no room for 6666" in page
    assert "Move the class; the streamers&#39; caches are full." in page
    assert "it waits for 6666_720P" in page
    assert '<a href="/runbook#321">321</a></td><td>streamer1</td><td class="times">3</td>' in page
    assert "secret-" not in page
    chinese = (await reader.get("/", params={"lang": "zh"})).text
    assert "1 × 316 磁盘空间已满" in chinese
    assert "课没有完整播出：c-missing: it is not on air" in chinese


def under(heading: str, page: str) -> str:
    """What stands there under *heading*."""
    (section,) = re.findall(rf"<h2>{heading}</h2>(.*?)</section>", page, re.DOTALL)
    return str(section)


def classes(page: str) -> list[str]:
    """The classes to which *page* leads."""
    return re.findall(r'href="/class/([^"]+)"', page)


async def test_who_waits_is_listed_with_what_for_nearest_deadline_first(reader: Client, teacher: TeacherHost) -> None:
    """The deadline is that of the rendition, or the start, whichever comes first."""
    now = time.time()
    book(
        teacher,
        order("c-soon", "placed", now + 300),
        order("c-oss", "waiting", now + 7200, streamer=None),
        order("c-nobody", "waiting", now + 8000, record_id=4, streamer=None),
        order("c-theirs", "received", now + 9000, institution_id="i-2", streamer=None),
    )
    its = {"record_id": 6666, "resolution": "720P", "status": "transcoding", "backend": "oss", "deadline": now + 90}
    commit(teacher.engine, Connection.execute, insert(videos).values(attempt=1, **its))
    waits = under("waiting classes", (await reader.get("/")).text)
    assert classes(waits) == ["c-oss", "c-soon", "c-nobody", "c-theirs"]
    nearest = re.findall(r"<td>[^<]* (begins|result is due)</td>", waits)
    assert [at for at, one in enumerate(nearest) if one != "begins"] == [0]
    said = ("6666_720P: attempt 1, by the OSS", "4_720P, which nobody is making", "It is about to be decided")
    assert [words for words in said if words not in waits] == []
    await let_in(reader, teacher, "i-2")
    assert classes(under("waiting classes", (await reader.get("/")).text)) == ["c-theirs"]


async def test_of_many_the_first_are_listed_and_all_are_counted(reader: Client, teacher: TeacherHost) -> None:
    """A streamer of which nobody hears has neither its classes on air, for all that is known, nor off the air."""
    now = time.time()
    book(teacher, *(order(f"c-{n:04}", "ready", now - 1400 + n) for n in range(1300)))
    book(teacher, *(order(f"w-{n:04}", "placed", now + 60 + n) for n in range(1300)))
    book(teacher, *(order(f"d-{n}", "ready", now - 60, streamer="streamer2") for n in range(70)))
    gone = StreamerStatus(now, {}, {}, [], 0, 70, silent_s=40.0)
    cast("Words", teacher.bus).said = {"streamer1": StreamerStatus(now, {}, {}, [], 0, 0), "streamer2": gone}
    page = (await reader.get("/")).text
    for heading, name in (("waiting classes", "w"), ("should be on air and is not", "c")):
        section = under(heading, page)
        assert classes(section) == [f"{name}-{n:04}" for n in range(view.LISTED)]
        assert "<p>and 1,250 more</p>" in section
    assert '<li class="bad"><b>1,300</b> NOT ON AIR</li>' in page
    assert '<li class="bad"><b>70</b> not known</li>' in page
    assert page.count("streamer2 has been silent for 40 s: nobody here knows") >= view.LISTED
    assert "<p>另有 1,250 节课</p>" in (await reader.get("/", params={"lang": "zh"})).text


@pytest.mark.parametrize(("words", "is_told"), [({}, True), (None, False)], ids=["Redis answers", "it does not"])
async def test_without_redis_no_streamer_is_called_lost(
    reader: Client, teacher: TeacherHost, words: dict[str, StreamerStatus] | None, *, is_told: bool
) -> None:
    """Their heartbeats grow old with it, whatever they do: after a minute, all of them stood there in red."""
    teacher.beats["streamer1"] = {"at": time.time() - 3600}
    cast("Words", teacher.bus).said = words
    assert ("streamer1: lost" in (await reader.get("/")).text) == is_told


async def test_a_class_has_the_account_that_explain_gives(reader: Client, teacher: TeacherHost) -> None:
    now = time.time()
    book(teacher, order("c-1", "ready", now - 60))
    commit(teacher.engine, events.note, "teacher", [Event("placed", "c-1", "6666_720P", "on streamer1")], now)
    cast("Words", teacher.bus).said = None
    page = (await reader.get("/class/c-1")).text
    for words in (
        "Redis cannot be asked: nobody here knows whether the class is on air",
        "<dt>institution</dt><dd>i-1</dd>",
        "rtmp://push.example/…",
        "http://o.example/6666.flv?…",
        "c-1: placed on streamer1",
    ):
        assert words in page
    assert "s3" not in page
    assert "secret-" not in page
    assert (await reader.get("/class/c-2")).status_code == 404


async def test_a_class_with_gaps_is_amber_and_its_page_has_each_gap_and_what_happened_meanwhile(
    reader: Client, teacher: TeacherHost
) -> None:
    """What its streamer noted came with its end; nothing of it is known by Redis any more."""
    start = view.begin_of_day(view.begin_of_day(time.time()) - view.DAY_S / 2)  # its end has passed, at any hour
    parts = [AsRun(0, 1, "recording", start, start + 900, 0, 900)]
    parts.append(AsRun(0, 2, "recording", start + 1020, start + 2700, 1020, 1680))
    why = "2 min of 45 min were not sent: the push was refused"
    book(teacher, order("c-1", "aired with gaps", start, code=329, message=why))
    refused = EventView(start + 901, "push refused", "c-1", "6666_720P", "streamer1", "no such stream")
    commit(teacher.engine, events.keep_parts, "c-1", parts, "streamer1")
    commit(teacher.engine, events.keep_of, [refused])
    yesterday = {"day": time.strftime("%Y-%m-%d", time.localtime(start))}
    day, page = (await reader.get("/", params=yesterday)).text, (await reader.get("/class/c-1")).text
    for shown in (day, page):
        assert '<span class="s aired_with_gaps">aired with gaps</span>' in shown
    assert why in day
    until = f"c-1: not sent until {written.clock(start + 1020)}, 2 min: the push was refused: no such stream"
    for shown in ("c-1: push refused: no such stream", until, '<a href="/runbook#329">', "<b>session 2</b>"):
        assert shown in page


async def test_a_class_whose_booking_could_not_be_read_has_a_page_for_who_sees_all(
    reader: Client, teacher: TeacherHost
) -> None:
    noted = Event("malformed", "c-odd", None, "start_time: no number")
    commit(teacher.engine, events.note, "teacher", [noted], NOON)
    page = (await reader.get("/class/c-odd")).text
    assert "c-odd: malformed: start_time: no number" in page
    assert 'It is not booked: <a href="/runbook#400">400: malformed booking</a>' in page
    await let_in(reader, teacher, "i-1")
    assert (await reader.get("/class/c-odd")).status_code == 404, "nobody knows whose it is"


@pytest.mark.parametrize("institution", ["i-1", None])
async def test_an_institution_sees_its_own_classes_alone_and_in_their_alarms_no_other(
    client: Client, teacher: TeacherHost, institution: str | None
) -> None:
    """An incident is about many classes, and its newest message names the last one. Its own classes are all it sees."""
    book(teacher, order("c-mine", "ready", time.time() - 60), order("c-other", "ready", NOON, institution_id="i-2"))
    last, now = "c-other: no answer from push.of.other.example", time.time()
    shared = OpenAlarm(321, "streamer1", 3, now, last, ("c-mine", "c-other"))
    own = OpenAlarm(326, "streamer1", 1, now, "c-mine: its recording is missing", ("c-mine",))
    cast("Words", teacher.bus).said = {"streamer1": StreamerStatus(now, {}, {}, [shared, own], 2, 1)}
    await let_in(client, teacher, institution)
    page = (await client.get("/class/c-mine")).text
    assert "c-mine: its recording is missing" in page
    for one in (page, (await client.get("/")).text, (await client.get("/timetable.ics")).text):
        assert ("c-mine" in one, "c-other" in one) == (True, institution is None)
    assert (await client.get("/class/c-other")).status_code == (404 if institution else 200)
    assert (await client.get("/timetable.ics?institution=i-2")).status_code == (403 if institution else 200)


async def test_what_was_booked_cannot_write_into_the_page(reader: Client, teacher: TeacherHost) -> None:
    odd = "<script>alert(1)</script>"
    book(teacher, order("c-1", "refused", NOON, code=318, message=odd, institution_id=odd, streamer=odd))
    book(teacher, order("c-2", "ready", time.time() + 60, institution_id=odd, streamer=odd))
    for path in ("/", "/class/c-1", "/classes?q=%3Cscript%3E", "/as-run?day=" + time.strftime("%F")):
        answer = await reader.get(path)
        assert (odd in answer.text, "&lt;script&gt;" in answer.text) == (False, True)
        policy = answer.headers["content-security-policy"]
        assert ("script-src 'self';" in policy, "default-src 'none'" in policy, "unsafe" in policy) == (
            True,
            True,
            False,
        )


async def test_who_asks_too_often_has_to_wait(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "A_SECOND", 0.001)  # the machine may be slow
    async with at(Page(teacher)) as client:
        await let_in(client, teacher)
        found = [(await client.get("/timetable.ics")).status_code for _ in range(40)]
    assert found[0] == 200
    assert 429 in found


async def test_the_runbook_has_its_anchors_ends_with_the_glossary_in_both_languages_and_is_searched(
    client: Client,
) -> None:
    reads = [{"accept-language": language} for language in ("de", "zh-CN,zh;q=0.9")]
    pages = [(await client.get("/runbook", headers=headers)).text for headers in reads]
    anchors, terms = [re.findall(r'<h\d id="([^"]*)"', page) for page in pages], []
    for text, its in zip(pages, anchors, strict=True):
        links = re.findall(r'href="#([^"]*)"', text)
        assert len(links) > 100, "contents and index"
        assert set(links) <= set(its)
        terms.append(re.findall(r"<tr>\s*<td>(.*?)</td>", text.partition('<h1 id="glossary">')[2]))
    assert [code for code in CODES if f'<h2 id="{code}">' not in pages[0]] == []
    assert '<h2 id="316">316: 磁盘空间已满</h2>' in pages[1]
    assert (anchors[0], terms[0]) == (anchors[1], terms[1])
    assert "fencing token" in terms[0]
    found = (await client.get("/runbook", params={"q": "heartbeat LEASE"})).text
    assert 0 < found.count("<h2 id=") < pages[0].count("<h2 id=")
    assert '<h2 id="322">' in found
    odd = (await client.get("/runbook", params={"q": "<b>nowhere</b>"})).text
    assert ("<p>nothing</p>" in odd, "<b>nowhere" in odd) == (True, False)


async def test_a_class_is_found_by_what_somebody_knows_of_it(reader: Client, teacher: TeacherHost) -> None:
    now = time.time()
    book(
        teacher,
        order("c-1", "ready", now + 60, institution_id="i-2"),
        order("lesson-1", "ready", now + 600, streamer="streamer2"),
        order("lesson-2", "refused", now + 700, code=316),
        order("c-old", "aired", now - 900_000),
        order("c-far", "ready", now + 2e6),
    )

    async def found(**asked: str) -> list[str]:
        return classes((await reader.get("/classes", params=asked)).text)

    assert await found(q="LESSON") == ["lesson-1", "lesson-2"]
    assert await found(q="lesson", state="refused") == ["lesson-2"]
    assert (await found(q="c-old"), await found(q="old"), await found(q="100%")) == (["c-old"], [], [])
    assert (await found(institution="i-2"), await found(state="on the moon")) == (["c-1"], [])
    assert await found(sort="streamer", q="6666") == ["c-1", "lesson-2", "lesson-1"]
    await let_in(reader, teacher, "i-2")
    assert await found(q="6666") == ["c-1"]


async def test_a_page_has_its_links_style_sheet_and_small_script_without_which_it_loads_itself(reader: Client) -> None:
    """A style inside the page would not be applied, because the policy of the page forbids it."""
    page = (await reader.get("/")).text
    parts = ['<link rel="stylesheet" href="/page.css">', '<a href="/runbook">', '<a href="?lang=zh">']
    parts += ['<noscript><meta http-equiv="refresh" content="15"></noscript>', '<script src="/page.js" defer></script>']
    assert [one for one in parts if one not in page] == []
    assert "<style" not in page
    reader.cookies.clear()
    kinds = {"/page.css": "text/css", "/page.js": "text/javascript", "/messages.schema.json": "application/schema+json"}
    answers = {path: await reader.get(path) for path in kinds}
    assert {path: one.headers["content-type"].partition(";")[0] for path, one in answers.items()} == kinds
    assert len(answers["/page.js"].content) <= 10_000
    assert answers["/messages.schema.json"].json() == schema.schema()


async def test_an_open_page_gets_only_the_parts_that_have_changed(
    reader: Client, teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none at all while nothing happens, also on the page of a class."""
    monkeypatch.setattr(strip, "drawn_at", lambda _now: NOON)
    book(teacher, order("c-1", "ready", time.time() + 80_000))
    asked = {page.FRAGMENTS: "1"}
    first = await reader.get("/", headers=asked)
    assert re.findall(r'<(?:section|ul|title) id="([^"]+)"', first.text)[:4] == ["title", "line", "deaf", "strip"]
    assert "<nav>" not in first.text
    same = await reader.get("/", headers=asked | {"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    book(teacher, order("c-2", "waiting", time.time() + 80_000, streamer=None))
    changed = await reader.get("/", headers=asked | {"If-None-Match": first.headers["etag"]})
    parts = re.findall(r'<(?:section|ul|title) id="([^"]+)"', changed.text)
    assert {"line", "waiting"} <= set(parts) <= {"line", "waiting", "timetable"}
    its = await reader.get("/class/c-1", headers=asked)
    assert re.findall(r'<(?:section|ul|title) id="([^"]+)"', its.text) == ["title", "class"]
    reader.cookies.clear()
    assert (await reader.get("/", headers=asked)).status_code == 401


@pytest.mark.parametrize("day", ["2026-01-01", "2026-13-45", "x" * 900, "9999-99-99", "0001-01-01", "-1"])
async def test_an_odd_day_is_today_and_another_one_is_shown_by_its_timetable_alone(reader: Client, day: str) -> None:
    answer = await reader.get("/", params={"day": day, "page": day})
    assert answer.status_code == 200
    is_another = day == "2026-01-01"
    assert f"timetable {day if is_another else time.strftime('%F')}" in answer.text
    assert ('<div class="strip">' in answer.text) is not is_another


async def test_ten_thousand_classes_are_shown_in_pages(reader: Client, teacher: TeacherHost) -> None:
    midnight = NOON - 12 * 3600
    book(teacher, *(order(f"c-{n}", "ready", midnight + 60 + n * 8.6) for n in range(10_000)))
    answer = await reader.get("/")
    assert "<b>10,000</b>" in answer.text
    assert len(answer.content) < 300_000
    assert "c-9999" in (await reader.get("/?page=49")).text


async def test_what_was_really_sent_on_a_day_is_read_there(client: Client, teacher: TeacherHost) -> None:
    """Each class, and the sums; of an institution its own classes alone."""
    yesterday = view.begin_of_day(time.time() - view.DAY_S) + 43_200
    why = "aired whole; 1 session"
    book(teacher, order("c-1", "aired", yesterday, message=why))
    book(teacher, order("c-2", "aired", yesterday, message=why, institution_id="i-8"))
    book(teacher, order("c-3", "refused", yesterday, code=316, message="no room"))
    part = AsRun(0, 1, "recording", yesterday + 0.2, yesterday + 2700, 0.0, 2699.8, 1000)
    commit(teacher.engine, events.keep_parts, "c-1", [part], "streamer1")
    await let_in(client, teacher, "i-8")
    assert "c-1" not in (await client.get("/as-run")).text
    await let_in(client, teacher)
    assert 'href="/as-run"' in (await client.get("/")).text
    page = (await client.get("/as-run")).text
    assert re.findall(r'<td><a href="/class/(c-\d)">', page) == ["c-1", "c-2"]
    assert '<td data-what="sent (min)">45.0</td>' in page
    assert re.findall(r"<h2>refused</h2>\s*<p>.*(c-3)</a>.*no room", page) == ["c-3"]
    day = time.strftime("%Y-%m-%d", time.localtime(yesterday))
    answer = await client.get("/as-run", params={"day": day, "format": "csv"})
    assert answer.headers["content-disposition"] == f'attachment; filename="as-run-{day}.csv"'
    assert answer.text.startswith("class_id,institution,")
    its = (await client.get("/as-run", params={"day": day, "format": "json"})).json()
    assert [one["class_id"] for one in its["classes"]] == ["c-1", "c-2", "c-3"]
    before = (await client.get(re.findall(r'<a href="(\?day=[^"]*)">the day before', page)[0])).text
    assert "/class/c-1" not in before


async def test_cache_and_network_of_a_streamer_are_shown_against_their_bounds(
    reader: Client, teacher: TeacherHost
) -> None:
    """What its classes need, what it holds, and its places, of which none may be left.

    Then what pushes need and downloads may take; without a bound there is no bar.
    """
    words = Text("{n:,} downloads", n=2)
    used = StreamerStatus(NOON, {}, {}, [], used=Usage(9 * 10**9, 12), bound=Usage(10**10, 12))
    used = replace(used, ahead={NEEDED: [4e9, 1e9]}, bandwidth=words, network=Network(2e6, 6e6, 10e6))
    other = StreamerStatus(NOON, {}, {}, [], network=Network(1e6, None))
    cast("Words", teacher.bus).said = {"s1": used, "s2": other}
    page = under("streamers", (await reader.get("/")).text)
    bars = re.findall(r'<meter max="([\d.]+)" high="[\d.]+" value="([\d.]+)">', page)
    assert [float(value) / float(most) for most, value in bars[:4]] == [0.4, 0.9, 1.0, 0.8]
    assert "12 / 12" in page
    first, second = re.findall(r'<td data-what="network">(.*?)</td>', page)
    assert "pushes need 2.0 MB of 10.0 MB a second; 2 downloads" in first
    assert second == "pushes need 1.0 MB a second"


async def test_what_begins_soon_is_listed_with_when_its_recording_will_be_there_and_red_if_too_late_or_not_ready(
    reader: Client, teacher: TeacherHost
) -> None:
    """Of one that is yet to be made, about when: the last ones took 500 s, and it goes on since 100 s."""
    now = time.time()
    names = ["c-time", "c-late", "c-never", "c-unknown"]
    book(teacher, *(order(one, "placed", now + 601 + at) for at, one in enumerate(names)))
    ready = {"c-there": 600, "c-red": 900, "c-far": 9000}
    book(teacher, *(order(one, "ready", now + in_s) for one, in_s in ready.items()))
    book(teacher, *(order(f"c-{left_s}", "waiting", now + left_s, streamer=None) for left_s in (300, 3000)))
    ours = {"resolution": "720P", "backend": "ecs"}
    made = ours | {"status": "success", "begun_at": now - 900, "updated_at": now - 400}
    with transaction(teacher.engine) as connection:
        connection.execute(insert(videos), [{"record_id": one, **made} for one in range(1, 6)])
        connection.execute(insert(videos).values(record_id=6666, status="transcoding", begun_at=now - 100, **ours))
    unready = {"c-red": Check(now, "the push host does not answer")}
    ready_by, black = {"c-time": now + 60, "c-late": now + 900, "c-never": NEVER}, {"c-there": "black from 0:00"}
    said = StreamerStatus(now, {}, unready, [], ready_by=ready_by, booked_now_s=(10.0, 10.0), dead_air=black)
    cast("Words", teacher.bus).said = {"streamer1": said}
    page = under("soon", (await reader.get("/")).text)
    rows = re.findall(r"<tr(.*?)>.*?/class/(c-\w+).*?<td>(?:streamer1)?</td><td>(.*?)</td>(.*?)</tr>", page)
    at = {name: written.when(when, now) for name, when in ready_by.items()}
    assert [(name, bool(red), shown[:6] if "about" in shown else shown) for red, name, shown, _ in rows] == [
        ("c-300", True, "about "),
        ("c-there", False, "it is there"),
        ("c-time", False, at["c-time"]),
        ("c-late", True, at["c-late"]),
        ("c-never", True, ""),
        ("c-unknown", False, "not known"),
        ("c-red", True, "it is there"),
        ("c-3000", False, "about "),
    ]
    told = {name: text for _, name, _, text in rows}
    for name, words in (
        ("c-300", "will be there at about "),
        ("c-300", "after its start"),
        ("c-there", "recording faults: black from 0:00"),
        ("c-late", "after its start"),
        ("c-never", "will not be there"),
        ("c-red", "It is not ready for its start: the push host does not answer"),
    ):
        assert words in told[name], name
    assert "6666_720P will be there at about " in (await reader.get("/class/c-3000")).text
    faulty = (await reader.get("/class/c-there")).text
    assert all(one in faulty for one in ("recording faults", "black from 0:00", '<a href="/runbook#328">'))


async def test_strip_has_block_for_each_class_around_now_and_its_holes(reader: Client, teacher: TeacherHost) -> None:
    """The same that the as-run has; what ended long ago, begins tomorrow or was refused is not drawn."""
    now = time.time()
    book(
        teacher,
        order("c-air", "ready", now - 60),
        order("c-late", "waiting", now + 600, streamer=None),
        order("c-aired", "aired with gaps", now - 5000, streamer="streamer2"),
        order("c-old", "aired", now - 20_000),
        order("c-tomorrow", "ready", now + 80_000),
        order("c-refused", "refused", now + 60, code=316),
    )
    start = now - 5000
    parts = [
        AsRun(0, 1, "recording", start, start + 900, 0, 900),
        AsRun(0, 1, "slate", start + 900, start + 1170, 0, 270),
        AsRun(0, 2, "recording", start + 1440, start + 2700, 1440, 1260),
    ]
    commit(teacher.engine, events.keep_parts, "c-aired", parts, "streamer2")
    said = StreamerStatus(now, {"c-air": Sending(True, gaps=(Gap(now - 50, now - 40, 10, "it broke"),))}, {}, [])
    cast("Words", teacher.bus).said = {"streamer1": said, "streamer3": StreamerStatus(now, {}, {}, [])}
    page = (await reader.get("/")).text.partition('<div class="strip">')[2].partition("</div>")[0]
    assert re.findall(r"<b>([^<]+)</b>", page) == ["streamer1", "streamer2", "streamer3", "waiting classes"]
    drawn = re.findall(r'<a href="/class/([^"]+)">\s*<svg class="b ([^"]+)"', page)
    assert drawn == [("c-air", "on_air"), ("c-aired", "aired_with_gaps"), ("c-late", "coming")]
    holes = re.findall(r'<rect class="(hole|slate)" x="([\d.]+)%"', page)
    assert [(kind, round(float(x))) for kind, x in holes[1:]] == [("hole", 33), ("slate", 33), ("hole", 43)]
    assert f"not sent {written.clock(start + 1170)}-{written.clock(start + 1440)}" in page
    assert ">1 on air - lectern</title>" in (await reader.get("/")).text


async def test_as_many_classes_as_are_drawn_make_a_page_below_300_kb_and_more_are_counted(
    reader: Client, teacher: TeacherHost
) -> None:
    """On as many streamers as have a row; some were aired, with a gap each."""
    now, rows = time.time(), []
    with transaction(teacher.engine) as connection:
        for n in range(strip.MOST_BLOCKS):
            start, name = now - 7100 + n // strip.MOST_ROWS * 2800, f"streamer{n % strip.MOST_ROWS}"
            is_over = start + 2700 < now
            rows.append(order(f"class-{n}", "aired with gaps" if is_over else "ready", start, streamer=name))
            if is_over:
                part = AsRun(0, 1, "recording", start, start + 900, 0, 900)
                events.keep_parts(connection, f"class-{n}", [part], name)
    book(teacher, *rows)
    answer = await reader.get("/")
    assert answer.text.count('<svg class="b ') == strip.MOST_BLOCKS
    assert answer.text.count('class="hole"') == 100
    assert len(answer.content) < 300_000
    book(teacher, order("c-waits", "waiting", now + 60, streamer=None))
    page = (await reader.get("/")).text.partition('<div class="strip">')[2].partition("</div>")[0]
    assert ("<svg class=" in page, 'class="b ' in page) == (True, False)
    assert page.count("8 ready</span>") == strip.MOST_ROWS
    assert "<b>waiting classes</b>" in page


async def test_the_picture_of_a_class_is_fetched_from_its_streamer_for_whoever_may_see_the_class(
    client: Client, teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks by the session of the streamer's lease; where there is no picture, a grey one says why."""
    asked: list[tuple[str, str]] = []

    async def fetched(url: str, _timeout_s: float, _most: int, headers: dict[str, str]) -> httpx.Response | None:
        asked.append((url, headers["Authorization"]))
        return httpx.Response(200, content=b"picture") if "c-air" in url else None

    monkeypatch.setattr(health, "fetched", fetched)
    teacher.beats["streamer1"] = {"at": time.time(), "address": "10.0.0.1:8801"}
    commit(teacher.engine, Connection.execute, insert(streamers).values(name="streamer1", session="s-1", lease_s=45))
    now = time.time()
    book(teacher, order("c-air", "ready", now - 60), order("c-away", "ready", now - 60))
    cast("Words", teacher.bus).said = {"streamer1": StreamerStatus(now, {"c-air": Sending(True)}, {}, [])}
    assert (await client.get("/still/c-air.jpg")).status_code == 401
    await let_in(client, teacher)
    assert '<img class="still" src="/still/c-air.jpg"' in (await client.get("/")).text
    for _ in range(2):
        answer = await client.get("/still/c-air.jpg")
        assert (answer.content, answer.headers["cache-control"]) == (b"picture", "private, max-age=10")
    assert asked == [("http://10.0.0.1:8801/still/c-air.jpg", "Bearer s-1")]
    for name, why in (("c-away", "streamer1 does not answer"), ("c-2", "not on air")):
        answer = await client.get(f"/still/{name}.jpg")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "image/svg+xml")
        assert " ".join(re.findall("<tspan[^>]*>([^<]*)", answer.text)) == why
    await let_in(client, teacher, "i-2")
    assert (await client.get("/still/c-air.jpg")).status_code == 404


async def test_the_bit_rate_of_a_class_on_air_is_drawn_from_its_heartbeats(teacher: TeacherHost) -> None:
    """One that is heard twice counts once; what is ten minutes old, and a count that began anew, does not."""
    made, now = Page(teacher), time.time()

    def said(at: float, sent_bytes: int) -> dict[str, StreamerStatus]:
        return {"streamer1": StreamerStatus(at, {"c-1": Sending(True, sent_bytes=sent_bytes)}, {}, [])}

    for ago_s, sent_bytes in ((900, 1), (20, 0), (15, 1_000_000), (15, 1_000_000), (10, 500)):
        made.bit_rates.note(said(now - ago_s, sent_bytes))
    assert made.bit_rates.of("c-1") == [pytest.approx(1.6e6), 0.0]
    assert made.bit_rates.of("c-2") == []
    book(teacher, order("c-1", "ready", now - 60))
    cast("Words", teacher.bus).said = said(now - 5, 1_000_500)
    async with at(made) as client:
        await let_in(client, teacher)
        page = (await client.get("/")).text
    assert '<polyline points="0.0,1.0 50.0,19.0 100.0,1.0 "/></svg> 1.6 Mbit/s' in page
    made.bit_rates.note({})
    assert made.bit_rates.of("c-1") == []


async def test_a_calendar_can_read_it(client: Client, teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class is one event, also if it is aired twice and whichever teacher tells it; a storm of refusals hides none.

    Lines are folded and escaped.
    """
    monkeypatch.setattr(view, "CALENDAR_ROWS", 3)
    book(teacher, *(order(f"c-{n}", "refused", NOON - n) for n in range(6, 9)))
    odd = "c;1," + "课" * 60
    book(teacher, order("c-1", "ready", NOON), order("c-1~backup", "ready", NOON), order(odd, "ready", NOON + 3600))
    book(teacher, order("c-3", "cancelled", NOON))
    answer = await client.get("/timetable.ics", params={"token": token(teacher, "i-1"), "institution": "i-1"})
    assert answer.headers["content-type"].startswith("text/calendar")
    lines = answer.text.split("\r\n")
    assert lines[0] == "BEGIN:VCALENDAR"
    assert f"DTSTART:{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(NOON))}" in lines
    assert [line for line in lines if line.startswith(("UID:c-", "STATUS:", "SEQUENCE:"))] == [
        *("UID:c-1@lectern", "SEQUENCE:1000", "STATUS:CONFIRMED", "SEQUENCE:1000", "STATUS:CONFIRMED"),
        *("UID:c-3@lectern", "SEQUENCE:1000", "STATUS:CANCELLED"),
    ]
    assert max(len(line.encode()) for line in lines) <= 75
    assert "SUMMARY:c\\;1\\," in answer.text
    assert "课" * 60 in answer.text.replace("\r\n ", "")
    assert {"NAME:lectern i-1", "REFRESH-INTERVAL;VALUE=DURATION:PT15M", "URL:http://page/class/c-1"} <= set(lines)
