"""The demo's OSS transcoder: what it makes, what it answers, and how it misbehaves when told to."""

import asyncio
import hashlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import av
import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from town import programs, recordings
from town.origin import Origin
from town.oss_transcoder import Behaviour, OssTranscoder, Rule
from town.ports import HOST, free_port

SECRET = "a made-up secret"


async def wait_until(condition: Callable[[], object], *, timeout_s: float, description: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {description}"
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Origin]:
    async with Origin(tmp_path / "origin") as server:
        (server.root / "6666").mkdir()
        (server.root / "6666" / "6666.flv").write_bytes(b"not a recording")
        yield server


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
        yield http


@pytest_asyncio.fixture
async def redis_url(tmp_path: Path) -> AsyncIterator[str]:
    port = free_port()
    command = [programs.redis_server(), "--port", str(port), "--bind", HOST, "--save", "", "--dir", str(tmp_path)]
    server = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    while b"Ready to accept connections" not in (line := await server.stdout.readline()):
        assert line, "redis-server ended"
    yield f"redis://{HOST}:{port}/0"
    server.terminate()
    await server.communicate()


def signed(**fields: object) -> dict[str, object]:
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields)) + f"&key={SECRET}"
    return {**fields, "sign": hashlib.md5(text.encode()).hexdigest()}


class Results:
    """What is published on the channel of results."""

    def __init__(self, redis_url: str) -> None:
        self.redis = Redis.from_url(redis_url)
        self.seen: list[dict[str, object]] = []

    async def listen(self) -> None:
        async with self.redis, self.redis.pubsub() as channel:
            await channel.subscribe("transcoding")
            async for message in channel.listen():
                self.seen.append(json.loads(message["data"]) if message["type"] == "message" else {})

    async def expect(self, count: int) -> list[dict[str, object]]:
        await wait_until(lambda: len(self.seen) > count, timeout_s=15, description=f"{count} results")
        return self.seen[1:]  # the first is the subscription


@pytest_asyncio.fixture
async def results(redis_url: str) -> AsyncIterator[Results]:
    listening = Results(redis_url)
    task = asyncio.create_task(listening.listen())
    await wait_until(lambda: listening.seen, timeout_s=5, description="the subscription")
    yield listening
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture
async def transcoder(origin: Origin, redis_url: str) -> AsyncIterator[OssTranscoder]:
    async with OssTranscoder(origin.root, origin.url, redis_url, SECRET) as server:
        yield server


@pytest_asyncio.fixture
async def ask(transcoder: OssTranscoder, client: httpx.AsyncClient) -> Callable[[int, str], Awaitable[httpx.Response]]:
    async def post(record_id: int, resolution: str) -> httpx.Response:
        return await client.post(transcoder.url, json=signed(record_id=record_id, video_resolution=resolution))

    return post


Ask = Callable[[int, str], Awaitable[httpx.Response]]


@pytest.mark.asyncio
async def test_transcoder_makes_the_rendition(
    transcoder: OssTranscoder, origin: Origin, results: Results, ask: Ask, client: httpx.AsyncClient
) -> None:
    """A request is accepted, the rendition made from the smallest source that is enough, and its URL published."""
    folder = origin.root / "7"
    await recordings.make(recordings.ffmpeg_path(), folder / "7.flv", seconds=2, width=960, height=540)
    await recordings.make(recordings.ffmpeg_path(), folder / "7_1080P.flv", seconds=1, width=1920, height=1080)
    assert (await ask(7, "480P")).json() == {"accepted": True}
    [result] = await results.expect(1)
    url = origin.url_for("7/7_480P.flv")
    assert result == {
        "cmd": "transcoding",
        "record_id": 7,
        "video_resolution": "480P",
        "result": "sucess",
        "transcode_video_url": url,
        "type": "oss",
    }
    assert (await client.head(url)).status_code == 200
    with av.open(str(folder / "7_480P.flv")) as made:
        assert (made.streams.video[0].width, made.streams.video[0].height) == (640, 360)
        assert len(made.streams.audio) == 1
        assert sum(1 for packet in made.demux(video=0) if packet.size) == 50  # two seconds: of 7.flv
    assert [(post.record_id, post.video_resolution) for post in transcoder.posts] == [(7, "480P")]
    assert sorted(file.name for file in folder.iterdir()) == ["7.flv", "7_1080P.flv", "7_480P.flv"]


@pytest.mark.asyncio
async def test_transcoder_misbehaves_as_told(
    transcoder: OssTranscoder, origin: Origin, results: Results, ask: Ask, client: httpx.AsyncClient
) -> None:
    """Each behaviour of a rendition is what its name says; other renditions are not touched."""
    transcoder.behave(Rule(Behaviour.ERROR_500, 1, times=2))
    transcoder.behave(Rule(Behaviour.REJECT_400, 2, "240P"))
    transcoder.behave(Rule(Behaviour.SILENT, 3))
    transcoder.behave(Rule(Behaviour.QUICK, 5, url="http://x/{record_id}_{video_resolution}.flv"))
    transcoder.behave(Rule(Behaviour.FAIL, 1, "720P", times=1))
    assert [(await ask(2, "240P")).status_code, (await ask(3, "240P")).status_code] == [400, 200]
    assert (await ask(1, "720P")).status_code == 200
    assert [(await ask(1, "240P")).status_code for _ in range(2)] == [500, 500]
    assert (await results.expect(1))[0]["result"] == "failed"
    await ask(5, "1080P")
    quick = (await results.expect(2))[1]
    assert (quick["result"], quick["transcode_video_url"]) == ("sucess", "http://x/5_1080P.flv")
    assert (await ask(6666, "240P")).status_code == 200  # a file that is no recording
    assert (await results.expect(3))[2]["result"] == "failed"
    assert len(transcoder.posts) == 4
