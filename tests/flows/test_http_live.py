"""Classes are booked over HTTP, on living hosts: Redis hears the answers, too."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.stage import Stage

pytestmark = pytest.mark.live


@pytest.mark.parametrize(("clients", "number"), [(10, 100), pytest.param(50, 1000, marks=pytest.mark.night)])
def test_requests_of_many_clients_are_each_answered_once(stage: Stage, clients: int, number: int) -> None:
    """What is booked by HTTP and what is booked by Redis is told apart by who booked it, and by nothing else."""
    record = stage.town.record()
    stage.answer(stage.book(stage.booking(record, starts_in_s=3600)))
    names = [f"c{one}of{clients}" for one in range(clients)]
    tokens = [json.loads(stage.lectern("teacher", "client", "add", one, "--json").stdout)["token"] for one in names]
    over_http = [stage.booking(record, starts_in_s=3600, length_s=600) for _ in range(number)]
    over_redis = [stage.booking(record, starts_in_s=3600, length_s=600) for _ in range(number)]
    url = f"http://{stage.settings['API_BIND']}"

    def client(which: int) -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {tokens[which]}"}
        with httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False) as session:
            some = over_http[which::clients]
            return [session.put(f"/v1/classes/{one['class_id']}", params={"wait": 60}, json=one) for one in some]

    with ThreadPoolExecutor(clients) as threads:
        asking = [threads.submit(client, which) for which in range(clients)]
        for one in over_redis:
            stage.book(one)
        responses = [response for one in asking for response in one.result()]
    assert Counter(one.status_code for one in responses) == {200: number}
    for one in (*over_http, *over_redis):
        assert stage.answer(one["class_id"], timeout_s=120)["code"] == 0
    assert {len(stage.ear.answers[one["class_id"]]) for one in (*over_http, *over_redis)} == {1}
    headers = {"Authorization": f"Bearer {tokens[0]}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as session:

        def account(class_id: str) -> dict[str, Any]:
            told = session.get(f"/v1/classes/{class_id}").json()
            events = [one["what"] for one in told.pop("events")]
            return {"events": events, "by": told["by"], "standing": told["standing"], "state": told["state"]}

        for one, other in zip(over_http[:20], over_redis[:20], strict=True):
            mine, theirs = account(one["class_id"]), account(other["class_id"])
            assert (mine.pop("by") in names, theirs.pop("by")) == (True, "platform")
            assert mine == theirs
