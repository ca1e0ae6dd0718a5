"""A day with failures is over; then nothing that anybody can read has a secret in it: no log, no run, no answer."""

import base64
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.stage import SECRET, Stage, Town, staged, wait_until
from town.faults import Fault
from town.oss_transcoder import Behaviour, Rule
from town.ports import HOST, free_port

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]  # servers of its own, and a whole day

PREFECT_PASSWORD = f"prefect-{secrets.token_hex(8)}"
KNOWN = {
    "sign key": SECRET,
    "Redis password": f"redis-{secrets.token_hex(8)}",
    "Prefect auth string": f"admin:{PREFECT_PASSWORD}",
    "OSS key": f"oss-{secrets.token_hex(8)}",
    "push key": f"push-{secrets.token_hex(8)}",
    "signature of a recording": f"video-{secrets.token_hex(8)}",
    "signature of a result": f"result-{secrets.token_hex(8)}",
    "password of a recording": f"user-{secrets.token_hex(8)}",
}
HOLD_URLS = {
    *("teacher inbox_list.body", "teacher outbox_list.body", "teacher order_list.payload", "teacher order_list.url"),
    *("teacher video_list.url", "teacher video_list.source_url"),
    *("streamer1 inbox_list.body", "streamer1 video_list.url"),
    *("streamer1 task_list.video_url", "streamer1 task_list.push_url"),
}
"""The columns with what is to be fetched and pushed, as it came and as it goes out; all others are for people."""


def found(known: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, set[str]]:
    """The names of the secrets in each text: as they are, and as they are written in URLs, headers and JSON."""

    def forms(value: str) -> tuple[str, ...]:
        encoded = base64.b64encode(value.encode()).decode().rstrip("=")
        return value, encoded, quote(value, safe=""), json.dumps(value)[1:-1]

    named = [(name, forms(value)) for name, value in known.items()]
    shown = {place: {name for name, its in named if any(one in text for one in its)} for place, text in texts.items()}
    return {place: names for place, names in shown.items() if names}


def columns(database: Path, whose: str) -> dict[str, str]:
    """Each column of each table of a SQLite database."""
    texts: dict[str, str] = {}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        for (table,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
            found = connection.execute(f'select * from "{table}"')
            for (name, *_), *values in zip(found.description, *found.fetchall(), strict=True):
                words = (one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in values)
                texts[f"{whose} {table}.{name}"] = "\n".join(words)
    return texts


def answered(addresses: Sequence[str]) -> dict[str, str]:
    """What a host answers to whoever has no token."""
    asked = [f"http://{address}{path}" for address in addresses for path in ("/health", "/metrics", "/x")]
    bad = f"http://{addresses[0]}/transcode"
    found = {url: httpx.get(url, trust_env=False, timeout=60).text for url in (*asked, f"{bad}/x")}
    wrong = {"record_id": 1, "video_resolution": "720P", "sign": "0" * 32}
    return found | {bad: httpx.post(bad, json=wrong, trust_env=False, timeout=60).text}


def texts(stage: Stage, addresses: Sequence[str]) -> dict[str, str]:
    """All that somebody can read who has none of the secrets, by its place.

    What was put on the streams is the platform's own; our alarms and the heartbeats are anybody's.
    """
    files = [*stage.folder.rglob("*.log"), *stage.town.folder.glob("*.log"), *stage.folder.rglob("*.origin")]
    said = {f"file {file.name}": file.read_text(errors="replace") for file in files}
    said |= {"alarms": json.dumps(stage.ear.alarms), "answers": json.dumps(stage.ear.answers)}
    said |= {"heartbeats": json.dumps(stage.town.redis.hgetall(stage.settings["STREAMERS_KEY"]))}
    said |= answered(addresses) | columns(stage.town.folder / "prefect" / "prefect.db", "prefect")
    ours = {name: text for who in ("teacher", "streamer1") for name, text in columns(stage.database(who), who).items()}
    return said | {name: text for name, text in ours.items() if name not in HOLD_URLS}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, tuple[str, ...]]]:
    """A town where nobody gets in without a secret; its streamer logs JSON, its teacher text."""
    folder = tmp_path_factory.mktemp("guarded")
    addresses = tuple(f"{HOST}:{free_port()}" for _ in range(2))
    with Town(folder, redis_password=KNOWN["Redis password"], prefect_auth=KNOWN["Prefect auth string"]) as town:
        settings = {
            "PREFECT_API_AUTH_STRING": KNOWN["Prefect auth string"],
            "TRANSCODING_TIME_OUT_S": "6",
            "UPLOAD_URL": "oss://put/lessons",
            "PUBLIC_URL": f"{town.origin.url}/put/lessons",
            "OSS_ENDPOINT": town.origin.url,
            "OSS_REGION": "cn-hangzhou",
            "OSS_ACCESS_KEY_ID": "made-up-id",
            "OSS_ACCESS_KEY_SECRET": KNOWN["OSS key"],
            "API_BIND": addresses[0],
            "HEALTH_BIND": addresses[1],
            "ECS_HOSTS": f"ssh://nobody@{HOST}:{free_port()},{town.ssh.url}",
        }
        with staged(town, tmp_path_factory.mktemp("stage"), **settings) as stage:
            stage.own = {"streamer1": {"LOG_FORMAT": "json"}}
            stage.up("teacher", "streamer1")
            yield stage, addresses


def test_after_a_day_with_failures_nothing_shows_a_secret(shown: tuple[Stage, tuple[str, ...]]) -> None:
    """Classes are aired, refused for each reason, and broken; databases, hosts, stores and people fail."""
    (stage, addresses), typed = shown, list[str]()
    town = stage.town

    def pushed(class_id: str, port: int = town.receiver.port) -> str:
        """A push URL with a key, as a live service gives it."""
        return f"rtmp://{HOST}:{port}/live/{class_id}?auth_key={KNOWN['push key']}"

    made, unmade, late = town.record(), town.record(), town.record()
    for record, how in ((made, Behaviour.FAIL), (unmade, Behaviour.FAIL), (late, Behaviour.SILENT)):
        stage.oss.behave(Rule(how, record_id=record))
    town.origin.faults.add(Fault(f"put/lessons/*{unmade}*", method="PUT", status=403))
    town.origin.faults.add(Fault(f"{(gone := town.record())}/*", status=404))
    town.origin.faults.add(Fault(f"{(cut := town.record())}/*", method="GET", truncate_bytes=50_000))
    failing = stage.booking(town.record())
    when = f"when new.class_id = '{failing['class_id']}'"
    stage.alter("teacher", f"create trigger t before insert on order_list {when} begin select raise(abort, 'no'); end")
    stage.book({**failing, "push_url": pushed(failing["class_id"])})
    wait_until(  # alone: a batch is one transaction
        lambda: [run for run in stage.runs("teacher", failing["class_id"]) if run["state_type"] == "FAILED"],
        description="a run has failed with an exception",
    )
    dead = stage.booking(town.record(), starts_in_s=30, length_s=10)
    aired = stage.booking(town.record(), starts_in_s=30, length_s=10)
    booked = [stage.booking(made, "240P"), stage.booking(unmade, "240P"), stage.booking(late, "240P")]
    booked += [stage.booking(gone), stage.booking(cut), aired]
    for one in booked:
        url = f"{one['video_url']}?Expires=2&Signature={KNOWN['signature of a recording']}"
        stage.book({**one, "video_url": url, "push_url": pushed(one["class_id"])})
    locked = stage.booking(town.record())
    locked["video_url"] = locked["video_url"].replace("http://", f"http://user:{KNOWN['password of a recording']}@")
    booked.append({**locked, "class_id": stage.book(locked)})
    place = f"{town.origin.url}/x.flv?Signature={KNOWN['signature of a result']}"
    result = {"cmd": "transcoding", "record_id": town.record(), "video_resolution": "720P", "type": "oss"}
    stage.publish("transcoding", {**result, "result": "sucess", "transcode_video_url": place})
    stage.publish("transcoding", {**result, "result": "sucess", "transcode_video_url": f"ftp{place}"})
    stage.book({**dead, "push_url": pushed(dead["class_id"], free_port())})
    stage.publish("order", {**failing, "class_id": f"{failing['class_id']}-x", "start_time": "soon"})
    stage.publish("order", "no JSON at all")
    codes = {stage.answer(one["class_id"], timeout_s=150)["code"] for one in booked}
    assert codes == {0, 207, 208, 318, 320}
    wait_until(lambda: stage.alarms(502) and stage.alarms(504), description="alarms of the odd results come")
    ends = {aired["class_id"]: "aired", dead["class_id"]: "broken"}
    wait_until(
        lambda: all(stage.airing("streamer1", one)["state"] == state for one, state in ends.items()),
        timeout_s=120,
        description="one is aired, one could not be",
    )
    for one in (dead, *booked):
        typed.append(stage.lectern("teacher", "explain", one["class_id"]).stdout)
    password, deploy = KNOWN["Redis password"], ("deploy", "teacher", "--check")
    mistakes: list[tuple[dict[str, str], tuple[str, ...]]] = [
        ({}, ("status", "--json")),
        ({"REDIS_URL": f"redis://:{password}@{HOST}:{free_port()}/0"}, ("status",)),
        ({"REDIS_URL": password}, ("status",)),
        ({"PREFECT_API_AUTH_STRING": f"{KNOWN['Prefect auth string']}-not"}, deploy),
    ]
    for own, words in mistakes:
        stage.own["teacher"] = own
        done = stage.lectern("teacher", *words)
        typed.append(done.stdout + done.stderr)
    stage.own["teacher"] = {}
    key = town.ssh.client_key.read_text().splitlines()[2]
    known = {**KNOWN, "Prefect password": PREFECT_PASSWORD, "SSH key": key, "signed URL": "x-oss-signature="}
    told = texts(stage, addresses) | {f"typed {number}": text for number, text in enumerate(typed)}
    assert len(told) > 40
    assert any('"level": "WARNING"' in text for text in told.values())  # JSON, too
    assert sum(len(text) for text in told.values()) > 100_000
    assert found(known, told) == {}
