"""A class is booked, changed and cancelled over HTTP, on living hosts: Redis hears the answers, too."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.stage import Stage, Town, staged, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def hosts(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher whose API is open, and a streamer."""
    with staged(town, tmp_path_factory.mktemp("http"), API_BIND=f"{HOST}:{free_port()}") as found:
        found.up("teacher", "streamer1")
        yield found


@pytest.fixture(scope="module")
def client(hosts: Stage) -> Iterator[httpx.Client]:
    """A client that may do everything."""
    made = json.loads(hosts.lectern("teacher", "client", "add", "platform", "--json").stdout)
    headers = {"Authorization": f"Bearer {made['token']}"}
    url = f"http://{hosts.settings['API_BIND']}"
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as found:
        yield found


def test_a_class_is_booked_changed_aired_and_cancelled_over_http(hosts: Stage, client: httpx.Client) -> None:
    booking = hosts.booking(hosts.town.record(), starts_in_s=20, length_s=60)
    class_id = booking.pop("class_id")
    path = f"/v1/classes/{class_id}"
    answer = client.put(path, params={"wait": 45}, json=booking)
    assert (answer.status_code, answer.json()["result"]) == (200, "success"), answer.text
    assert hosts.answer(class_id)["code"] == 0
    changed = client.patch(path, params={"wait": 30}, json={"end_time": booking["end_time"] + 30})
    assert (changed.status_code, changed.json()["cmd"]) == (200, "change_result"), changed.text
    hosts.on_air(class_id)
    wait_until(lambda: client.get(path).json()["standing"] == "on air", description="the API says so, too")
    gone = client.delete(path, params={"wait": 30})
    assert (gone.status_code, gone.json()["result"]) == (200, "success"), gone.text


def test_requests_of_many_clients_are_each_answered_once(hosts: Stage, client: httpx.Client) -> None:
    """What is booked by HTTP and what is booked by Redis is told apart by who booked it, and by nothing else."""
    record = hosts.town.record()
    first = hosts.booking(record, starts_in_s=3600)
    hosts.answer(hosts.book(first))
    again = client.put(f"/v1/classes/{first['class_id']}", params={"wait": 20}, json=first)
    assert again.json().items() <= hosts.answer(first["class_id"]).items()
    for number in range(20):
        one = {**hosts.booking(record, starts_in_s=3600 + number), "end_time": time.time() + 9000}
        assert client.put(f"/v1/classes/{one['class_id']}", params={"wait": 20}, json=one).status_code == 200
