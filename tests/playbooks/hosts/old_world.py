"""Lays out a host as the old programs left it: code, settings, database, recordings, supervisor files, Redis keys."""

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path, PurePosixPath

import redis

from tests.playbooks.hosts.old.streamer.code.model import BOOKED, OVER, TASK_LIST
from tests.playbooks.hosts.places import Places
from tests.strategies import BOOKING

OLD = Path(__file__).parent / "old"
IDC_TOKEN, OSS_SECRET = "made-up-idc-token", "made-up-oss-secret"
DAY_S = 86400
CLASS_S = 60
"""Length of a class that the streamer has: its recordings have half a minute, and no alarm is to say they are short."""

_CONFIG = """\
{
   "host": "127.0.0.1",
   "port": %d,
   "redis" : %s,
     "order_warn_time_out": 3600000,
   "notify": { "sms": ["13800000000"], "mail": "ops@school.example" },
   "oss": {"bucket":"record", "secret": "%s"},

   "video_resolution_default": "480P"
}
"""


def lay_out(places: Places, tree: Path, recording: Path, *, tag: str) -> None:
    """Everything that the old program of a host is and has, under *tree* as if it were the host's ``/``.

    *recording* is a short FLV; *tag* makes the names of classes differ from those of an earlier lay-out.
    """
    lay_out_program(places, tree)
    write_program(places, tree, "watchdog", "sleep 1000000")
    write_program(places, tree, "cleaner", "sleep 1000001")
    if places.role == "streamer":
        _database(_under(tree, places.database), tag)
        videos = _under(tree, places.video_root)
        videos.mkdir(parents=True)
        for name in ("video_4940_22.flv", f"old-{tag}-2.flv", "video_5005_3.flv", "holiday.flv"):
            shutil.copy(recording, videos / name)


def lay_out_program(places: Places, tree: Path, **lines: str) -> None:
    """The old program alone, without its data: its code, its settings, its supervisor file, which has these *lines*."""
    code, base = _under(tree, places.code_dir), _under(tree, places.base)
    shutil.copytree(OLD / places.role / "code", code, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (base, _under(tree, places.programs_dir)):
        folder.mkdir(parents=True, exist_ok=True)
    command = "idc_client_nsp.py"
    if places.role == "streamer":
        (code / ".env").write_bytes(dotenv(places))
        (code / ".env").chmod(0o640)
    else:
        (code / "config").mkdir()
        (code / "config" / "default.json").write_text(config(places))
        shutil.copy(OLD / "teacher" / "node.py", base / "node")
        command = f"{places.base}/node app.js"
    write_program(places, tree, places.old_program, f"{places.python} -S -B {command}", **lines)


def write_program(places: Places, tree: Path, name: str, command: str, **lines: str) -> None:
    """A supervisor file; *lines* are added, or take the place of its own."""
    own = {
        "command": command,
        "directory": str(places.code_dir if name == places.old_program else places.base),
        "user": places.user,
        "autostart": "true",
        "autorestart": "true",
        "startsecs": "1",
        "redirect_stderr": "true",
        "stdout_logfile": f"{places.base}/{name}.log",
    }
    text = "".join(f"{key}={value}\n" for key, value in {**own, **lines}.items())
    file = _under(tree, places.programs_dir / f"{name}.conf")
    file.write_text(f"; {name}, as the old programs' people wrote it\n[program:{name}]\n{text}")


def config(places: Places) -> str:
    """The old teacher's JSON config."""
    return _CONFIG % (places.port, json.dumps(places.redis_url), OSS_SECRET)


def dotenv(places: Places) -> bytes:
    """The old streamer's .env: comments, an export, a line of Windows, a secret, no last newline."""
    lines = (
        "# push host of the virtual teacher\n",
        "CLIENT_HOST=127.0.0.1\n",
        f"export CLIENT_PORT={places.port}\n",
        f'IDC_TOKEN="{IDC_TOKEN}"\r\n',
        "\n",
        f"VIDEO_DIR={places.video_root}\n",
        f"  DIARY = {places.diary}\n",
        "#DOWNLOAD_RATE=300k\n",
        "wget_path=/usr/local/bin/wget\n",
        f"OSS_SECRET={OSS_SECRET}",
    )
    return "".join(lines).encode()


def booked(tag: str) -> dict[str, tuple[str, int]]:
    """The old program's classes: name to the end of its URL, and seconds from now until it starts."""
    return {
        f"old-{tag}-1": ("record/4940_22/video_4940_22.flv", 2 * DAY_S),  # its file lies under the URL's name
        f"old-{tag}-2": ("7001/7001.flv", 2 * DAY_S),  # its file lies under the class's name
        f"old-{tag}-3": ("record/4950_1/video_4950_1.flv", 3 * DAY_S),  # not downloaded yet
        f"old-{tag}-4": ("record/4940_22/video_4940_22.flv", 4 * DAY_S),  # the same recording once more
        f"old-{tag}-5": ("record/5005_3/video_5005_3.flv", -DAY_S),  # over, its file still there
        f"old-{tag}-6": ("record/5006_3/video_5006_3.flv", -2 * DAY_S),  # over, its file gone
    }


def _database(path: Path, tag: str) -> None:
    now = int(time.time())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(TASK_LIST)
        for class_id, (end_of_url, in_s) in booked(tag).items():
            times, status = (now + in_s, now + in_s + CLASS_S), BOOKED if in_s > 0 else OVER
            urls = f"http://origin.example/{end_of_url}", f"rtmp://live.example/live/{class_id}"
            connection.execute(
                "INSERT INTO task_list VALUES (?, ?, ?, ?, ?, ?, ?)", (class_id, *urls, *times, status, "Li")
            )


def fill_redis(client: redis.Redis, tag: str, *, many: int = 300) -> None:
    """The keys of the old teacher and of its neighbours; *many* waiting lists besides those that tests look at."""
    client.flushdb()
    client.script_flush()  # else what is sent depends on the case before
    now = int(time.time())
    for number in (1, 2):
        client.set(f"class:wait-{tag}-{number}", json.dumps(waiting_booking(f"wait-{tag}-{number}", now + DAY_S)))
        client.rpush("waiting:6666:720P", f"wait-{tag}-{number}")
    client.set(f"class:gone-{tag}", json.dumps(waiting_booking(f"gone-{tag}", now - DAY_S)))
    client.rpush("waiting:6667:480P", f"stranger-{tag}")
    for number in range(many):
        client.rpush(f"waiting:{10000 + number}:240P", f"w-{number}", f"v-{number}")
        if number % 3 == 0:
            client.pexpireat(f"waiting:{10000 + number}:240P", (now + DAY_S) * 1000)
    client.hset("session:9", mapping={"user": "Li", "token": OSS_SECRET})
    client.zadd("statistics", {"2025-11": 12, "2025-12": 3})
    client.set("waiting:of:three:parts", "not a list")
    client.set("waiting:abc", "x", ex=DAY_S)
    client.sadd("teachers", "Li", "Wang")


def waiting_booking(class_id: str, start: int) -> dict[str, object]:
    """As the old program keeps a booking that waits for its 720P."""
    urls = {"480P": "http://origin.example/6666/6666_480P.flv"}
    its = {"class_id": class_id, "start_time": start, "end_time": start + 2700, "video_url_list": urls}
    return {**BOOKING, **its, "push_url": f"rtmp://live.example/live/{class_id}"}


def keys_of(client: redis.Redis) -> dict[str, tuple[object, ...]]:
    """Every key with its type, its content and when it ends."""
    readers = {
        "string": client.get,
        "list": lambda key: client.lrange(key, 0, -1),
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "set": lambda key: sorted(client.smembers(key)),
        "stream": client.xlen,
    }
    found: dict[str, tuple[object, ...]] = {}
    for key in client.scan_iter(count=1000):
        kind = str(client.type(key))
        found[str(key)] = (kind, readers[kind](key), client.pexpiretime(key))
    return found


def _under(tree: Path, path: PurePosixPath) -> Path:
    return tree / path.relative_to("/")
