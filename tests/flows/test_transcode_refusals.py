"""What the API for ECS transcoding refuses, and why: signed, bounded, and never a 500."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock
from urllib.parse import unquote
from uuid import UUID, uuid4

import httpx
import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.exceptions import ObjectNotFound
from prefect.states import Running
from schemathesis import Case
from schemathesis.generation import GenerationMode

from flows.host import TeacherHost
from flows.prefect_api import NewRun
from flows.teacher import api as teacher_api
from flows.teacher.ecs import api
from lectern.db import bookings, transcodings
from lectern.db.engine import transaction
from lectern.states import Backend, BookingState, RenditionState, Resolution
from lectern.storage.oss import sign
from tests import strategies
from tests.answering import serving
from tests.marks import share
from tests.rows import begin, commit, ended_in

SECRET = "made-up"
ID = "00000000-0000-0000-0000-000000000000"
RECORD, KEY = 6666, (6666, Resolution.P720)


class Prefect:
    """Its runs: those that were begun, and those that somebody typed."""

    def __init__(self) -> None:
        self.begun: list[NewRun] = []
        self.parameters: dict[UUID, Any] = {}
        self.state: Any = None  # of every run
        self.hangs = False

    async def start(self, run: NewRun) -> str:
        self.begun.append(run)
        return str(uuid4())

    async def read(self, id_: UUID) -> Any:
        if self.hangs:
            await asyncio.Event().wait()
        if id_ not in self.parameters:
            raise ObjectNotFound(LookupError())
        return SimpleNamespace(parameters=self.parameters[id_], state=self.state)


@pytest.fixture
def prefect() -> Prefect:
    return Prefect()


@pytest.fixture
def host(teacher: TeacherHost, prefect: Prefect) -> TeacherHost:
    """A teacher that knows the recording of RECORD."""
    booked = strategies.booking("c-1", record_id=RECORD)
    commit(teacher.engine, bookings.add, [(booked, BookingState.REFUSED)], time.time())
    teacher.settings = teacher.settings.model_copy(update={"ecs_hosts": "ssh://ecs@one.example:22"})
    teacher.runs = cast("Any", prefect)
    return teacher


@pytest.fixture
async def client(host: TeacherHost, prefect: Prefect) -> AsyncIterator[httpx.AsyncClient]:
    app = teacher_api.application(host, prefect.read, AsyncMock())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as made:
        yield made


def signed(**fields: object) -> bytes:
    return json.dumps({**fields, "sign": sign(fields, SECRET)}).encode()


def wish(**fields: object) -> bytes:
    return signed(record_id=RECORD, video_resolution="720P", **fields)


def spoilt(**fields: object) -> bytes:
    return json.dumps({**json.loads(wish()), **fields}).encode()


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "another signature": (spoilt(sign="0" * 32), 401, "signature"),
    "no signature": (spoilt(sign=None), 401, "signature"),
    "a field more": (spoilt(extra=1), 401, "signature"),
    "an umlaut": ('{"sign": "ß"}'.encode(), 401, "signature"),
    "a long number": (b'{"record_id": %s}' % (b"9" * 4000), 401, "signature"),
    "an hour ago": (wish(at=time.time() - 3600), 401, "of another time"),
    "a word for a record": (signed(record_id="six", video_resolution="720P"), 422, "record_id"),
    "a resolution of its own": (signed(record_id=6, video_resolution="721P"), 422, "video_resolution"),
    "no resolution": (signed(record_id=6), 422, "video_resolution"),
    "a record below zero": (signed(record_id=-1, video_resolution="720P"), 422, "record_id"),
    "half an object": (b"{", 422, "not JSON"),
    "half a character": (b'{"x": "\\ud800"}', 422, "not JSON"),
    "no number": (wish(at=float("nan")), 422, "not JSON"),
    "an endless time": (wish(at=float("inf")).replace(b"Infinity", b"1e999"), 422, "at:"),
    "nested objects": (b'{"x": ' * 600, 422, "not JSON"),
    "a list": (b"[]", 422, "must be a JSON object"),
    "too long": (json.dumps({"x": "y" * 5000}).encode(), 413, "longer than"),
    "an unknown record": (signed(record_id=987654321, video_resolution="720P"), 404, "no booking names it"),
}


async def test_what_is_not_as_it_should_be_is_refused_and_says_why(
    client: httpx.AsyncClient, host: TeacherHost, prefect: Prefect
) -> None:
    wrong = {}
    for name, (body, status, words) in REFUSED.items():
        found = await client.post("/transcode", content=body)
        if found.status_code != status or words not in found.json()["error"]:
            wrong[name] = found.status_code, found.text
    host.settings = host.settings.model_copy(update={"ecs_hosts": ""})
    assert (await client.post("/transcode", content=wish())).status_code == 503
    assert (wrong, prefect.begun) == ({}, [])


async def test_looking_needs_a_signature_and_id_of_transcoding(client: httpx.AsyncClient, prefect: Prefect) -> None:
    """Anybody may have typed the parameters of a run in Prefect's UI."""
    odd: list[dict[str, object]] = [{}, {"record_id": "x", "resolutions": ["720P"]}, {"resolutions": 5}]
    odd.append({"record_id": 7, "resolutions": ["tall"]})
    typed = {UUID(int=number + 1): one for number, one in enumerate(odd)}
    prefect.parameters.update(typed)
    for id_ in (ID, "x'y", *map(str, typed)):
        unknown = await client.get(f"/transcode/{id_}", params={"sign": sign({"id": id_}, SECRET)})
        assert (unknown.status_code, "no such transcoding" in unknown.text) == (404, True), id_
    for params in ({}, {"sign": "ß" * 32}, {"sign": "0" * 32}):
        assert (await client.get(f"/transcode/{ID}", params=params)).status_code == 401


async def test_who_looks_hears_how_far_the_run_and_its_renditions_are(
    client: httpx.AsyncClient, host: TeacherHost, prefect: Prefect
) -> None:
    prefect.parameters[UUID(ID)] = {"record_id": RECORD, "resolutions": ["720P"]}
    commit(host.engine, begin, KEY, by=Backend.ECS)
    for state, name, message in ((None, "unknown", None), (Running(message="at it"), "Running", "at it")):
        prefect.state = state
        found = (await client.get(f"/transcode/{ID}", params={"sign": sign({"id": ID}, SECRET)})).json()
        assert (found["state"], found["message"]) == (name, message)
        assert [(one["rendition"], one["status"]) for one in found["renditions"]] == [("6666_720P", "transcoding")]


async def test_who_looks_while_prefect_hangs_is_answered_soon(
    client: httpx.AsyncClient, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own client waits for seven minutes: whoever looks again and again would leave bookings over HTTP no place."""
    monkeypatch.setattr(api, "PREFECT_S", 0.05)
    prefect.hangs = True
    asking = client.get(f"/transcode/{ID}", params={"sign": sign({"id": ID}, SECRET)})
    found = await asyncio.wait_for(asking, 30)
    assert (found.status_code, found.headers["Retry-After"]) == (503, "10")


async def test_a_body_that_does_not_come_is_left(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "BODY_S", 0.05)

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    assert (await client.post("/transcode", content=body())).status_code == 408


async def test_too_many_requests_are_429_and_say_how_long_to_wait(client: httpx.AsyncClient) -> None:
    """Strangers soon hear only that; who has the key comes through meanwhile."""
    strangers = [await client.post("/transcode", content=b"{}") for _ in range(4 * api.BURST)]
    assert {one.status_code for one in strangers} == {401, 429}
    refused = [one for one in strangers if one.status_code == 429]
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert (await client.get("/transcode/x", params={"sign": "0" * 32})).status_code == 429
    known = await client.post("/transcode", content=wish())
    assert known.status_code == 202, known.text


@pytest.mark.parametrize("by", Backend)
async def test_a_rendition_that_another_run_makes_is_answered_with_that_run_and_one_of_the_oss_is_taken_over(
    host: TeacherHost, client: httpx.AsyncClient, prefect: Prefect, by: Backend
) -> None:
    is_ours = by is Backend.ECS
    commit(host.engine, begin, KEY, by=by)
    if is_ours:
        commit(host.engine, transcodings.take, [KEY], ID, 60, time.time())
    found = await client.post("/transcode", content=wish())
    assert (found.status_code, found.json()["id"] == ID, len(prefect.begun)) == (202, is_ours, 0 if is_ours else 1)
    (row,) = commit(host.engine, transcodings.among, [KEY])
    assert (row.backend, row.attempt) == (Backend.ECS, 1)


async def test_requests_that_come_at_the_same_time_begin_one_run(client: httpx.AsyncClient, prefect: Prefect) -> None:
    answers = await asyncio.gather(*(client.post("/transcode", content=wish()) for _ in range(8)))
    assert {one.status_code for one in answers} == {202}
    assert len({one.key for one in prefect.begun}) == 1, "of one key Prefect begins one"


@pytest.mark.parametrize(("storage", "plain", "anew"), [(200, 200, 200), (503, 200, 200), (404, 409, 202)])
async def test_what_was_made_is_made_again_only_where_gone_and_asked_anew(
    host: TeacherHost, client: httpx.AsyncClient, prefect: Prefect, storage: int, plain: int, anew: int
) -> None:
    """As long as its file is there, or nobody can tell, the answer is where it lies."""
    commit(host.engine, begin, KEY, by=Backend.ECS)
    with serving(status=storage, body=b"FLV") as server:
        url = f"{server.url}/6666/6666_720P.flv"
        host.settings = host.settings.model_copy(update={"public_url": server.url})
        commit(host.engine, ended_in, KEY, RenditionState.SUCCESS, time.time(), url=url)
        for body, status in ((wish(), plain), (wish(at=time.time()), anew)):
            found = await client.post("/transcode", content=body)
            assert (found.status_code, found.json().get("url")) == (status, url if status == 200 else None)
            assert status != 409 or "its file is gone" in found.json()["error"]
    (row,) = commit(host.engine, transcodings.among, [KEY])
    assert row.attempt == 1 + len(prefect.begun) == (2 if anew == 202 else 1)


async def test_a_request_that_is_sent_again_after_its_attempt_failed_begins_no_other(
    host: TeacherHost, client: httpx.AsyncClient, prefect: Prefect
) -> None:
    """It asked for the attempt that has failed; who wants another asks anew, and names the time of that."""
    asked = [wish(), wish(at=time.time())]
    assert (await client.post("/transcode", content=asked[1])).status_code == 202
    with transaction(host.engine) as connection:
        ended_in(connection, KEY, RenditionState.FAILED, time.time(), reason="the origin answered 404")
    for body in asked:
        again = await client.post("/transcode", content=body)
        assert (again.status_code, "the origin answered 404" in again.text) == (409, True), again.text
    anew = await client.post("/transcode", content=wish(at=time.time()))
    assert anew.status_code == 202, anew.text
    assert len({one.key for one in prefect.begun}) == len(prefect.begun) == 2


async def test_why_no_attempt_begins_is_answered_in_the_language_that_is_asked_for(
    host: TeacherHost, client: httpx.AsyncClient
) -> None:
    host.settings = host.settings.model_copy(update={"max_attempts_a_day": 1})
    commit(host.engine, begin, KEY, by=Backend.ECS)
    commit(host.engine, ended_in, KEY, RenditionState.FAILED, time.time(), reason="404")
    for body in (wish(), wish(at=time.time())):
        found = await client.post("/transcode", content=body, headers={"accept-language": "zh"})
        assert (found.status_code, "failed" in found.json()["error"]) == (409, False), found.json()


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("operation", ["POST /transcode", "GET /transcode/{id}"])
def test_it_does_what_it_says_of_itself(
    host: TeacherHost, prefect: Prefect, monkeypatch: pytest.MonkeyPatch, operation: str, mode: GenerationMode
) -> None:
    """Whatever is asked, well signed or not: a status, a type and a body that are described, and never a 500."""
    monkeypatch.setattr(api, "BURST", 1e9)
    method, path = operation.split()
    app = teacher_api.application(host, prefect.read, AsyncMock())
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen: Counter[int] = Counter()

    def ask(case: Case[Any], honest: bool) -> None:
        if honest and isinstance(case.body, dict):
            case.body = json.loads(signed(**{name: value for name, value in case.body.items() if name != "sign"}))
        if honest and case.path_parameters:
            case.query = {"sign": sign({"id": unquote(case.path_parameters["id"])}, SECRET)}
        seen[case.call_and_validate().status_code] += 1

    for honest in (True, False):
        cases = given(case=described[path][method].as_strategy(generation_mode=mode), honest=st.just(honest))
        settings(max_examples=share(0.5), deadline=None, database=None)(cases(ask))()
    assert seen[401]
    assert seen.keys() - {401}, "none came past the signature"
