"""What the operations team types, as processes: what is printed, and the exit codes; and where classes are placed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage import Stage, Town, staged, wait_until

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def two_streamers(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher and two streamers."""
    with staged(town, tmp_path_factory.mktemp("pair")) as found:
        found.up("teacher", "streamer1", "streamer2")
        beats = lambda: len(json.loads(found.lectern("teacher", "status", "--json").stdout)["streamers"]) == 2  # noqa: E731
        wait_until(beats, description="both streamers were heard of")
        yield found


def test_status_tells_bookings_streamers_and_what_waits(two_streamers: Stage) -> None:
    """For programs as JSON, for people in lines."""
    two_streamers.answer(two_streamers.book(two_streamers.booking(two_streamers.town.record())))
    found = json.loads(two_streamers.lectern("teacher", "status", "--json").stdout)
    assert found["bookings"]["ready"] >= 1
    assert set(found["streamers"]) == {two_streamers.name("streamer1"), two_streamers.name("streamer2")}
    said = two_streamers.lectern("teacher", "status")
    assert said.returncode == 0
    assert f"streamer    {two_streamers.name('streamer1')}:" in said.stdout


def test_a_class_is_booked_explained_and_cancelled_by_hand(two_streamers: Stage, tmp_path: Path) -> None:
    """Each command says what to type next."""
    booking = two_streamers.booking(two_streamers.town.record())
    class_id = booking["class_id"]
    file = tmp_path / "booking.json"
    file.write_text(json.dumps(booking))
    booked = two_streamers.lectern("teacher", "book", str(file))
    assert (booked.returncode, booked.stderr) == (0, "")
    assert f"lectern explain {class_id}" in booked.stdout
    where = two_streamers.answer(class_id)["streamer"].removeprefix(f"{two_streamers.prefix}-")

    story = json.loads(two_streamers.lectern("teacher", "explain", class_id, "--json").stdout)
    assert [one["what"] for one in story["events"]][:2] == ["placed", "answered with success"]
    told = two_streamers.lectern(where, "explain", class_id)
    assert "downloaded" in told.stdout

    assert two_streamers.lectern("teacher", "cancel", class_id).returncode == 0
    wait_until(lambda: two_streamers.order(class_id)["state"] == "cancelled", description="it is cancelled")
    assert "cancelled" in two_streamers.lectern("teacher", "explain", class_id).stdout


def test_a_booking_by_hand_can_wait_for_its_answer(two_streamers: Stage) -> None:
    booking = two_streamers.booking(two_streamers.town.record())
    done = two_streamers.lectern("teacher", "book", "-", "--wait", text=json.dumps(booking))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{booking['class_id']}: " in done.stdout
    assert two_streamers.answer(booking["class_id"])["result"] == "success"


def test_a_second_cancel_leaves_its_line_in_the_story_of_the_class(two_streamers: Stage) -> None:
    """The platform may send one: who asks later why a class was not aired sees both."""
    class_id = two_streamers.book(two_streamers.booking(two_streamers.town.record()))
    two_streamers.answer(class_id)
    for _ in range(2):
        two_streamers.publish("cancel", {"cmd": "cancel", "class_id": class_id})
        wait_until(lambda: two_streamers.order(class_id)["state"] == "cancelled", description="it is cancelled")
    said = "select 1 from event_list where class_id = ? and what = 'cancel of a class that is cancelled'"
    wait_until(lambda: two_streamers.rows("teacher", said, class_id), description="the second cancel is noted")


def test_the_cache_is_listed_emptied_and_compared(two_streamers: Stage) -> None:
    """What a class needs is not evicted by hand either."""
    record = two_streamers.town.record()
    class_id = two_streamers.book(two_streamers.booking(record))
    where = two_streamers.answer(class_id)["streamer"].removeprefix(f"{two_streamers.prefix}-")
    listed = json.loads(two_streamers.lectern(where, "cache", "ls", "--json").stdout)
    (row,) = [one for one in listed if one["stem"] == str(record)]
    assert (row["state"], row["num_cite"]) == ("ready", 1)
    pinned = two_streamers.lectern(where, "cache", "evict", str(record))
    assert pinned.returncode == 2
    assert "1 class needs it" in pinned.stderr

    two_streamers.cancel(class_id)
    wait_until(lambda: two_streamers.num_cite(where, str(record)) == 0, description="nothing needs it")
    assert two_streamers.lectern(where, "cache", "evict", str(record)).returncode == 0
    assert str(record) not in two_streamers.cached(where)
    again = two_streamers.lectern(where, "cache", "evict", str(record))
    assert (again.returncode, "not in the cache" in again.stderr) == (2, True)
    assert not (two_streamers.folder / where / str(record)).exists()

    assert json.loads(two_streamers.lectern(where, "cache", "reconcile", "--json").stdout) == {"differences": []}
    stray = two_streamers.folder / where / "stray.txt"
    stray.write_text("?")
    assert "stray.txt: no row knows it" in two_streamers.lectern(where, "cache", "reconcile").stdout
    stray.unlink()


def test_init_can_be_repeated(two_streamers: Stage) -> None:
    """The second time it changes nothing; --check only looks."""
    assert json.loads(two_streamers.lectern("teacher", "init", "teacher", "--json").stdout)["changed"] is False
    assert two_streamers.lectern("teacher", "init", "teacher", "--check").stdout == "The database is as it should be.\n"


def test_init_mends_a_work_pool_that_was_made_otherwise(two_streamers: Stage) -> None:
    """With the usual template the server checks a schema in each new run, which takes it longer than all the rest."""
    usual = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}
    two_streamers.change("/work_pools/resident", base_job_template=usual)
    made = json.loads(two_streamers.lectern("teacher", "init", "teacher", "--json").stdout)["prefect"]
    assert made == ["work pool resident"]
    found = two_streamers.town.api.get("/work_pools/resident").raise_for_status().json()
    assert "command" not in json.dumps(found["base_job_template"])


def test_a_host_that_was_not_initialised_says_what_to_type(town: Town, tmp_path: Path) -> None:
    with staged(town, tmp_path) as fresh:
        done = fresh.lectern("teacher", "serve", "teacher")
    assert done.returncode != 0
    assert "lectern init" in done.stderr


def test_deployments_can_be_made_alone_and_again(two_streamers: Stage) -> None:
    """``lectern deploy`` changes nothing where all is there, and says what is missing where it is not.

    An automation by which an earlier build passed alarms on is deleted.
    """
    asked, api = {"automations": {"name": {"any_": ["lectern: alarms"]}}}, two_streamers.town.api
    trigger = {"type": "event", "posture": "Reactive", "expect": ["lectern.alarm"], "threshold": 1, "within": 0}
    earlier = {"name": "lectern: alarms", "trigger": trigger, "actions": []}
    api.post("/automations/", json=earlier).raise_for_status()
    assert json.loads(two_streamers.lectern("teacher", "deploy", "teacher", "--json").stdout) == {
        "changed": False,
        "prefect": [],
    }
    assert api.post("/automations/filter", json=asked).raise_for_status().json() == []
    new = (*("deploy", "streamer", "--name", f"{two_streamers.prefix}-new"), "--json")
    planned = json.loads(two_streamers.lectern("streamer1", *new, "--check").stdout)
    assert f"deployment broadcast/{two_streamers.prefix}-new" in planned["prefect"]
    made = json.loads(two_streamers.lectern("streamer1", *new).stdout)
    assert made == planned
    assert json.loads(two_streamers.lectern("streamer1", *new).stdout)["changed"] is False
