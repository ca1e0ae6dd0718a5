"""Classes are booked over HTTP, on living hosts: Redis hears the answers, too."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.stage import Stage

pytestmark = pytest.mark.live


def test_requests_of_many_clients_are_each_answered_once(stage: Stage) -> None:
    """Beside as many bookings over Redis."""
    record = stage.town.record()
    stage.answer(stage.book(stage.booking(record, starts_in_s=3600)))
    made = [stage.lectern("teacher", "client", "add", f"c{one}", "--json").stdout for one in range(10)]
    over_http, over_redis = ([stage.booking(record, starts_in_s=3600) for _ in range(100)] for _ in range(2))
    url = f"http://{stage.settings['API_BIND']}"

    def client(which: int) -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {json.loads(made[which])['token']}"}
        with httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False) as session:
            some = over_http[which :: len(made)]
            return [session.put(f"/v1/classes/{one['class_id']}", params={"wait": 60}, json=one) for one in some]

    with ThreadPoolExecutor(len(made)) as threads:
        asking = [threads.submit(client, which) for which in range(len(made))]
        for one in over_redis:
            stage.book(one)
        responses = [response for one in asking for response in one.result()]
    assert Counter(one.status_code for one in responses) == {200: len(over_http)}
    for one in (*over_http, *over_redis):
        assert stage.answer(one["class_id"], timeout_s=120)["code"] == 0
    assert {len(stage.ear.answers[one["class_id"]]) for one in (*over_http, *over_redis)} == {1}
