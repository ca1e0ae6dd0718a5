"""A push that waits for its second, and what becomes of it when that second moves or never comes."""

import asyncio
import gc
import os
import time
from pathlib import Path

import pytest

from flows.show import Progress
from flows.streamer.pushes import Pushes
from lectern.decide.broadcast import Push
from lectern.effects.rows.airings import Airing
from lectern.effects.rows.cache import Cached
from lectern.errors import Refuse
from lectern.states import AiringState, FileState
from tests.stage import Town, ffmpegs_of, wait_until

pytestmark = pytest.mark.timeout(300)  # the first test of a session starts the servers


def pushes_of(town: Town, class_id: str, push_url: str, path: Path | None = None) -> Pushes:
    record, now = town.record(), time.time()
    path = path or town.origin.root / str(record) / f"{record}.flv"
    one = Airing(class_id, str(record), AiringState.READY, push_url, now, now + 60, record, None)
    row = Cached(str(record), FileState.READY, 1, str(path), None, path.stat().st_size, 30.0)
    return Pushes(one, row, Progress("push", class_id), 30.0)


@pytest.mark.asyncio
async def test_a_clock_that_was_set_back_brings_no_class_before_its_second(town: Town) -> None:
    """The second wait is a wait again: what was let go for the first is not what waits now."""
    pushes = pushes_of(town, "set-back", town.receiver.url("set-back"))
    await pushes.wait_for(Push(time.time() + 0.5, 0.0, 20.0))
    first = pushes.begin(Push(time.time(), 0.0, 20.0))
    taken = town.receiver.publishes
    await asyncio.to_thread(wait_until, lambda: taken.get("set-back"), description="it is on air")
    first.cancel()
    await asyncio.wait({first})
    await pushes.wait_for(Push(time.time() + 2, 0.0, 20.0))
    assert ffmpegs_of("set-back"), "it waits"
    assert len(taken["set-back"]) == 1
    await pushes.close()
    assert ffmpegs_of("set-back") == []


@pytest.mark.asyncio
async def test_one_that_can_not_wait_is_told_by_the_push_after_it(town: Town) -> None:
    """And by nobody else: no task's failure is left for the collector to find."""
    unseen: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(str(context["message"])))
    pushes = pushes_of(town, "wrong", "http://127.0.0.1/live/wrong")
    await pushes.wait_for(Push(time.time() + 0.3, 0.0, 20.0))
    with pytest.raises(Refuse, match="push URL must"):
        await pushes.begin(Push(time.time(), 0.0, 20.0))
    await pushes.close()
    del pushes
    gc.collect()
    assert unseen == []


@pytest.mark.asyncio
async def test_a_push_that_ends_before_its_time_has_run_out_of_recording(town: Town, tmp_path: Path) -> None:
    """Although ffmpeg says that all is well: the file was cut short. What was sent is counted, not what should be."""
    record = town.record()
    whole = town.origin.root / str(record) / f"{record}.flv"
    short = tmp_path / "short.flv"
    short.write_bytes(whole.read_bytes())
    os.truncate(short, short.stat().st_size // 5)
    for name, path, length_s in (("short", short, 20.0), ("all", whole, 5.0)):
        pushes = pushes_of(town, name, town.receiver.url(name), path)
        sent = await pushes.begin(Push(time.time(), 0.0, length_s))
        assert (sent.complete, sent.ran_out) == ((False, True) if name == "short" else (True, False))
        assert 3 < sent.seconds < 9
        await pushes.close()
