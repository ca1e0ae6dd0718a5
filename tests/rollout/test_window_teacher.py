"""The teacher's window: tables, keys, waiting lists and the JSON config, and all of it back."""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.effects.redis_servers import url_of
from tests.rollout.host import CONFIG, ENV, Host, a_host
from tests.rollout.steps import Fields

pytestmark = pytest.mark.live

RULES = [
    {"old": "waiting:{record_id}:{resolution}", "new": "{record_id}_{resolution}"},
    {"old": "order:{class_id}", "new": "class/{class_id}"},
]
Keys = Mapping[str, object]


def booking(class_id: str) -> str:
    """As the old program keeps it."""
    now = time.time()
    fields = {
        "cmd": "order",
        "class_id": class_id,
        "institution_id": "i-7",
        "video_url": "http://o.example/6666.flv",
        "start_time": int(now + 7200),
        "end_time": int(now + 9000),
        "push_url": "rtmp://live.example/live/c",
        "record_id": 6666,
        "video_url_list": {},
        "video_resolution": "720P",
    }
    return json.dumps(fields)


@pytest.fixture
def client(server: redis.Redis) -> redis.Redis:
    """What the old program left: classes on a waiting list, their bookings, and keys that are nobody's business."""
    server.flushall()
    for class_id in ("c-1", "c-2"):
        server.rpush("waiting:6666:720P", class_id)
        server.set(f"order:{class_id}", booking(class_id), ex=86400)
    server.set("neighbour", "x")
    return server


def keys(client: redis.Redis) -> Keys:
    """All keys with their values, and whether they end."""
    return {name.decode(): (client.dump(name), client.ttl(name) > 0) for name in client.scan_iter()}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with a_host(tmp_path, "teacher") as found:
        yield found


@pytest.fixture
def wanted(host: Host, client: redis.Redis) -> Fields:
    return host.wanted(redis_url=url_of(client), rekey=RULES, order_key="class/{class_id}")


def rows(host: Host, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(host.database)) as connection:
        return connection.execute(statement).fetchall()


def is_new(host: Host, wanted: Fields, client: redis.Redis) -> None:
    assert host.states() == {"lectern-teacher": "RUNNING"}
    assert {*keys(client)} == {"6666_720P", "class/c-1", "class/c-2", "neighbour"}
    assert client.lrange("6666_720P", 0, -1) == [b"c-1", b"c-2"]
    assert rows(host, "SELECT class_id, state FROM order_list ORDER BY class_id") == [
        ("c-1", "waiting"),
        ("c-2", "waiting"),
    ]
    assert rows(host, "SELECT record_id, resolution, status FROM video_list") == [(6666, "720P", "transcoding")]
    config = json.loads((host.code / "config" / "default.json").read_text())
    assert config == {**json.loads(CONFIG), "order_warn_time_out": 86400000, "transcoding_time_out": 120000}
    host.done("verify", wanted=wanted)


def test_a_teacher_becomes_new_and_then_old_again(host: Host, wanted: Fields, client: redis.Redis) -> None:
    before, kept = host.tree(), keys(client)
    answer = host.roll_out(wanted)
    assert [one["step"].split()[0] for one in answer["steps"]] == ["1", "1", "2", "3", "4", "4", "5", "6", "6"]
    is_new(host, wanted, client)
    assert (host.code / ".env").read_text() == ENV, "the note adds nothing to it"
    assert not host.done("window", wanted=wanted)["changed"]
    host.done("rollback", wanted=wanted)
    host.is_old(before)
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


def test_keys_that_were_made_since_get_old_names_too(host: Host, wanted: Fields, client: redis.Redis) -> None:
    host.roll_out(wanted)
    client.rpush("7777_480P", "c-9")
    host.done("rollback", wanted=wanted)
    assert client.lrange("waiting:7777:480P", 0, -1) == [b"c-9"]
    assert not client.exists("7777_480P")


KILL_BEHIND_THE_RENAMES = """
import os
from lectern.redis import rename
real = rename.renamed
def renamed(*given, **more):
    real(*given, **more)
    os.kill(os.getpid(), 9)
rename.renamed = renamed
"""


@pytest.mark.parametrize("fault", ["", KILL_BEHIND_THE_RENAMES], ids=["at once", "killed and resumed"])
def test_keys_that_had_new_names_before_the_rollout_keep_them(
    host: Host, wanted: Fields, client: redis.Redis, fault: str
) -> None:
    """They are somebody else's, or were renamed by hand: the way back takes back what this rollout has renamed."""
    client.rpush("9999_720P", "c-8")
    client.set("class/by-hand", booking("by-hand"), ex=86400)
    kept = keys(client)
    host.done("backup", wanted=wanted)
    if fault:
        assert host.step("window", wanted=wanted, fault=fault).code == -9
    answer = host.done("window", wanted=wanted)
    said = "Keys that had such names before, and keep them in a rollback: 2."
    assert (said in answer["said"]) == (not fault), "it is said once"
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


def test_a_redis_that_does_not_answer_stops_nothing(host: Host, wanted: Fields) -> None:
    wanted["redis_url"] = "redis://127.0.0.1:1/0"
    host.done("backup", wanted=wanted)
    assert "Redis does not answer" in host.step("window", wanted=wanted).msg
    assert host.states() == {"idc_client": "RUNNING"}
    assert not host.done("rollback", wanted=wanted)["changed"]


def test_a_redis_that_is_lost_in_the_window_keeps_no_old_program_from_running_again(
    host: Host, wanted: Fields, client: redis.Redis
) -> None:
    """It is lost behind the renames. All else is taken back at once; the keys follow when it is called again."""
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


def test_what_is_no_config_is_found_before_anything(host: Host, wanted: Fields) -> None:
    (host.code / "config" / "default.json").write_text('{\n"order_warn_time_out": 1000*60*minutes\n}')
    assert "line 2, column 31" in host.step("preflight", wanted=wanted).msg


def test_from_one_release_to_the_next_a_class_that_is_not_placed_is_not_in_the_way(host: Host, wanted: Fields) -> None:
    """The silence is seconds, and what comes in it is kept."""
    host.roll_out(wanted)
    host.stage_release("2.0.1")
    newer = {**wanted, "version": "2.0.1", "quiet_minutes": 600}
    assert "not yet placed on a streamer" not in host.step("preflight", wanted=newer).msg


def test_an_upgrade_and_its_way_back_leave_the_keys_and_requests_of_the_release_behind_alone(
    host: Host, wanted: Fields, client: redis.Redis
) -> None:
    """What the first rollout took over is ours: nothing is renamed once more, and no request counts as made."""
    host.roll_out(wanted)
    host.write("UPDATE video_list SET attempt = 1, deadline = NULL, requested_at = NULL")
    before, asked = keys(client), rows(host, "SELECT * FROM video_list")
    host.stage_release("2.0.1")
    newer = {**wanted, "version": "2.0.1"}
    host.roll_out(newer)
    assert (keys(client), rows(host, "SELECT * FROM video_list")) == (before, asked)
    host.done("rollback", wanted=newer)
    assert keys(client) == before
    is_new(host, wanted, client)
