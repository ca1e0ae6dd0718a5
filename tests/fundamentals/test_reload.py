"""Settings are read anew while a host is at work: all of them are taken over, or none; each says from when on."""

import ast
import asyncio
import json
import logging
import math
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from flows.host import StreamerHost, TeacherHost
from flows.outbox_publisher import patience
from flows.resident import http, maintenance
from flows.resident.http import Reload
from flows.streamer.playout_sync import TimetableReader
from lectern.allowlist import Allowlist
from lectern.errors import OSS_REFUSES, Misuse
from lectern.i18n import translated
from lectern.settings import StreamerSettings, TeacherSettings
from tests.faults import hosts
from tests.fundamentals.test_settings import alone
from tests.rows import bare, commit, look
from tests.typed import lectern
from tests.waiting import async_wait_until, cancelled
from town.ports import free_port

__all__ = ["alone"]
COPIES = {"instance_lock.py", "recorder.py", "consumer.py", "http.py", "process.py", "job.py"}
"""Where a part of the process keeps settings: those that need a restart, and those of a transcoding under way."""


@pytest.fixture
def streamer(streamer: StreamerHost) -> StreamerHost:
    """A streamer whose settings come from `.env`."""
    write(MAX_VIDEO_NUM=1000)
    its = streamer.settings
    streamer.settings = StreamerSettings.load(video_root=its.video_root, streamer_name=its.name)
    return streamer


def write(**values: object) -> None:
    Path(".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))


async def said(host: TeacherHost | StreamerHost) -> list[str]:
    return [str(change) for change in await Reload(host).read()]


def test_no_other_part_keeps_a_copy_of_the_settings() -> None:
    """Nor does a loop go by what was taken before it: the reload says that a change is live."""
    kept = re.compile(r"^ +self\.[\w., ]+ = .*\bsettings\b", re.MULTILINE)
    copied, outdated = set(), list[str]()
    for path in Path(http.__file__).parents[1].rglob("*.py"):
        if kept.search(text := path.read_text()):
            copied.add(path.name)
            continue
        for function in ast.walk(ast.parse(text)):
            its = ast.unparse(function) if isinstance(function, ast.AsyncFunctionDef) else ""
            before, _, loop = its.partition(" while ")
            for name in re.findall(r"^ +(\w+) = \S+\.settings$", before, re.MULTILINE):
                outdated += re.findall(rf"\b{name}\.\w+", loop)
    assert (copied, outdated) == (COPIES, [])


async def test_each_change_is_told_with_when_it_counts(streamer: StreamerHost) -> None:
    """What needs a restart stays, and is told until there is one, or until it is as before."""
    before, changed = streamer.settings, {"MAX_VIDEO_NUM": 800, "DOWNLOAD_RATE": "2000k", "DOWNLOAD_TRIES": 2}
    write(**changed, BROADCAST_LEAD_S=60, LEASE_S=90)
    lines = await said(streamer)
    assert lines == [
        "BROADCAST_LEAD_S 300 -> 60: next class",
        "DOWNLOAD_RATE 1000k -> 2000k: live",
        "DOWNLOAD_TRIES 4 -> 2: next download",
        "LEASE_S 45 -> 90: needs a restart",
        "MAX_VIDEO_NUM 1000 -> 800: live",
    ]
    assert all(translated(line, "zh") != line for line in lines), "each has its id"
    assert (streamer.settings.max_video_num, streamer.settings.download_rate) == (800, "2000k")
    assert (before.max_video_num, before.download_rate) == (1000, "1000k"), "nobody sees them half taken over"
    assert await said(streamer) == ["LEASE_S 45 -> 90: needs a restart"], "the others are taken over already"
    assert (streamer.settings.lease_s, streamer.settings_wait) == (45, ("LEASE_S",))
    write(**changed, BROADCAST_LEAD_S=60)
    assert (await said(streamer), streamer.settings_wait) == ([], ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"MAX_ECS_JOBS": "many"},
        {"ECS_SSH_KEY": "", "ECS_HOSTS": "ssh://u@h:22"},
        {"ALARM_URLS": "nonsense://"},
        {"EVENT_WEBHOOK_SECRET": "whsec_?", "EVENT_WEBHOOK_URL": "https://h/"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_what_is_wrong_alone_or_together_changes_nothing_and_is_named(
    teacher: TeacherHost, caplog: pytest.LogCaptureFixture, wrong: dict[str, str]
) -> None:
    write(TRANSCODE_SIGN_KEY="made-up")
    teacher.settings = before = TeacherSettings.load()
    write(TRANSCODE_SIGN_KEY="made-up", MAX_ATTEMPTS_A_DAY=9, **wrong)
    with pytest.raises(Misuse, match=next(iter(wrong))):
        await said(teacher)
    assert teacher.settings is before
    assert [one.levelname for one in caplog.records if one.name == "lectern"] == ["ERROR"]


async def test_an_oss_that_is_asked_no_more_refuses_no_more(teacher: TeacherHost) -> None:
    """No request will be taken that ends the trouble: its alarm would stay open until a restart."""
    write(TRANSCODE_SIGN_KEY="made-up", OSS_TRANSCODE_URL="http://oss.example/")
    teacher.settings, teacher.ongoing[OSS_REFUSES.number] = TeacherSettings.load(), math.inf
    assert OSS_REFUSES.number in patience(teacher).goes_on
    write(TRANSCODE_SIGN_KEY="made-up")
    await said(teacher)
    assert OSS_REFUSES.number not in patience(teacher).goes_on


async def test_no_secret_is_shown_and_no_digest_has_one(teacher: TeacherHost, caplog: pytest.LogCaptureFixture) -> None:
    write(TRANSCODE_SIGN_KEY="first-one")
    teacher.settings = before = TeacherSettings.load()
    write(TRANSCODE_SIGN_KEY="second-one", REDIS_URL="redis://u:third-one@h/0", UPLOAD_URL="https://u:fourth-one@h/")
    with caplog.at_level(logging.DEBUG):
        lines = await said(teacher)
    assert lines == [
        "REDIS_URL (secret) -> (another secret): needs a restart",
        "TRANSCODE_SIGN_KEY (secret) -> (another secret): live",
        "UPLOAD_URL None -> https://h/: live",
    ]
    assert "-one" not in caplog.text
    assert before.model_copy(update={"upload_url": "https://h/"}).digest == teacher.settings.digest


def asked(client: str, server: str = "10.0.0.5", **headers: str) -> Request:
    listed = [(name.encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "client": (client, 1), "server": (server, 8801), "headers": listed})


ASKED = {
    "loopback": (asked("127.0.0.1"), 200),
    "loopback of IPv6": (asked("::1"), 200),
    "its own address": (asked("10.0.0.5"), 200),
    "another host": (asked("10.0.0.6"), 403),
    "a proxy here": (asked("127.0.0.1", **{"x-forwarded-for": "10.0.0.6"}), 403),
    "a page in a browser here": (asked("127.0.0.1", origin="http://elsewhere.example"), 403),
}


@pytest.mark.parametrize(("request_", "status"), ASKED.values(), ids=ASKED)
async def test_only_this_host_may_ask_for_it(streamer: StreamerHost, request_: Request, status: int) -> None:
    write(MAX_VIDEO_NUM=800)
    assert (await Reload(streamer).answer(request_)).status_code == status
    assert streamer.settings.max_video_num == (800 if status == 200 else 1000)


async def test_the_command_asks_the_process_and_health_says_which_settings_it_goes_by(streamer: StreamerHost) -> None:
    bind = f"127.0.0.1:{free_port()}"
    streamer.settings = streamer.settings.model_copy(update={"health_bind": bind})
    health = http.HealthReport(streamer.settings)
    health.begins(streamer)

    async def its_settings() -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(bytes((await health.answer(asked("127.0.0.1"))).body))["settings"])

    async def typed(**values: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(lectern, Path(), "reload", "streamer", **values)

    async with http.served(streamer, health, Starlette(), Reload(streamer)):
        before = await its_settings()
        write(HEALTH_BIND=bind, MAX_VIDEO_NUM=800, LEASE_S=60)
        assert (await typed()).stdout.splitlines() == [
            "streamer: LEASE_S 45 -> 60: needs a restart",
            "streamer: MAX_VIDEO_NUM 1000 -> 800: live",
            "streamer: REDIS_URL (secret) -> (another secret): needs a restart",
        ]
        after = await its_settings()
        assert (after["wait"], after["digest"] != before["digest"]) == (["LEASE_S", "REDIS_URL"], True)
        assert after["read_at"] > before["read_at"]
        write(HEALTH_BIND=bind, MAX_VIDEO_NUM=0)
        refused = await typed()
        assert (refused.returncode, "MAX_VIDEO_NUM" in refused.stderr) == (2, True)
    over = await typed(HEALTH_BIND=bind, MAX_VIDEO_NUM="1")
    assert (over.returncode, "does not answer" in over.stderr) == (1, True)


async def test_a_hangup_does_the_same_and_a_wrong_value_does_not_end_it(streamer: StreamerHost) -> None:
    hung_up = asyncio.Event()
    keeping = asyncio.create_task(Reload(streamer).when(hung_up))
    for written, then in ((b"none", 1000), (b"900 # " + "节".encode("gbk"), 1000), (b"800", 800)):
        Path(".env").write_bytes(b"MAX_VIDEO_NUM=" + written)
        hung_up.set()
        await async_wait_until(lambda: not hung_up.is_set(), description="it is heard")
        await async_wait_until(lambda then=then: streamer.settings.max_video_num == then, description="it is read")
    keeping.cancel()


async def test_a_shorter_time_between_sweeps_counts_from_now_on(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for the longer one would be late, and health would say that the loop stands still."""
    monkeypatch.setattr(maintenance, "FIRST_S", 0.01)
    monkeypatch.setattr(maintenance, "LOOK_S", 0.01, raising=False)
    swept: list[float] = []

    async def sweep() -> None:
        swept.append(time.monotonic())

    streamer.settings = streamer.settings.model_copy(update={"sweep_interval_s": 3600.0})
    handler = cast("Any", SimpleNamespace(sweep=sweep))
    sweeping = asyncio.create_task(maintenance.sweeps(streamer, handler))
    await async_wait_until(lambda: swept and streamer.watchdog._at["sweeps"] > swept[0], description="it waits")
    streamer.settings = streamer.settings.model_copy(update={"sweep_interval_s": 0.01})
    await async_wait_until(lambda: len(swept) > 1, timeout_s=20, description="it sweeps again")
    await cancelled(sweeping)


RELOADED = """
import logging
from types import SimpleNamespace
from flows.resident.http import Reload
from flows.resident.prefect import recorder
from lectern import logs
from lectern.settings import StreamerSettings

class ToPrefect(logging.Handler):
    def emit(self, record):
        print(record.getMessage())

recorder.APILogHandler = ToPrefect
recorder.FlowRunContext = SimpleNamespace(get=lambda: "a run")
wanted = SimpleNamespace(set=lambda: None)
before, after = (StreamerSettings.load(_env_file=None, log_level=level) for level in ("INFO", "DEBUG"))
logs.set_up(before.log_format, before.log_level)
recorder.set_up()
host = SimpleNamespace(settings=before, unfetched=wanted, playout=SimpleNamespace(wanted=wanted))
Reload(host)._take(after, before.changes(after))
logging.getLogger("lectern").debug("a line of a run")
"""


def test_a_run_keeps_its_log_in_the_ui_when_the_log_level_is_changed(tmp_path: Path) -> None:
    """Until a restart, each run would be without one."""
    environment = {"PATH": "/usr/bin:/bin", "PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    argv = [sys.executable, "-c", RELOADED]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout == "a line of a run\n"
    assert done.stderr.count("a line of a run") == 1


async def test_a_class_of_the_timetable_may_go_on_to_where_it_is_pushed(streamer: StreamerHost) -> None:
    """A list of push hosts that is shorter now must not end a class on air when its connection breaks."""
    url = "rtmp://10.0.0.9/live/x"
    commit(streamer.engine, bare, "on air", hosts.now() - 60, "on air", push_url=url)
    reader = TimetableReader(streamer)

    def networks(*listed: str) -> dict[str, list[str] | None]:
        found = look(streamer.engine, reader.wanted, hosts.now(), None, Allowlist.listed(",".join(listed)), None)
        return {class_id: lesson["networks"] for class_id, lesson in found.lessons.items()}

    assert networks("10.0.0.0/8") == {"on air": ["10.0.0.0/8"]}
    commit(streamer.engine, bare, "later", hosts.now() + 60, push_url=url)
    assert networks("public") == {"on air": ["public", "10.0.0.0/8"], "later": ["public"]}
    assert networks("public", "10.0.0.9") == {"on air": None, "later": None}
    assert networks("public") == {"on air": None, "later": None}
