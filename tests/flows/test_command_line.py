"""What the operations team types, as processes: what is printed, and the exit codes."""

import json

import httpx
import pytest

from tests.stage import Stage, wait_until

pytestmark = pytest.mark.live


def test_a_class_is_booked_explained_and_cancelled_by_hand(stage: Stage) -> None:
    """Who books it can wait for its answer."""
    booking = stage.booking(stage.town.record())
    class_id = booking["class_id"]
    booked = stage.lectern("teacher", "book", "-", "--wait", text=json.dumps(booking))
    assert (booked.returncode, booked.stderr) == (0, "")
    assert f"{class_id}: " in booked.stdout
    where = stage.answer(class_id)["streamer"].removeprefix(f"{stage.prefix}-")

    story = json.loads(stage.lectern("teacher", "explain", class_id, "--json").stdout)
    assert [one["what"] for one in story["events"]][:2] == ["placed", "answered with success"]
    told = stage.lectern(where, "explain", class_id)
    assert "downloaded" in told.stdout

    assert stage.lectern("teacher", "cancel", class_id).returncode == 0
    wait_until(lambda: stage.order(class_id)["state"] == "cancelled", description="it is cancelled")
    assert "cancelled" in stage.lectern("teacher", "explain", class_id).stdout


def test_a_change_by_hand_is_planned_and_sent_and_answered(stage: Stage) -> None:
    """What a dry run prints is what would be written, and nothing is."""
    booking = stage.booking(stage.town.record(), starts_in_s=900)
    class_id = stage.book(booking)
    stage.answer(class_id)
    wait_until(lambda: stage.order(class_id)["answered_at"], description="it is noted that it was answered")
    before = stage.order(class_id)
    end = str(booking["end_time"] + 600)
    planned = stage.lectern("teacher", "change", class_id, "--end", end, "--dry-run")
    assert f"class_id: {class_id}^1" in planned.stdout, planned.stderr
    assert stage.order(class_id) == before
    done = stage.lectern("teacher", "change", class_id, "--end", end, "--wait", "--json")
    assert (done.returncode, json.loads(done.stdout)["result"]) == (0, "success"), done.stderr
    assert stage.order(class_id)["end_time"] == float(end)
    refused = stage.lectern("teacher", "change", class_id, "--end", "1000", "--wait")
    assert (refused.returncode, "fail, 400" in refused.stdout) == (1, True)
    assert stage.lectern("teacher", "change", class_id).returncode == 2
    assert stage.lectern("teacher", "change", class_id, "--end", "soon").returncode == 2


def test_what_is_pushed_of_a_class_on_air_can_be_previewed_and_its_key_only_if_asked_for(stage: Stage) -> None:
    """Its picture comes from its streamer by way of the teacher."""
    booking = stage.booking(stage.town.record(), starts_in_s=8, length_s=60)
    class_id, url = stage.book(booking), booking["push_url"]
    where = stage.answer(class_id)["streamer"].removeprefix(f"{stage.prefix}-")
    stage.on_air(class_id)
    wait_until(lambda: stage.lectern("teacher", "preview", class_id).returncode == 0, description="its beat says so")
    for who in (where, "teacher"):
        shown = json.loads(stage.lectern(who, "preview", class_id, "--json").stdout)
        assert url.removesuffix(class_id) not in shown["play"][0]
        assert stage.lectern(who, "preview", class_id, "--with-key").stdout.splitlines()[0] == f"ffplay {url}"
    viewer = json.loads(stage.lectern("teacher", "viewer", "add", class_id, "--json").stdout)
    with httpx.Client(trust_env=False, follow_redirects=True, timeout=30) as browser:
        browser.get(viewer["url"])
        wait_until(
            lambda: browser.get(shown["still"]).headers["content-type"] == "image/jpeg",
            pause_s=1,
            description="its picture comes",
        )


def test_the_cache_is_listed_emptied_and_compared(stage: Stage) -> None:
    """What a class needs is not evicted by hand either."""
    record = stage.town.record()
    class_id = stage.book(stage.booking(record))
    where = stage.answer(class_id)["streamer"].removeprefix(f"{stage.prefix}-")
    listed = json.loads(stage.lectern(where, "cache", "ls", "--json").stdout)
    (row,) = [one for one in listed if one["stem"] == str(record)]
    assert (row["state"], row["num_cite"]) == ("ready", 1)
    pinned = stage.lectern(where, "cache", "evict", str(record))
    assert pinned.returncode == 2
    assert "needs it" in pinned.stderr

    stage.cancel(class_id)
    wait_until(lambda: stage.num_cite(where, str(record)) == 0, description="nothing needs it")
    assert stage.lectern(where, "cache", "evict", str(record)).returncode == 0
    assert str(record) not in stage.cached(where)
    again = stage.lectern(where, "cache", "evict", str(record))
    assert (again.returncode, "not in the cache" in again.stderr) == (2, True)
    assert not (stage.folder / where / str(record)).exists()

    known = json.loads(stage.lectern(where, "cache", "reconcile", "--json").stdout)["differences"]
    assert [one for one in known if str(record) in str(one)] == []
    stray = stage.folder / where / "stray.txt"
    stray.write_text("?")
    assert "stray.txt: no row knows it" in stage.lectern(where, "cache", "reconcile").stdout
    stray.unlink()


def test_init_can_be_repeated_and_mends_a_work_pool_that_was_made_otherwise(stage: Stage) -> None:
    """With the usual template the server checks a schema in each new run, which takes it longer than all the rest."""
    assert json.loads(stage.lectern("teacher", "init", "teacher", "--json").stdout)["changed"] is False
    usual = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}
    stage.change("/work_pools/resident", base_job_template=usual)
    made = json.loads(stage.lectern("teacher", "init", "teacher", "--json").stdout)["prefect"]
    assert made == ["work pool resident"]
    found = stage.town.api.get("/work_pools/resident").raise_for_status().json()
    assert "command" not in json.dumps(found["base_job_template"])


def test_deployments_can_be_made_alone_and_again(stage: Stage) -> None:
    """``lectern deploy`` changes nothing where all is there, and says what is missing where it is not."""
    assert json.loads(stage.lectern("teacher", "deploy", "teacher", "--json").stdout) == {
        "changed": False,
        "prefect": [],
    }
    new = (*("deploy", "streamer", "--name", f"{stage.prefix}-new"), "--json")
    planned = json.loads(stage.lectern("streamer1", *new, "--check").stdout)
    assert f"deployment broadcast/{stage.prefix}-new" in planned["prefect"]
    made = json.loads(stage.lectern("streamer1", *new).stdout)
    assert made == planned
    assert json.loads(stage.lectern("streamer1", *new).stdout)["changed"] is False
