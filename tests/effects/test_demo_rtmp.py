"""The demo's RTMP receiver, pushed to by the real ffmpeg."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import av
import imageio_ffmpeg
import pytest
import pytest_asyncio

from town import recordings
from town.ports import HOST, free_port
from town.rtmp import Publish, RtmpReceiver, read_publishes

FFMPEGS = sorted({recordings.ffmpeg_path(), imageio_ffmpeg.get_ffmpeg_exe()})
SECONDS = 4


async def wait_until(condition: Callable[[], object], *, timeout_s: float, description: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {description}"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "6666.flv"
    return asyncio.run(recordings.make(recordings.ffmpeg_path(), path, seconds=SECONDS, width=320, height=240))


@pytest_asyncio.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[RtmpReceiver]:
    async with RtmpReceiver(tmp_path / "received") as server:
        yield server


async def push(
    url: str, recording: Path, *before: str, ffmpeg: str = FFMPEGS[0], real_time: bool = False
) -> asyncio.subprocess.Process:
    pace = ("-re",) if real_time else ()
    inputs = (*pace, *before, "-i", str(recording))
    quiet = ("-nostdin", "-hide_banner", "-loglevel", "error")
    return await asyncio.create_subprocess_exec(ffmpeg, *quiet, *inputs, "-c", "copy", "-f", "flv", url)


async def finish(process: asyncio.subprocess.Process) -> int:
    return await asyncio.wait_for(process.wait(), 15)


async def only(receiver: RtmpReceiver, name: str) -> Publish:
    await wait_until(lambda: receiver.publishes[name][0].ended_at, timeout_s=5, description=f"the end of {name}")
    [publish] = receiver.publishes[name]
    return publish


def packets(path: Path, kind: str) -> list[tuple[int | None, bytes]]:
    with av.open(str(path)) as container:
        stream = (container.streams.video if kind == "video" else container.streams.audio)[0]
        return [(packet.dts, bytes(packet)) for packet in container.demux(stream) if packet.size]


@pytest.mark.asyncio
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
async def test_a_push_is_recorded_whole(receiver: RtmpReceiver, recording: Path, ffmpeg: str) -> None:
    """Every packet arrives with its timestamp, in real time, under a name with all that a class_id may have."""
    name = "c:1.2_3-" + "x" * 242
    began = time.time()
    assert await finish(await push(receiver.url(name), recording, ffmpeg=ffmpeg, real_time=True)) == 0
    publish = await only(receiver, name)
    for kind in ("video", "audio"):
        assert packets(receiver.root / publish.file, kind) == packets(recording, kind)
    assert publish.video_frames == SECONDS * 25
    assert (publish.name, publish.app, publish.n, publish.concurrent) == (name, "live", 1, False)
    assert publish.first_media_at is not None
    assert publish.last_media_at is not None
    assert began <= publish.started_at <= publish.first_media_at <= publish.last_media_at
    assert SECONDS - 1 < publish.last_media_at - publish.first_media_at < SECONDS + 1.5
    assert publish.first_timestamp_ms == 0
    assert publish.last_timestamp_ms == pytest.approx(SECONDS * 1000, abs=100)


@pytest.mark.asyncio
async def test_a_push_from_the_middle(receiver: RtmpReceiver, recording: Path) -> None:
    """What is pushed after -ss is the recording from that keyframe on; -copyts keeps the recording's clock."""
    assert await finish(await push(receiver.url("cut"), recording, "-ss", "2.5", "-copyts")) == 0
    publish = await only(receiver, "cut")
    assert packets(receiver.root / publish.file, "video") == packets(recording, "video")[50:]
    assert publish.first_timestamp_ms == pytest.approx(2000, abs=50)


@pytest.mark.asyncio
@pytest.mark.parametrize("start_s", [16_777, 100_000])
async def test_timestamps_beyond_three_bytes(receiver: RtmpReceiver, recording: Path, start_s: int) -> None:
    """Timestamps that need the extended field, or get to it in the middle of a push, are kept."""
    offset = ("-itsoffset", str(start_s), "-copyts")
    assert await finish(await push(receiver.url("long"), recording, *offset)) == 0
    publish = await only(receiver, "long")
    assert publish.video_frames == SECONDS * 25
    first, last = packets(recording, "video")[0][0], packets(recording, "video")[-1][0]
    got = packets(receiver.root / publish.file, "video")
    assert first is not None
    assert last is not None
    assert (got[0][0], got[-1][0]) == (first + start_s * 1000, last + start_s * 1000)


@pytest.mark.asyncio
async def test_many_at_once_and_one_twice(receiver: RtmpReceiver, recording: Path) -> None:
    """Streams do not disturb each other; a name that is pushed while under way is told as such."""
    first = await push(receiver.url("twice"), recording, real_time=True)
    await wait_until(lambda: receiver.publishes.get("twice"), timeout_s=5, description="the first push")
    others = [await push(receiver.url(f"c{number}"), recording) for number in range(5)]
    others.append(await push(receiver.url("twice"), recording))
    assert [await finish(process) for process in [*others, first]] == [0] * 7
    for number in range(5):
        publish = await only(receiver, f"c{number}")
        assert packets(receiver.root / publish.file, "video") == packets(recording, "video")
    assert [(publish.n, publish.concurrent) for publish in receiver.publishes["twice"]] == [(1, False), (2, True)]
    assert [publish.video_frames for publish in receiver.publishes["twice"]] == [SECONDS * 25] * 2


@pytest.mark.asyncio
async def test_a_publisher_that_dies(receiver: RtmpReceiver, recording: Path) -> None:
    """A killed publisher ends its publish at once; what it had sent is a readable recording."""
    process = await push(receiver.url("dies"), recording, real_time=True)
    await wait_until(lambda: "dies" in receiver.publishes, timeout_s=5, description="the push")
    publish = receiver.publishes["dies"][0]
    await wait_until(lambda: publish.video_frames > 20, timeout_s=5, description="some frames")
    process.kill()
    await process.wait()
    await wait_until(lambda: publish.ended_at, timeout_s=1, description="the end")
    got = packets(receiver.root / publish.file, "video")
    assert got == packets(recording, "video")[: len(got)]
    assert len(got) == publish.video_frames


HELLO = b"\x03" + bytes(1536)


@pytest.mark.asyncio
async def test_killed_in_the_middle_of_a_class(tmp_path: Path, recording: Path) -> None:
    """After SIGKILL the progress can still be read; a new receiver on the port closes the end and counts on."""
    port = free_port()
    command = [sys.executable, "-m", "town.rtmp", "--root", str(tmp_path), "--port", str(port)]
    url = f"rtmp://{HOST}:{port}/live/c:1"

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert json.loads(await asyncio.wait_for(process.stdout.readline(), 10)) == {"port": port}
        return process

    first = await start()
    pushing = await push(url, recording, real_time=True)

    def frames() -> int:
        return sum(publish.video_frames for publish in read_publishes(tmp_path))

    await wait_until(lambda: frames() > 20, timeout_s=10, description="frames seen by the other process")
    first.kill()
    await first.wait()
    assert await finish(pushing) != 0
    [cut] = read_publishes(tmp_path)
    assert cut.video_frames > 20
    assert cut.ended_at is None
    with (tmp_path / "publishes.jsonl").open("a") as journal:
        journal.write('{"name": "to')  # a line that the kill tore
    assert len(packets(tmp_path / cut.file, "video")) >= cut.video_frames
    second = await start()
    assert await finish(await push(url, recording)) == 0
    await wait_until(lambda: len(read_publishes(tmp_path)) == 2, timeout_s=5, description="the second publish")
    await wait_until(lambda: read_publishes(tmp_path)[1].ended_at, timeout_s=5, description="its end")
    second.terminate()
    await second.wait()
    old, new = read_publishes(tmp_path)
    assert (old.n, old.ended_at, old.video_frames) == (1, cut.last_media_at, cut.video_frames)
    assert (new.n, new.concurrent, new.video_frames) == (2, False, SECONDS * 25)
