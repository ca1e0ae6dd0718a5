"""The teacher serves ECS transcoding over HTTP: signed, bounded, and a second request joins the first."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.generation import GenerationMode

from flows.teacher.ecs.api import A_SECOND, BODY_S, BURST
from lectern.effects.files.oss import sign
from tests.marks import share
from tests.stage import Stage, Town, staged, wait_until
from tests.stage.hosts import SECRET
from town.faults import Fault
from town.oss_transcoder import Behaviour, Rule
from town.ports import HOST, free_port

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def teacher(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher without streamers; its API is open."""
    with staged(town, tmp_path_factory.mktemp("api"), API_BIND=f"{HOST}:{free_port()}") as found:
        found.up("teacher")
        # It had a streamer once, so it refuses bookings now, and does not keep them until a first one comes.
        found.alter("teacher", "INSERT INTO streamer_list (name, lease_s, granted_at) VALUES ('gone', 0, 1)")
        yield found


@pytest.fixture
def api(teacher: Stage) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{teacher.settings['API_BIND']}", timeout=20, trust_env=False) as client:
        yield client


def signed(**fields: object) -> dict[str, Any]:
    return {**fields, "sign": sign(fields, SECRET)}


def known_record(stage: Stage) -> int:
    """A record that a booking without a resolution names: its recording is known, and nothing is made of it yet."""
    record = stage.town.record()
    class_id = stage.book({**stage.booking(record), "record_id": record})
    wait_until(lambda: stage.order(class_id), description="the booking is kept")
    return record


def test_a_rendition_is_made_by_one_request_and_a_second_one_joins_it(teacher: Stage, api: httpx.Client) -> None:
    record = known_record(teacher)
    body = signed(record_id=record, video_resolution="240P")
    first, second = api.post("/transcode", json=body), api.post("/transcode", json=body)
    assert (first.status_code, second.status_code) == (202, 202), first.text + second.text
    assert first.json()["id"] == second.json()["id"]
    id_ = first.json()["id"]
    where = first.headers["Location"]
    assert where == f"/transcode/{id_}"

    def over() -> bool:
        found = api.get(where, params={"sign": sign({"id": id_}, SECRET)}).json()
        return bool(found["renditions"][0]["status"] != "transcoding")

    wait_until(over, timeout_s=90, description="it is made")
    found = api.get(where, params={"sign": sign({"id": id_}, SECRET)}).json()
    assert found["renditions"][0]["status"] == "success"
    url = found["renditions"][0]["url"]
    assert httpx.head(url, trust_env=False).status_code == 200
    third = api.post("/transcode", json=body)
    assert (third.status_code, third.json()["url"]) == (200, url)
    assert len(teacher.runs("teacher", f"transcode {record} 240P")) == 1


def test_it_takes_over_from_an_oss_that_is_silent(teacher: Stage, api: httpx.Client) -> None:
    record = teacher.town.record()
    teacher.oss.behave(Rule(Behaviour.SILENT, record_id=record))
    class_id = teacher.book(teacher.booking(record, "240P"))
    wait_until(lambda: teacher.posts(record) == 1, description="the OSS is asked")
    found = api.post("/transcode", json=signed(record_id=record, video_resolution="240P"))
    assert found.status_code == 202, found.text
    wait_until(lambda: teacher.status(record, "240P") == "success", timeout_s=90, description="it is made")
    wait_until(lambda: teacher.order(class_id)["state"] != "waiting", description="its class waits no more")


@pytest.mark.parametrize("spoilt", [{"sign": "0" * 32}, {"record_id": 7}, {"sign": None}, {"extra": 1}])
def test_a_wrong_signature_is_401(api: httpx.Client, spoilt: dict[str, object]) -> None:
    found = api.post("/transcode", json={**signed(record_id=6, video_resolution="720P"), **spoilt})
    assert found.status_code == 401
    assert "signature" in found.json()["error"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"record_id": "six", "video_resolution": "720P"}, "record_id"),
        ({"record_id": 6, "video_resolution": "721P"}, "video_resolution"),
        ({"record_id": 6}, "video_resolution"),
        ({"record_id": -1, "video_resolution": "720P"}, "record_id"),
    ],
)
def test_a_body_that_is_not_as_it_should_be_is_422_and_names_the_field(
    api: httpx.Client, fields: dict[str, object], said: str
) -> None:
    found = api.post("/transcode", json=signed(**fields))
    assert found.status_code == 422
    assert said in found.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"text"'])
def test_a_body_that_is_no_object_is_422(api: httpx.Client, body: bytes) -> None:
    assert api.post("/transcode", content=body).status_code == 422


def test_a_body_that_is_too_long_is_413(api: httpx.Client) -> None:
    assert api.post("/transcode", content=json.dumps({"x": "y" * 5000})).status_code == 413


def test_a_request_of_another_time_is_401(api: httpx.Client) -> None:
    """Who records a request that names its time cannot send it again an hour later."""
    found = api.post("/transcode", json=signed(record_id=6, video_resolution="720P", at=time.time() - 3600))
    assert found.status_code == 401
    assert "of another time" in found.json()["error"]


def test_a_record_that_no_booking_names_is_404(api: httpx.Client) -> None:
    found = api.post("/transcode", json=signed(record_id=987654321, video_resolution="720P"))
    assert found.status_code == 404


def test_looking_needs_a_signature_and_an_id_that_is_one(api: httpx.Client) -> None:
    id_ = "00000000-0000-0000-0000-000000000000"
    assert api.get(f"/transcode/{id_}").status_code == 401
    assert api.get(f"/transcode/{id_}", params={"sign": sign({"id": id_}, SECRET)}).status_code == 404
    assert api.get("/transcode/x'y", params={"sign": sign({"id": "x'y"}, SECRET)}).status_code == 404


@pytest.mark.parametrize(
    "parameters",
    [{}, {"record_id": "x", "resolutions": ["720P"]}, {"record_id": 7, "resolutions": ["tall"]}, {"resolutions": 5}],
)
def test_a_run_that_is_no_transcoding_is_404(teacher: Stage, api: httpx.Client, parameters: dict[str, object]) -> None:
    """Its id is known to whoever may sign, and anybody may have typed its parameters in Prefect's UI."""

    def made(path: str, **fields: object) -> str:
        """Its id; a server on SQLite answers 503 now and then while others write."""

        def asked() -> str:
            found = teacher.town.api.post(path, json=fields)
            return str(found.json()["id"]) if found.is_success else ""

        return wait_until(asked, description=f"Prefect takes {path}")

    id_ = made("/flow_runs/", flow_id=made("/flows/", name="odd"), parameters=parameters)
    found = api.get(f"/transcode/{id_}", params={"sign": sign({"id": id_}, SECRET)})
    assert (found.status_code, found.json()) == (404, {"error": f"{id_}: no such transcoding"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 4000, 422),
        (b'{"x": ' * 600, 422),
        (b'{"x": "\\ud800", "sign": "%s"}' % (b"0" * 32), 401),
        ('{"sign": "ß"}'.encode(), 401),
        (b'{"sign": "\\ud800"}', 401),
        (b'{"record_id": %s}' % (b"9" * 4000), 401),
    ],
    ids=["nested", "nested objects", "half a character", "an umlaut", "half a signature", "a long number"],
)
def test_a_body_that_no_honest_caller_sends_is_refused_as_any_other(
    api: httpx.Client, body: bytes, status: int
) -> None:
    assert api.post("/transcode", content=body).status_code == status


def test_a_signature_that_is_no_text_of_ours_is_401(api: httpx.Client) -> None:
    id_ = "00000000-0000-0000-0000-000000000000"
    assert api.get(f"/transcode/{id_}", params={"sign": "ß" * 32}).status_code == 401


@pytest.mark.parametrize("at", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_time_that_is_none_is_422(api: httpx.Client, at: str) -> None:
    """No comparison with it is ever true."""
    fields = {"record_id": 6, "video_resolution": "720P", "at": float(at)}
    body = json.dumps({**fields, "sign": sign(fields, SECRET)}).replace(json.dumps(float(at)), at)
    found = api.post("/transcode", content=body)
    assert (found.status_code, "at:" in found.json()["error"]) == (422, True)


@pytest.mark.parametrize("named", ["its time", "no time"])
def test_a_request_that_is_sent_again_after_its_attempt_failed_begins_no_other(
    teacher: Stage, api: httpx.Client, named: str
) -> None:
    """It asked for the attempt that has failed; who wants another asks anew, and names the time of that."""
    record = known_record(teacher)
    gone = teacher.town.origin.faults.add(Fault(f"{record}/*", status=404))
    asked = wish(record, **({"at": time.time()} if named == "its time" else {}))
    assert api.post("/transcode", json=asked).status_code == 202
    wait_until(lambda: teacher.status(record, "480P") == "failed", timeout_s=90, description="it has failed")
    gone.times = 0
    for _ in range(3):
        again = api.post("/transcode", json=asked)
        assert (again.status_code, "the origin answered 404" in again.json()["error"]) == (409, True), again.text
    assert teacher.status(record, "480P") == "failed"
    anew = api.post("/transcode", json=wish(record, at=time.time()))
    assert anew.status_code == 202, anew.text
    made(teacher, record)
    assert api.post("/transcode", json=asked).status_code == 200
    assert len(teacher.runs("teacher", f"transcode {record} 480P")) == 2


def test_strangers_do_not_starve_who_has_the_key(teacher: Stage, api: httpx.Client) -> None:
    """They soon hear only that they are too many; a signed request comes through meanwhile."""
    record = known_record(teacher)
    wrong = {**wish(record), "sign": "0" * 32}

    def stranger(number: int) -> int:
        if number % 2:
            return api.post("/transcode", json=wrong).status_code
        return api.get("/transcode/x", params={"sign": "0" * 32}).status_code

    with ThreadPoolExecutor(8) as callers:
        heard = Counter(callers.map(stranger, range(4 * BURST)))
        assert heard.keys() == {401, 429}
        many = [callers.submit(stranger, number) for number in range(4 * BURST)]
        found = api.post("/transcode", json=wish(record))
        assert found.status_code == 202, found.text
        look = {"sign": sign({"id": found.json()["id"]}, SECRET)}
        assert api.get(found.headers["Location"], params=look).status_code == 200
        assert {one.result() for one in many} <= {401, 429}
    made(teacher, record)


def test_a_body_that_does_not_come_is_not_waited_for(teacher: Stage) -> None:
    host, _, port = teacher.settings["API_BIND"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(b"POST /transcode HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        begun_at = time.monotonic()
        assert line.recv(100).startswith(b"HTTP/1.1 408 ")
        assert BODY_S - 1 < time.monotonic() - begun_at < BODY_S + 10


def test_requests_that_come_at_the_same_time_begin_one_run(teacher: Stage, api: httpx.Client) -> None:
    """A caller who is told that Prefect has no time asks again, and may come when it is made already."""
    record = known_record(teacher)

    def asked(_: int) -> httpx.Response | None:
        answer = api.post("/transcode", json=wish(record))
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

    def heard(number: int) -> httpx.Response:
        answer = wait_until(lambda: asked(number), pause_s=1, description="the teacher takes the request")
        assert answer is not None
        return answer

    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(heard, range(8)))
    begun = [one.json()["id"] for one in answers if one.status_code == httpx.codes.ACCEPTED]
    assert len(set(begun)) == 1
    assert {one.status_code for one in answers} <= {200, 202}
    made(teacher, record)
    assert teacher.town.asked(f"put/{record}/{record}_480P.flv", "PUT") == 1


def test_what_was_made_is_made_again_only_where_it_is_gone_and_for_who_asks_anew(
    teacher: Stage, api: httpx.Client
) -> None:
    """As long as its file is there, or nobody can tell, the answer is where it lies."""
    record = known_record(teacher)
    api.post("/transcode", json=wish(record))
    made(teacher, record)
    file = f"put/{record}/{record}_480P.flv"
    uploaded = teacher.town.asked(file, "PUT")
    hidden = teacher.town.origin.faults.add(Fault(file, status=503))
    for _ in range(2):
        there = api.post("/transcode", json=wish(record, at=time.time()))
        assert (there.status_code, there.json()["url"]) == (200, teacher.town.origin.url_for(file))
        hidden.times = 0
    (teacher.town.origin.root / file).unlink()
    plain = api.post("/transcode", json=wish(record))
    assert (plain.status_code, "its file is gone" in plain.json()["error"]) == (409, True), plain.text
    anew = wish(record, at=time.time())
    assert api.post("/transcode", json=anew).status_code == 202
    wait_until(lambda: teacher.town.asked(file, "PUT") == uploaded + 1, timeout_s=90, description="it is made again")
    made(teacher, record)
    assert api.post("/transcode", json=anew).status_code == 200


def wish(record: int, **fields: object) -> dict[str, Any]:
    """The request for a record at 480P."""
    return signed(record_id=record, video_resolution="480P", **fields)


def made(teacher: Stage, record: int) -> None:
    """Wait until a record is made at 480P."""
    wait_until(lambda: teacher.status(record, "480P") == "success", timeout_s=90, description="it is made")


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("operation", ["POST /transcode", "GET /transcode/{id}"])
def test_it_does_what_it_says_of_itself(teacher: Stage, operation: str, mode: GenerationMode) -> None:
    """Whatever is asked, well signed or not: a status, a type and a body that are described, and never a 500."""
    method, path = operation.split()
    described = schemathesis.openapi.from_url(f"http://{teacher.settings['API_BIND']}/openapi.json")
    seen: Counter[int] = Counter()

    @settings(max_examples=share(0.15), deadline=None, derandomize=True, database=None)
    @given(case=described[path][method].as_strategy(generation_mode=mode), honest=st.booleans())
    def asked(case: Case[Any], honest: bool) -> None:
        if honest and isinstance(case.body, dict):
            case.body = signed(**{name: value for name, value in case.body.items() if name != "sign"})
        if honest and case.path_parameters:
            case.query = {"sign": sign({"id": unquote(case.path_parameters["id"])}, SECRET)}
        time.sleep(1 / A_SECOND)
        seen[case.call_and_validate(timeout=20).status_code] += 1

    asked()
    assert seen[401]
    assert seen.keys() - {401}, "none came past the signature"


def test_the_api_describes_itself(api: httpx.Client) -> None:
    found = api.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    assert {"/transcode", "/transcode/{id}"} == set(found["paths"])


def test_too_many_requests_are_429_and_say_how_long_to_wait(api: httpx.Client) -> None:
    answers = [api.post("/transcode", content=b"{}") for _ in range(80)]
    refused = [one for one in answers if one.status_code == 429]
    assert refused
    assert int(refused[0].headers["Retry-After"]) >= 1
    time.sleep(BURST / A_SECOND)  # the bucket is full again, for this test and for the others
    assert api.post("/transcode", content=b"{}").status_code != 429
