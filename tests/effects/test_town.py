"""What all other tests rely on is true: the receiver sees all of a push, and wget is wget."""

import asyncio
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import httpx
import pytest

from lectern.media.ffmpeg import executable
from lectern.storage import origin as storage_origin
from tests.effects.conftest import STUBBORN, ended
from tests.waiting import async_wait_until, cancelled, wait_until
from town import doubles, programs, settings, stack, waits
from town.__main__ import _line, blame, stands_s
from town.day import Day, _walked
from town.faults import Fault
from town.origin import Origin
from town.ports import HOST, free_port
from town.rtmp import RtmpReceiver
from town.stack import _claimed
from town.table import LESSON_S
from town.waits import BUSY_LATE_S, GaveUp, Load, Sight, Waits

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SECONDS = 4  # of the recording that all effects share
PROJECT = Path(doubles.__file__).parents[1]


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[RtmpReceiver]:
    async with RtmpReceiver(tmp_path / "received") as server:
        yield server


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Origin]:
    async with Origin(tmp_path / "origin") as server:
        (server.root / "6666").mkdir()
        (server.root / "6666" / "6666.flv").write_bytes(CONTENT)
        yield server


async def push(url: str, recording: Path) -> asyncio.subprocess.Process:
    words = ("-nostdin", "-hide_banner", "-loglevel", "error", "-re", "-i", str(recording), "-c", "copy", "-f", "flv")
    return await asyncio.create_subprocess_exec(executable(), *words, url)


def packets(path: Path, kind: str) -> list[tuple[int | None, bytes]]:
    with av.open(str(path)) as container:
        stream = (container.streams.video if kind == "video" else container.streams.audio)[0]
        return [(packet.dts, bytes(packet)) for packet in container.demux(stream) if packet.size]


async def test_the_receiver_records_a_push_whole_with_its_times(receiver: RtmpReceiver, recording: Path) -> None:
    """Every packet with its time stamp, under a name with all that a class_id may have; two at once are told."""
    name, began = "c:1.2_3-" + "x" * 242, time.time()
    assert await (await push(receiver.url(name), recording)).wait() == 0
    await async_wait_until(lambda: receiver.publishes[name][0].ended_at, description="the end of the push")
    [publish] = receiver.publishes[name]
    for kind in ("video", "audio"):
        assert packets(receiver.root / publish.file, kind) == packets(recording, kind)
    assert (publish.name, publish.app, publish.video_frames) == (name, "live", SECONDS * 25)
    assert publish.first_timestamp_ms == 0
    assert publish.last_timestamp_ms == pytest.approx(SECONDS * 1000, abs=100)
    assert publish.first_media_at is not None
    assert publish.last_media_at is not None
    assert began <= publish.started_at <= publish.first_media_at
    assert publish.last_media_at - publish.first_media_at > SECONDS / 2, "in real time, and not at once"
    assert [await one.wait() for one in [await push(receiver.url(name), recording) for _ in range(2)]] == [0, 0]
    ends = receiver.publishes[name]
    await async_wait_until(lambda: all(one.ended_at for one in ends), description="the end of both")
    assert [(one.n, one.concurrent) for one in ends] == [(1, False), (2, False), (3, True)]
    assert [one.video_frames for one in ends] == [SECONDS * 25] * 3


@pytest.mark.parametrize("which", ["double", pytest.param("system", marks=pytest.mark.live)])
async def test_the_stand_in_for_wget_resumes_and_exits_like_wget(origin: Origin, tmp_path: Path, which: str) -> None:
    """Resume by Range, leave complete files alone, keep what came of a download that breaks off, exit 0, 4 or 8."""
    doubles.write("wget", tmp_path)
    program = str(tmp_path / "wget") if which == "double" else shutil.which("wget")
    if program is None:
        pytest.skip("there is no wget on this machine: only the stand-in is checked")
    file, url = tmp_path / "6666.flv.part", origin.url_for("6666/6666.flv")

    async def wget(url: str) -> int:
        options, line = storage_origin.wget_input(url, None)
        argv, pipe = storage_origin.wget_argv(program, str(file), "100m", options), subprocess.PIPE
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        process = await asyncio.create_subprocess_exec(*argv, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
        await process.communicate(line)
        return process.returncode or 0

    assert await wget(url) == 0
    assert file.read_bytes() == CONTENT
    assert await wget(url) == 0
    file.write_bytes(CONTENT[:1000])
    assert await wget(url) == 0
    assert file.read_bytes() == CONTENT
    assert origin.requests[-1].range == "bytes=1000-"
    file.unlink()
    origin.faults.add(Fault("*", times=1, truncate_bytes=5000))
    assert await wget(url) == 4
    assert file.read_bytes() == CONTENT[:5000]
    assert await wget(f"http://{HOST}:{free_port()}/") == 4
    assert await wget(origin.url_for("none.flv")) == 8
    name = 'it\'s a "lesson"/$(touch x); -O /1.flv'
    (origin.root / name).parent.mkdir(parents=True)
    (origin.root / name).write_bytes(CONTENT)
    file.unlink()
    assert await wget(f"{origin.url}/{name}") == 0
    assert file.read_bytes() == CONTENT


def test_the_demo_stands_for_a_person_to_look_at_and_ends_for_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def stands(*, keep: bool | None = None, is_terminal: bool = True, ci: str = "") -> float:
        monkeypatch.setenv("CI", ci)
        for stream in (sys.stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
        return stands_s(keep=keep)

    assert (stands(), stands(is_terminal=False), stands(ci="true")) == (600.0, 0.0, 0.0)
    assert (stands(keep=True, is_terminal=False, ci="true"), stands(keep=False)) == (math.inf, 0.0)


async def test_the_demo_waits_while_something_moves_and_gives_up_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine nothing comes in time, and a traceback tells nobody what it waited for."""
    monkeypatch.setattr(waits, "_LOOK_S", 0.0)
    moving, came = count(), asyncio.Event()
    asyncio.get_running_loop().call_later(1.0, came.set)
    await Waits(still_s=0.3).until(came.is_set, "a class", lambda: Sight(next(moving)))
    with pytest.raises(GaveUp, match=r"waited 0 s for the report: it did not come in time\. Last said: last words"):
        await Waits().until(lambda: False, "the report", lambda: Sight(1, "last words"), latest=time.time() - 1)
    with pytest.raises(GaveUp, match=r"the lease.*nothing moved for 0\.2 s.*last words"):
        await Waits(still_s=0.2).until(lambda: False, "the lease", lambda: Sight(1, "last words"))
    with pytest.raises(GaveUp, match="the teacher: its process has ended"):
        await Waits().until(lambda: False, "the teacher", lambda: Sight(1, has_ended=True))


@pytest.mark.parametrize(
    ("version", "is_taken"),
    [
        ("Redis server v=5.0.14 sha=00000000:0", False),
        ("Redis server v=6.0.16 sha=00000000:0", False),
        ("Redis server v=6.2.0 sha=00000000:0", True),
        ("Valkey server v=10.1.0 sha=00000000:0", True),
        ("Illegal instruction", False),
    ],
)
def test_a_redis_of_the_system_that_is_too_old_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, *, is_taken: bool
) -> None:
    """It lacks commands that lectern uses, and each of them would fail with words that tell nobody why."""
    own = tmp_path / "redis-server"
    own.write_text(f"#!/bin/sh\necho '{version}'\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (programs.redis_server() == str(own)) is is_taken


def test_an_ffmpeg_of_the_system_that_makes_no_h264_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some systems have it: no recording of the demo could be made."""
    (own := tmp_path / "ffmpeg").write_text("#!/bin/sh\necho ' V....D h263'\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert programs.gather(tmp_path / "bin").ffmpeg == str(tmp_path / "bin" / "ffmpeg")


def test_make_keeps_its_caches_in_the_project_if_the_home_takes_no_files(tmp_path: Path) -> None:
    """As a service's user has it, or a container: uv cannot make its cache there."""
    for home, is_own in ((tmp_path, False), (tmp_path / "none", True)):
        shown = "shown:; @echo $(HOME) $(UV_CACHE_DIR)"
        kept = {name: value for name, value in os.environ.items() if name != "UV_CACHE_DIR"}
        argv = ["make", "--no-print-directory", "-C", str(PROJECT), f"--eval={shown}", "shown"]
        found = subprocess.run(argv, env=kept | {"HOME": str(home)}, capture_output=True, text=True, check=True).stdout
        assert (".uv/home" in found, ".uv/cache" in found) == (is_own, is_own), found


async def test_what_a_program_of_the_demo_leaves_behind_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "GRACE_S", 0.2)
    with (log := tmp_path / "log").open("wb") as sink:
        process = await asyncio.create_subprocess_exec("sh", "-c", STUBBORN, stdout=sink, start_new_session=True)
    await async_wait_until(log.read_bytes, description="it runs")
    await stack.Child("stubborn", process, log).end()
    assert ended(map(int, log.read_text().split()))


STARTED = """
import asyncio, sys
from town import __main__ as demo, stack

async def start(running, *_):
    await running.spawn("stubborn", "sh", "-c", program)
    await asyncio.sleep(600)

async def nothing(*_):
    pass

program = sys.argv.pop()
stack._start, demo.record = start, nothing
sys.exit(demo.main())
"""
"""A demo that has one program, which ends by no signal."""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_demo_that_is_ended_by_a_signal_leaves_nothing_running(tmp_path: Path, sign: signal.Signals) -> None:
    """Ctrl-C, a CI, or a terminal that is closed; who says it twice does not want to wait.

    The kernel kills its programs with it if it is killed: a playout would air the classes of the next demo, too.
    """
    log, told = tmp_path / "demo/logs/stubborn.log", tmp_path / "told"
    program = STUBBORN if sign != signal.SIGKILL else "trap '' TERM; echo $$; exec sleep 600"
    words = ("--root", str(tmp_path / "demo"), "--report", str(tmp_path / "report.json"), program)
    with told.open("wb") as sink:
        demo = subprocess.Popen([sys.executable, "-c", STARTED, *words], stdout=sink, stderr=sink)
    try:
        wait_until(lambda: log.exists() and log.read_bytes(), description="its program runs")
        demo.send_signal(sign)
        if sign != signal.SIGKILL:
            wait_until(lambda: b"ending everything" in told.read_bytes(), description="it ends")
            demo.send_signal(sign)
        assert demo.wait(60) == (130 if sign != signal.SIGKILL else -signal.SIGKILL)
    finally:
        demo.kill()
        demo.wait()
    assert ended(map(int, log.read_text().split()))
    assert b"Traceback" not in told.read_bytes()


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second one would delete the databases of the first one, which goes on with none."""
    root, own = tmp_path / "demo", tmp_path / "own"
    with _claimed(root):
        (root / "teacher.db").touch()
        with pytest.raises(FileExistsError, match="another demo runs in"), _claimed(root):
            pass
        assert (root / "teacher.db").exists()
    with _claimed(root):
        assert [one.name for one in root.iterdir()] == [".made-by-the-demo"]
    own.mkdir()
    (own / "kept").touch()
    with pytest.raises(FileExistsError, match="no demo made it"), _claimed(own):
        pass
    assert (own / "kept").exists()


@pytest.fixture
def day(tmp_path: Path) -> Day:
    """A day of the demo whose hosts are silent, on a machine that is three times as slow as another."""
    its = {"root": tmp_path, "waits": Waits(still_s=0.2), "slowness": 3.0, "rtmp_port": 1}
    origin = SimpleNamespace(recording=lambda *_: {})
    platform = SimpleNamespace(answers=defaultdict(list), received=lambda _: [])
    return Day(cast("Any", SimpleNamespace(**its, origin=origin)), cast("Any", platform))


async def test_a_row_of_the_demo_says_what_it_waited_for_and_how_busy_the_machine_was(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newcomer cannot tell whether lectern is at fault, or a machine on which nothing comes in time."""
    for load, said in ((99.0 * (os.cpu_count() or 1), "all others"), (0.0, "was not too busy")):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        row = day.row("c-1", "the OSS is silent", "refused 207", "")
        await day.refused(row, 207)
        assert (row.ok, row.result, row.load) == (False, "no answer", Load(load, 0.0))
        assert "for the answer to c-1: nothing moved" in row.why
        assert row.why.endswith("Last said: no host has noted anything of it")
        assert said in blame([Load(load, 0.0)])
        assert f"up to {load:.0f} on" in _line(row)


async def test_a_timer_tells_how_late_a_machine_lets_the_demo_be() -> None:
    busy = Waits()
    watching = asyncio.create_task(busy.watch())
    await async_wait_until(lambda: busy._loads, description="it rings")
    began_at = time.time()
    time.sleep(2 * BUSY_LATE_S)  # noqa: ASYNC251 (the machine lets nothing of this process go on)
    await async_wait_until(lambda: busy._loads[-1][0] > began_at, description="it rings again")
    await cancelled(watching)
    assert busy.load_since(began_at).late_s >= BUSY_LATE_S
    assert busy.load_since(began_at).is_too_high


async def test_the_classes_of_a_slow_machine_begin_later_and_its_hosts_wait_longer(day: Day) -> None:
    """What the demo's transcoder cannot make in time would be missing at the start of its class."""
    before, booking = time.time(), day.booking("c-1", 1001, lead_s=20)
    assert 60 <= booking["start_time"] - before < 80
    assert booking["end_time"] - booking["start_time"] == LESSON_S, "and last as long"
    assert settings.of_pace(3.0)["TRANSCODING_TIME_OUT_S"] == "60"


async def test_an_error_in_a_path_of_the_demo_is_a_row_and_ends_no_other_path(day: Day) -> None:
    """Whatever it is: on a busy machine an HTTP request that took too long was the end of the demo."""

    async def path() -> None:
        raise httpx.ReadTimeout("it took too long")

    await _walked(day, path)
    (row,) = day.rows
    assert (row.ok, row.result, row.why) == (False, "error", "ReadTimeout: it took too long")
