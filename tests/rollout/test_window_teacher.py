"""The teacher's window: tables, keys, waiting lists and the JSON config, and all of it back."""

import json
import time

import pytest
import redis

from tests.effects.redis_servers import url_of
from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.places import Role
from tests.rollout.host import Host
from tests.rollout.steps import Fields
from tests.rollout.test_adopt_teacher import keys
from tests.strategies import booking

pytestmark = pytest.mark.live

RULES = [
    {"old": "waiting:{record_id}:{resolution}", "new": "{record_id}_{resolution}"},
    {"old": "order:{class_id}", "new": "class/{class_id}"},
]
NEW_NAMES = {"rekey": RULES, "order_key": "class/{class_id}"}


def booked(class_id: str) -> str:
    """As the old program keeps it."""
    now = int(time.time())
    return booking(class_id, start_time=now + 7200, end_time=now + 9000).to_json()


@pytest.fixture
def client(server: redis.Redis) -> redis.Redis:
    """What the old program left: classes on a waiting list, their bookings, and keys that are nobody's business."""
    server.flushall()
    for class_id in ("c-1", "c-2"):
        server.rpush("waiting:6666:720P", class_id)
        server.set(f"order:{class_id}", booked(class_id), ex=86400)
    server.set("neighbour", "x")
    return server


@pytest.fixture
def role() -> Role:
    return "teacher"


@pytest.fixture
def wanted(host: Host, client: redis.Redis) -> Fields:
    return host.wanted(redis_url=url_of(client), **NEW_NAMES)


def is_new(host: Host, wanted: Fields, client: redis.Redis) -> None:
    assert host.states() == {"lectern-teacher": "RUNNING"}
    assert {*keys(client)} == {"6666_720P", "class/c-1", "class/c-2", "neighbour"}
    assert client.lrange("6666_720P", 0, -1) == [b"c-1", b"c-2"]
    booked = host.rows("SELECT class_id, state FROM order_list ORDER BY class_id")
    assert booked == [["c-1", "waiting"], ["c-2", "waiting"]]
    assert host.rows("SELECT record_id, resolution, status FROM video_list") == [[6666, "720P", "transcoding"]]
    config = json.loads((host.code / "config" / "default.json").read_text())
    assert config == {
        **json.loads(old_world.config(host.places)),
        "order_warn_time_out": 86400000,
        "transcoding_time_out": 120000,
    }
    host.done("verify", wanted=wanted)


def test_a_teacher_becomes_new_and_then_old_again(host: Host, wanted: Fields, client: redis.Redis) -> None:
    before, kept = host.tree(), keys(client)
    answer = host.roll_out(wanted)
    assert [one["step"].split()[0] for one in answer["steps"]] == ["1", "1", "2", "3", "4", "4", "5", "6", "6"]
    is_new(host, wanted, client)
    assert not (host.code / ".env").exists(), "the note adds nothing to it"
    assert not host.done("window", wanted=wanted)["changed"]
    client.rpush("7777_480P", "c-9")
    host.done("rollback", wanted=wanted)
    host.is_old(before)
    assert client.lrange("waiting:7777:480P", 0, -1) == [b"c-9"], "keys that were made since get old names, too"
    client.delete("waiting:7777:480P")
    assert keys(client) == kept
    assert "hidden" not in json.dumps(answer)
    assert "made-up secret" not in json.dumps(answer)


def test_a_new_database_belongs_to_the_user_of_the_program(host: Host, wanted: Fields) -> None:
    wanted["user"] = "nobody"
    host.done("backup", wanted=wanted)
    said = json.dumps(host.done("window", wanted=wanted))
    assert host.database.owner() == "nobody"
    assert "There is no database yet" in said
    assert "Copied" not in said, "nothing was there to be copied"


RENAMED = 11
"""The line of the journal that says that the keys have new names."""


@pytest.mark.parametrize("number", [None, RENAMED], ids=["at once", "killed and resumed"])
def test_keys_that_had_new_names_before_the_rollout_keep_them(
    host: Host, wanted: Fields, client: redis.Redis, number: int | None
) -> None:
    """They are somebody else's, or were renamed by hand: the way back takes back what this rollout has renamed."""
    client.rpush("9999_720P", "c-8")
    client.set("class/by-hand", booked("by-hand"), ex=86400)
    kept = keys(client)
    host.done("backup", wanted=wanted)
    if number:
        host.killed("window", number, wanted)
    answer = host.done("window", wanted=wanted)
    said = "Keys that had such names before, and keep them in a rollback: 2."
    assert (said in answer["said"]) == (number is None), "it is said once"
    host.done("rollback", wanted=wanted)
    assert keys(client) == kept


def test_a_name_that_is_taken_is_told_by_preflight_and_takes_the_window_back(
    host: Host, wanted: Fields, client: redis.Redis
) -> None:
    client.rpush("6666_720P", "precious")
    before, kept = host.tree(), keys(client)
    clash = "waiting:6666:720P stays as it is, 6666_720P is there already"
    assert clash in host.step("preflight", wanted=wanted).msg
    host.done("backup", wanted=wanted)
    answered = host.step("window", wanted=wanted)
    assert answered.code == 1
    assert clash in answered.msg
    host.is_old(before)
    assert client.lrange("6666_720P", 0, -1) == [b"precious"]
    assert client.lrange("waiting:6666:720P", 0, -1) == [b"c-1", b"c-2"]
    assert keys(client) == kept


LOSE_REDIS = """
from lectern.rollout import redis_keys as keys
calls, real = [], keys.opened
def opened(wanted, *more):
    calls.append(wanted)
    other = wanted.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    return real(wanted if len(calls) <= 2 else other, *more)
keys.opened = opened
"""


def test_a_redis_that_is_lost_in_the_window_keeps_no_old_program_from_running_again(
    host: Host, wanted: Fields, client: redis.Redis
) -> None:
    """It is lost behind the renames. All else is taken back at once; the keys follow when it is called again.

    If it does not answer before, nothing is stopped.
    """
    away = {**wanted, "redis_url": "redis://127.0.0.1:1/0"}
    host.done("backup", wanted=away)
    assert "Redis does not answer" in host.fails("window", wanted=away)
    assert host.states() == {"virtual-teacher": "RUNNING"}
    assert not host.done("rollback", wanted=away)["changed"]
    before, kept = host.tree(), keys(client)
    host.done("backup", wanted=wanted)
    answered = host.step("window", wanted=wanted, fault=LOSE_REDIS)
    assert answered.code == 1
    assert "The old programs run again, but not all is back; keys: Redis does not answer" in answered.msg
    host.is_old(before)
    assert "half" in host.step("verify", wanted=wanted).msg
    assert host.done("rollback", wanted=wanted)["changed"]
    host.is_old(before)
    assert keys(client) == kept
    host.done("verify", wanted=wanted)


def test_an_upgrade_and_its_way_back_leave_the_keys_and_requests_of_the_release_behind_alone(
    host: Host, wanted: Fields, client: redis.Redis
) -> None:
    """What the first rollout took over is ours: nothing is renamed once more, and no request counts as made.

    A class that is not placed is not in the way: the silence is seconds, and what comes in it is kept.
    """
    host.roll_out(wanted)
    host.write("UPDATE video_list SET attempt = 1, deadline = NULL, requested_at = NULL")
    before, asked = keys(client), host.rows("SELECT * FROM video_list")
    host.stage_release("2.0.1")
    newer = {**wanted, "version": "2.0.1", "quiet_minutes": 600}
    assert "not yet placed on a streamer" not in host.step("preflight", wanted=newer).msg
    host.roll_out(newer)
    assert (keys(client), host.rows("SELECT * FROM video_list")) == (before, asked)
    host.done("rollback", wanted=newer)
    assert keys(client) == before
    is_new(host, wanted, client)
