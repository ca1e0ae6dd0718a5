"""Preflight finds everything that is in the way at once, says what to type, and changes nothing."""

import base64
import json
import os
import shutil
import sqlite3
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from lectern.rollout import on_air, preflight
from lectern.rollout.files import sha256
from lectern.rollout.result import Failed
from tests.answering import Answer, serving
from tests.effects.redis_servers import redis_server, url_of
from tests.rollout.host import DOCUMENTED, Host, a_host
from tests.rollout.steps import Fields
from tests.stage import Child, wait_until
from town import playout
from town.ports import free_port

pytestmark = pytest.mark.live

PASSWORD = "hidden:word with spaces"
STOPPED = 4
"""The line of a window's journal before which everything is stopped, and nothing is changed yet."""


class Login(Answer):
    """A Prefect server of which only the login is there, as its middleware does it."""

    def answer(self) -> None:
        given = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        is_known, is_there = given == f"admin:{PASSWORD}", self.path == "/api/admin/version"
        self.say(404 if not is_there else 200 if is_known else 401)


@pytest.fixture(scope="module")
def prefect() -> Iterator[str]:
    with serving(Login) as server:
        yield f"{server.url}/api"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        found.config_set("requirepass", "hidden")
        with redis.Redis.from_url(url_of(found).replace("//", "//:hidden@")) as client:
            yield client


def wish(host: Host, database: redis.Redis, prefect: str, **other: object) -> Fields:
    """What is wanted of a host, with the logins of both servers."""
    url = url_of(database).replace("//", "//:hidden@")
    fields = host.wanted(redis_url=url, prefect_api_url=prefect, **other)
    fields["env"]["PREFECT_API_AUTH_STRING"] = f"admin:{PASSWORD}"
    return fields


@pytest.fixture
def wanted(host: Host, database: redis.Redis, prefect: str) -> Fields:
    return wish(host, database, prefect, record_patterns=[r"/(?P<record_id>\d+)\.flv$"])


def refused(host: Host, wanted: Fields, *options: str) -> list[str]:
    return host.refuses("preflight", *options, wanted=wanted)


def test_an_untouched_host_is_told_what_is_to_be_done(host: Host, wanted: Fields) -> None:
    answer = host.done("preflight", wanted=wanted)
    assert (answer["state"], answer["changed"]) == ("untouched", False)
    answer = host.done("open", "--check", wanted=wanted)
    assert [task for task, one in answer["plan"].items() if not one["changed"]] == ["adopt", "healthy"]
    plan, column = " ".join(answer["said"]), "alter table task_list add column institution_id"
    assert all(words in plan for words in ("Stop all", column, "video_list: new table", ".env: changes", "Reload"))
    diff = {Path(one["after_header"]).name: one for one in answer["diff"]}
    assert diff[".env"]["before"] == "wget_path=/usr/local/bin/wget\n"
    assert diff[".env"]["after"].splitlines() == [f"{name}={value}" for name, value in DOCUMENTED.items()]
    assert diff["settings.env"]["after"].splitlines() == [
        "STREAMER_NAME=streamer1",
        f"HEALTH_BIND=127.0.0.1:{host.places.port}",
        "PREFECT_API_AUTH_STRING=********",
    ]
    assert "hidden" not in json.dumps(answer)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_no_step_of_check_changes_byte_of_host(host: Host, wanted: Fields, mode: str, database: redis.Redis) -> None:
    """Untouched, half done and finished; nobody writes meanwhile, so every file can be compared.

    Neither does verify.
    """
    host.ctl("stop", "all")
    with closing(sqlite3.connect(host.database)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")

    def look(*steps: str) -> None:
        keys = sorted(database.keys())
        before = host.everything()
        for step in steps:
            host.done(step, "--check", wanted=wanted)
            assert host.everything() == before, step
        assert sorted(database.keys()) == keys

    look("preflight", "backup", "open", "rollback")
    host.done("backup", wanted=wanted)
    look("preflight", "backup", "open", "rollback")
    host.dies("window", "settings_files.SettingsFile.apply", wanted)
    look("preflight", "backup", "open", "rollback")
    host.done("window", wanted=wanted)
    host.ctl("stop", "all")
    look("preflight", "backup", "open", "rollback")
    before = host.everything()
    assert host.step("verify", wanted=wanted).fields["failed"]
    assert host.everything() == before


def assert_each_once(said: list[str], *words: str) -> None:
    assert {one: sum(one in sentence for sentence in said) for one in words} == dict.fromkeys(words, 1), said


def test_all_that_is_missing_or_wrong_is_said_at_once(host: Host, wanted: Fields) -> None:
    """A check needs neither wget nor a staged release."""
    manifest = host.root / "releases/2.0.0/manifest.json"
    manifest.write_text('{"version": "1.9.9"}')
    (host.programs / "idc_client.conf").unlink()
    missing = {
        **wanted,
        "user": "nobody-knows-me",
        "database": str(host.code / "other.db"),
        "env": {**wanted["env"], "wget_path": "/usr/bin/no-wget"},
        "prefect_api_url": "http://127.0.0.1:1/api",
        "redis_url": "redis://:wrong-hidden@127.0.0.1:1/0",
        "supervisorctl": [*host.supervisorctl[:-2], "-s", "unix:///nowhere/s"],
    }
    assert_each_once(
        refused(host, missing),
        "it was written for another manifest",
        "no user nobody-knows-me",
        "the old program's supervisor file is not there",
        "the old program's database is not there",
        "no-wget: there is no such program",
        "Prefect does not answer",
        "Redis does not answer",
        "supervisord does not answer",
    )
    (manifest.parent / ".complete").write_text(sha256(manifest))
    wanted["redis_url"] = wanted["redis_url"].replace("//:", "//:not-")
    wanted["env"]["PREFECT_API_AUTH_STRING"] = f"admin:not {PASSWORD}"
    host.write("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    host.write("INSERT INTO alembic_version VALUES ('streamer_9999')")
    (host.code / ".env").write_bytes(b"A=\xff\n")
    assert_each_once(
        refused(host, wanted),
        "it is version 1.9.9, and 2.0.0 is wanted",
        "the old program's supervisor file is not there",
        "Redis refuses the login",
        "Prefect refuses the login",
        "a newer release wrote it (revision streamer_9999",
        "not UTF-8",
    )
    shutil.rmtree(manifest.parent)
    assert "not there" in refused(host, missing)[0]
    said = " ".join(refused(host, missing, "--check"))
    assert "release" not in said
    assert "no-wget" not in said


def test_a_class_on_air_or_due_soon_is_in_the_way(host: Host, wanted: Fields) -> None:
    """With no quiet minutes only one that is on air; a backup may be made all the same.

    What our own program knows of a class counts more than its times.
    """
    now = time.time()
    host.book("over", now - 600, now - 1)
    host.book("later", now + 1900, now + 3000)
    host.done("preflight", wanted=wanted)
    host.book("due", now + 1700, now + 3000)
    (one,) = refused(host, wanted)
    assert "class 'due'" in one
    assert "Roll out after" in one
    host.done("preflight", wanted={**wanted, "quiet_minutes": 0})
    host.book("on-air", now - 600, now + 600)
    assert "class 'on-air'" in " ".join(refused(host, wanted))
    assert "class 'on-air'" in " ".join(refused(host, {**wanted, "quiet_minutes": 0}))
    host.done("backup", wanted=wanted)
    host.write("CREATE TABLE class_list (class_id TEXT PRIMARY KEY, video_id TEXT NOT NULL, site TEXT, state TEXT)")
    for class_id in ("due", "on-air"):
        host.write("INSERT INTO class_list VALUES (?, '6666', NULL, 'cancelled')", class_id)
    host.done("preflight", wanted=wanted)
    host.dies("window", "release_link.apply", wanted)
    host.write("UPDATE class_list SET state = 'ready'")
    assert host.done("preflight", wanted=wanted)["state"] == "half", "the host is silent: nothing may keep it so"


def test_what_runs_again_under_a_half_done_rollout_is_stopped_under_no_class_on_air(host: Host, wanted: Fields) -> None:
    """The host has restarted, or a person has started it: neither the rollout goes on, nor does it go back."""
    host.done("backup", wanted=wanted)
    host.killed("window", STOPPED, wanted)
    host.ctl("start", "all")
    wait_until(lambda: host.states() == {"idc_client": "RUNNING"}, description="the old program is at work again")
    host.book("on-air", time.time() - 600, time.time() + 600)
    pid = host.pid("idc_client")
    (one,) = refused(host, wanted)
    assert "class 'on-air'" in one
    for step in ("window", "rollback"):
        said = host.fails(step, wanted=wanted)
        assert "class 'on-air'" in said
        assert "Nothing was stopped" in said
    assert host.pid("idc_client") == pid
    host.write("DELETE FROM task_list WHERE class_id = 'on-air'")
    host.done("window", wanted=wanted)
    assert host.runs() == "2.0.0"


def test_an_upgrade_wants_a_playout_that_holds_what_is_on_air(host: Host, wanted: Fields, tmp_path: Path) -> None:
    """It airs on while the host is stopped; what it does not hold would be cut.

    Where the settings have no word about it, it is where it is provisioned.
    """
    assert on_air.socket_of(host.parsed()) == Path("/var/lib/lectern/playout/playout.sock")
    assert on_air.socket_of(host.parsed({"PLAYOUT_DIR": "its"})) == host.code / "its/playout.sock"
    folder = host.short / "playout"
    wanted["env"]["PLAYOUT_DIR"] = str(folder)
    host.roll_out(wanted)
    host.stage_release("2.0.1")
    newer = {**wanted, "version": "2.0.1"}
    (one,) = refused(host, newer)
    assert "no playout answers there" in one
    assert "systemctl start lectern-playout" in one
    folder.mkdir()
    running = Child(playout.argv(folder, folder / "playout.sock"), os.environ, tmp_path / "playout.out")
    try:
        wait_until((folder / "playout.sock").exists, description="the playout is there")
        host.done("preflight", wanted=newer)
        host.book("c-7", time.time() - 60, time.time() + 600)
        (one,) = refused(host, newer)
        assert "class 'c-7'" in one
        assert "the playout does not hold them (its lease has run out" in one
    finally:
        running.end()


def test_a_database_that_lacks_a_class_is_in_the_way(tmp_path: Path, prefect: str, database: redis.Redis) -> None:
    """A teacher that gets a PostgreSQL, or a path that was changed: the new program would know of nothing."""
    add = (
        "INSERT INTO order_list (class_id, state, start_time, end_time, payload, received_at, updated_at)"
        " VALUES (?, ?, 1, ?, '{}', 1, 1)"
    )
    with a_host(tmp_path, "teacher") as host:
        wanted = wish(host, database, prefect)
        host.roll_out(wanted)
        other, later = {**wanted, "database": str(host.code / "other.db")}, time.time() + 9000
        host.write(add, "c-over", "ready", 2)
        host.write(add, "c-no", "refused", later)
        host.done("preflight", wanted=other)
        host.write(add, "c-7", "ready", later)
        said = " ".join(refused(host, other))
        assert f"'c-7': booked in {host.database}, and not in {other['database']}" in said
        assert "-e rollout_other_database=true" in said
        host.done("preflight", wanted={**other, "other_database": True})
        host.write("VACUUM INTO ?", other["database"])
        host.done("preflight", wanted=other)


SLIPS = {
    "prefect_api_url": ("http://prefect:42oo/api", "http://[::1/api", "http://prefect..example/api", "prefect"),
    "health_url": ("http://[::1/health", "127.0.0.1:8801/health", "http:///health"),
}


def test_an_address_with_a_slip_in_it_is_in_the_way(host: Host, wanted: Fields) -> None:
    """The setting to correct is named; else the host is stopped, and taken back because nobody could ask it."""
    for setting, urls in SLIPS.items():
        for url in urls:
            slip = {**wanted, setting: url}
            answered = host.step("preflight", wanted=slip)
            assert (answered.code, len(answered.fields["said"]), setting in answered.msg) == (1, 1, True), answered
    answered = host.step("verify", wanted={**wanted, "health_url": "http:///health"})
    assert (answered.code, answered.fields["failed"]) == (1, True)


def test_a_redis_that_takes_no_writes_is_in_the_way(host: Host, wanted: Fields, database: redis.Redis) -> None:
    """The new program would get no lease in it, and could answer nobody."""
    database.config_set("min-replicas-to-write", "1")
    try:
        assert any("Redis refused: NOREPLICAS" in one for one in refused(host, wanted))
    finally:
        database.config_set("min-replicas-to-write", "0")
    database.acl_setuser("narrow", enabled=True, passwords=["+narrow"], keys=["theirs"], commands=["+@all"])
    with_their_keys = {**wanted, "redis_url": wanted["redis_url"].replace("//:hidden@", "//narrow:narrow@")}
    host.done("preflight", "--check", wanted=with_their_keys)
    host.done("preflight", "--check", wanted=wanted)


def test_a_redis_cluster_is_in_the_way_also_if_one_server_has_all_of_it(tmp_path: Path) -> None:
    """The new program refuses it at its start, when the old one is stopped already."""
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis_server(tmp_path, *cluster) as client, a_host(tmp_path / "host", start=False) as host:
        ask: Any = client.execute_command  # untyped
        ask("CLUSTER", "ADDSLOTS", *range(16384))
        wait_until(lambda: b"cluster_state:ok" in ask("CLUSTER", "INFO"), description="it serves")
        (refusal,) = preflight.redis(host.parsed(redis_url=url_of(client)))
    assert "names a Redis Cluster" in refusal


def test_a_clock_that_is_off_or_too_small_a_disk_is_in_the_way(
    host: Host, wanted: Fields, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(time, "time", lambda: now + 60)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1_000_000))
    with pytest.raises(Failed, match=r"clock is \+\d+\.\d s off .*\d+ MB are needed for the copies") as caught:
        preflight.preflight(host.parsed(**wanted))
    assert len(caught.value.answer.said) == 2


def test_rules_that_fit_no_key_and_settings_that_the_new_program_would_refuse_are_in_the_way(
    tmp_path: Path, database: redis.Redis, prefect: str
) -> None:
    """What a person wrote into .env counts, too."""
    database.flushall()
    with a_host(tmp_path, "teacher") as host:
        rule = {"old": "waiting:{record_id}:{resolution}", "new": "{record_id}_{resolution}"}
        wanted = wish(host, database, prefect, rekey=[rule])
        (said,) = refused(host, wanted)
        assert "fit no key in Redis" in said
        assert "-e rollout_unmatched_rules=true" in said
        host.done("preflight", wanted={**wanted, "unmatched_rules": True})
        database.rpush("waiting:6666:720P", "c-1")
        database.config_resetstat()
        host.done("preflight", wanted=wanted)
        scans = database.info("commandstats")["cmdstat_scan"]["calls"]
        assert scans <= 2  # all keys once for the rule, and once for the waiting lists
        wanted["env"]["ECS_HOSTS"] = "ssh://transcode@192.0.2.41"
        assert refused(host, wanted) == [
            "ECS_HOSTS is set, so ECS_SSH_KEY, ECS_KNOWN_HOSTS, UPLOAD_URL, PUBLIC_URL must be set too."
        ]
        wanted["env"] |= {"ECS_SSH_KEY": "/etc/lectern/ecs_key", "ECS_KNOWN_HOSTS": "/etc/lectern/ecs_known_hosts"}
        with (host.code / ".env").open("a") as file:
            file.write("\nUPLOAD_URL=https://store.example/put\nPUBLIC_URL=https://store.example\n")
        host.done("preflight", wanted=wanted)
        (said,) = refused(host, {**wanted, "env": {**wanted["env"], "MAX_ECS_JOBS": "none"}})
        assert "MAX_ECS_JOBS" in said
    database.flushall()
