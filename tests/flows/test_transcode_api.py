"""The teacher serves ECS transcoding over HTTP: a second request joins the first; refusals are tested in process."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from lectern.storage.oss import sign
from tests.stage import Stage, wait_until
from tests.stage.hosts import SECRET
from town.faults import Fault

pytestmark = pytest.mark.live


@pytest.fixture
def api(stage: Stage) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{stage.settings['API_BIND']}", timeout=20, trust_env=False) as client:
        yield client


def signed(**fields: object) -> dict[str, Any]:
    return {**fields, "sign": sign(fields, SECRET)}


def asked(api: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    """The answer to a request; a caller who is told that Prefect has no time asks again."""

    def taken() -> list[httpx.Response]:
        answer = api.post("/transcode", json=body)
        return [answer] if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE else []

    return wait_until(taken, pause_s=1, description="the teacher takes the request")[0]


def known_record(stage: Stage) -> int:
    """A record that a booking without a resolution names: its recording is known, and nothing is made of it yet."""
    record = stage.town.record()
    class_id = stage.book({**stage.booking(record), "record_id": record})
    wait_until(lambda: stage.order(class_id), description="the booking is kept")
    return record


def test_a_rendition_is_made_by_one_request_and_a_second_one_joins_it(stage: Stage, api: httpx.Client) -> None:
    record = known_record(stage)
    body = signed(record_id=record, video_resolution="240P")
    first, second = asked(api, body), asked(api, body)
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
    third = asked(api, body)
    assert (third.status_code, third.json()["url"]) == (200, url)
    assert len(stage.runs("teacher", f"transcode {record} 240P")) == 1


def test_requests_that_come_at_the_same_time_begin_one_run(stage: Stage, api: httpx.Client) -> None:
    """One of them may come when it is made already."""
    record = known_record(stage)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: asked(api, wish(record)), range(8)))
    begun = [one.json()["id"] for one in answers if one.status_code == httpx.codes.ACCEPTED]
    assert len(set(begun)) == 1
    assert {one.status_code for one in answers} <= {200, 202}
    made(stage, record)
    assert stage.town.asked(f"put/{record}/{record}_480P.flv", "PUT") == 1


def test_what_was_made_is_made_again_only_where_gone_or_asked_anew(stage: Stage, api: httpx.Client) -> None:
    """As long as its file is there, or nobody can tell, the answer is where it lies."""
    record = known_record(stage)
    asked(api, wish(record))
    made(stage, record)
    file = f"put/{record}/{record}_480P.flv"
    uploaded = stage.town.asked(file, "PUT")
    hidden = stage.town.origin.faults.add(Fault(file, status=503))
    for _ in range(2):
        there = asked(api, wish(record, at=time.time()))
        assert (there.status_code, there.json()["url"]) == (200, stage.town.origin.url_for(file))
        hidden.times = 0
    (stage.town.origin.root / file).unlink()
    plain = asked(api, wish(record))
    assert (plain.status_code, "its file is gone" in plain.json()["error"]) == (409, True), plain.text
    anew = wish(record, at=time.time())
    assert asked(api, anew).status_code == 202
    wait_until(lambda: stage.town.asked(file, "PUT") == uploaded + 1, timeout_s=90, description="it is made again")
    made(stage, record)
    assert asked(api, anew).status_code == 200


def wish(record: int, **fields: object) -> dict[str, Any]:
    """The request for a record at 480P."""
    return signed(record_id=record, video_resolution="480P", **fields)


def made(stage: Stage, record: int) -> None:
    """Wait until a record is made at 480P."""
    wait_until(lambda: stage.status(record, "480P") == "success", timeout_s=90, description="it is made")
