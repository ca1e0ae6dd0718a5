"""How a process begins to collect garbage, writes its log, and ends."""

import asyncio
import gc
import logging
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from redis.exceptions import ConnectionError as Lost
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from flows.failures import FatalError
from flows.host import StreamerHost
from flows.resident import instance_lock, process
from flows.resident.instance_lock import QueueLock
from flows.resident.prefect.runs import ResidentRuns
from flows.resident.process import Resident
from flows.streamer import lease, playout_sync
from lectern import logs
from lectern.cli.app import COMMANDS, LOAD_MORE, app
from lectern.errors import CallAPerson
from lectern.redis.client import Bus
from lectern.settings import StreamerSettings, TeacherSettings
from tests.waiting import async_wait_until


async def forever(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


class Redis:
    """Keeps locks, and what it is told at the end; it may be away, or hang."""

    def __init__(self, *, away: bool = False, hangs: bool = False) -> None:
        self.away, self.hangs = away, hangs
        self.held: dict[str, str] = {}
        self.told: list[str] = []

    async def hold(self, lock: str, owner: str, _ttl_s: float) -> str | None:
        if self.hangs:
            await forever()
        if self.away:
            raise Lost("no route to host")
        holder = self.held.setdefault(lock, owner)
        return None if holder == owner else holder

    async def let_go(self, lock: str, owner: str) -> None:
        self.told.append(f"{lock} is free")
        if self.held.get(lock) == owner:
            del self.held[lock]

    async def part(self, _key: str, name: str) -> None:
        self.told.append(f"{name} is leaving")

    async def close(self) -> None:
        self.told.append("closed")


@pytest.mark.parametrize("is_full", [True, False], ids=["the disk is full", "the database hangs"])
def test_a_process_leaves_as_any_other_whatever_its_database_does_and_says_why_it_ends(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, is_full: bool
) -> None:
    """Else its teacher would send it classes until it counts as lost, and its queue's lock would last."""
    streamer.bus = cast("Any", redis := Redis())

    async def takes_nothing(_host: object) -> None:
        if is_full:
            raise OperationalError("UPDATE", {}, Exception("database or disk is full"))
        await forever()

    monkeypatch.setattr(process, "END_S", 1.0)
    monkeypatch.setattr(process, "publish_outbox", takes_nothing)
    ending = Resident(streamer.settings)

    async def main() -> None:
        try:
            raise FatalError("inbox: 3 messages could not be written; is the disk full?")
        finally:
            await ending._leave(streamer)

    monkeypatch.setattr(ending, "_main", main)
    with caplog.at_level(logging.ERROR, "lectern"):
        ending.run()
    name = streamer.settings.name
    assert redis.told == [f"{name} is leaving", f"lectern:queue:{name} is free", "closed"]
    assert "inbox: 3 messages could not be written" in caplog.text
    assert "nobody expected" not in caplog.text


def test_a_process_that_is_asked_to_stop_before_it_has_begun_stops(tmp_path: Path) -> None:
    """SIGTERM can come between the start of its thread and that of its loop; it was ended by force then."""
    resident = Resident(StreamerSettings.load(_env_file=None, streamer_name="s1", video_root=tmp_path))
    resident.stop()

    async def asked() -> None:
        await asyncio.wait_for(resident._stop.wait(), 5)

    asyncio.run(asked())


@pytest.mark.parametrize("words", [["rollout", "verify"], ["rekey", "--rule", "no rule", "--dry-run"]])
def test_garbage_is_collected_once_a_command_is_loaded_or_a_rollouts_step_begins(words: list[str]) -> None:
    """`lectern.cli.main` begins without; who turns it on by itself is a command."""
    gc.disable()
    try:
        found = CliRunner().invoke(app, words, input="nothing that is wanted")
        assert found.exit_code != 0, "it was to come as far as to its own words"
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
    assert set(LOAD_MORE) <= COMMANDS.keys()


def test_a_line_of_a_library_that_cannot_be_formatted_does_not_end_who_wrote_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its arguments do not fit its text: it is written as it is, without secrets, and so are the next ones."""
    handler = logging.StreamHandler()
    handler.addFilter(logs.without_secrets)
    library = logging.getLogger("a library")
    monkeypatch.setattr(library, "propagate", False)  # not to those of pytest
    library.addHandler(handler)
    try:
        library.warning("%d connections to %s", "many", "redis://:hidden@redis.example/0")
        library.warning("the next line")
    finally:
        library.removeHandler(handler)
    said = capsys.readouterr().err
    assert said == "%d connections to %s ('many', 'redis://redis.example/0')\nthe next line\n"


def takes(lock: QueueLock, redis: Redis) -> bool:
    """Whether the process of *lock* may begin."""
    return asyncio.run(asyncio.wait_for(lock.take(cast("Bus", redis), asyncio.Event()), 10))


@pytest.mark.parametrize("hangs", [False, True])
def test_a_streamer_whose_folder_is_its_own_begins_while_redis_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    """Classes on air wait for its lease; nobody but this process asks whether it may go on."""
    monkeypatch.setattr(instance_lock, "ANSWERS_S", 0.05)
    settings, redis = StreamerSettings(streamer_name="streamer1", video_root=tmp_path), Redis(away=True, hangs=hangs)
    first, second, stop = QueueLock(settings), QueueLock(settings), asyncio.Event()
    assert takes(first, redis)
    stop.set()
    assert not asyncio.run(second.take(cast("Bus", redis), stop)), "the folder has one owner"


@pytest.mark.parametrize("locked_out", [False, True])
async def test_a_streamer_that_scans_its_disk_for_long_keeps_its_lock_and_ends_when_it_is_to(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, *, locked_out: bool
) -> None:
    """A process of its name on another machine would take the lock, and the streamer would end after the scan.

    It was ended by force half a minute later, or went on beside the process that has its lock by now.
    """
    monkeypatch.setattr(process, "reconciled", forever)
    monkeypatch.setattr(lease, "renew", forever)
    playout = SimpleNamespace(run=forever, keep_in_step=forever)
    monkeypatch.setattr(playout_sync, "PlayoutSync", lambda _: playout)
    monkeypatch.setattr(instance_lock, "RENEW_S", 0.01)
    ending = Resident(streamer.settings)
    streamer.bus = cast("Any", redis := Redis())
    working = asyncio.create_task(ending._work(streamer, ResidentRuns(cast("Any", None), {}), forever))
    await async_wait_until(lambda: redis.held, timeout_s=20, description="its lock is renewed")
    if locked_out:
        redis.held = {ending._lock._key: "another"}
    else:
        ending.stop()
    with pytest.raises(FatalError) if locked_out else nullcontext():
        await asyncio.wait_for(working, 10)


def test_a_teacher_waits_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else says whether another process takes its messages."""
    monkeypatch.setattr(instance_lock, "START_WAIT_S", -1.0)
    with pytest.raises(Exception, match="Redis: no route to host"):
        takes(QueueLock(cast("Any", TeacherSettings.to_look())), Redis(away=True))


def test_a_process_that_lives_keeps_its_lock_although_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux tells when a process began by the clock as it is now: set by an hour, each of them began an hour ago."""
    monkeypatch.setattr(instance_lock, "START_WAIT_S", -1.0)
    redis, settings = Redis(), cast("Any", TeacherSettings.to_look())
    first = QueueLock(settings)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        first._owner = instance_lock.owner(child.pid)
        assert takes(first, redis)
        booted = psutil._pslinux.boot_time
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: booted() + 3600)
        with pytest.raises(CallAPerson, match="another process serves teacher"):
            takes(QueueLock(settings), redis)
    finally:
        child.communicate(b"\n")
    assert takes(QueueLock(settings), redis), "it has ended"
