"""The cloud's transcoder, played: takes signed requests, transcodes in truth, answers on Redis, or misbehaves."""

import asyncio
import dataclasses
import hashlib
import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lectern.errors import LecternError
from lectern.media.ffmpeg import executable
from lectern.states import Resolution
from town.ports import HOST, Http, Loopback
from town.recordings import encode

_FFMPEGS_AT_ONCE = 2


class Behaviour(StrEnum):
    """What the transcoder does with a request."""

    OK = "ok"
    FAIL = "fail"  # answers that it failed
    SILENT = "silent"  # accepts, and never answers
    QUICK = "quick"  # makes nothing: answers with *url* at once


@dataclasses.dataclass
class Rule:
    """How requests for renditions of a record are treated; None stands for any record."""

    behaviour: Behaviour
    record_id: int | None = None
    times: int | None = None  # number of requests that it hits; None: all until it is cleared
    url: str = ""  # of the behaviour quick; {record_id} and {video_resolution} are filled in


@dataclasses.dataclass(frozen=True)
class Post:
    """A request that was accepted."""

    record_id: int
    video_resolution: str
    at: float


def _sign(fields: dict[str, Any], secret: str) -> str:
    """The signature, written a second time on purpose: the product's own function is checked against it."""
    pairs = [f"{name}={fields[name]}" for name in sorted(fields) if name != "sign"]
    return hashlib.md5("&".join([*pairs, f"key={secret}"]).encode()).hexdigest()


class OssTranscoder(Loopback):
    """Transcodes recordings under *root*, which the origin at *origin_url* serves, and publishes the results."""

    def __init__(
        self,
        root: Path,
        origin_url: str,
        redis_url: str,
        secret: str,
        port: int | None = None,
        *,
        channel: str = "transcoding",
        ffmpeg: str | None = None,
    ) -> None:
        super().__init__(port)
        self.root = root
        self.rules: list[Rule] = []
        self.posts: list[Post] = []
        self._origin_url = origin_url.rstrip("/")
        self._redis_url = redis_url
        self._secret = secret
        self._channel = channel
        self._ffmpeg = ffmpeg or executable()
        self._ffmpegs = asyncio.Semaphore(_FFMPEGS_AT_ONCE)
        self._redis: Redis | None = None
        self._work: set[asyncio.Task[None]] = set()
        routes = [Route("/transcode", self._transcode, methods=["POST"])]
        self._http = Http(Starlette(routes=routes), self.port)

    @property
    def url(self) -> str:
        """Where transcodings are requested."""
        return f"http://{HOST}:{self.port}/transcode"

    async def start(self) -> None:
        """Listen; Redis is looked for when there is a result."""
        self._redis = Redis.from_url(self._redis_url)
        await self._http.start()

    async def stop(self) -> None:
        """Close the port and end the transcodings under way, without results."""
        if self._redis is None:
            return
        await self._http.stop()
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._redis.aclose()
        self._redis = None

    def behave(self, rule: Rule) -> Rule:
        """Treat requests by *rule*, until its times are used up; a later rule goes before an earlier one."""
        self.rules.insert(0, rule)
        return rule

    def _rule(self, record_id: int) -> Rule:
        for rule in self.rules:
            if rule.record_id not in (None, record_id) or rule.times == 0:
                continue
            if rule.times is not None:
                rule.times -= 1
            return rule
        return Rule(Behaviour.OK)

    async def _transcode(self, request: Request) -> JSONResponse:
        body = await request.json()
        if body["sign"] != _sign(body, self._secret):
            return JSONResponse({"error": "wrong sign"}, status_code=401)
        record_id, resolution = body["record_id"], Resolution(body["video_resolution"])
        rule = self._rule(record_id)
        self.posts.append(Post(record_id, resolution.value, time.time()))
        work = asyncio.create_task(self._answer(rule, record_id, resolution))
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        return JSONResponse({"accepted": True})

    async def _answer(self, rule: Rule, record_id: int, resolution: Resolution) -> None:
        """Do what was accepted, and publish how it went."""
        if rule.behaviour is Behaviour.SILENT:
            return
        url = ""
        if rule.behaviour is Behaviour.QUICK:
            url = rule.url.format(record_id=record_id, video_resolution=resolution.value)
        elif rule.behaviour is Behaviour.OK:
            url = await self._encode(record_id, resolution)
        assert self._redis is not None
        await self._redis.publish(self._channel, json.dumps(result(record_id, resolution, url)))

    async def _encode(self, record_id: int, resolution: Resolution) -> str:
        """Make the rendition of the record's original; its URL, or nothing if it could not be made."""
        folder, (width, height) = self.root / str(record_id), resolution.box
        source, output = (folder / f"{name}.flv" for name in (record_id, f"{record_id}_{resolution.value}"))
        fit = f"scale={width}:{height}:force_original_aspect_ratio=decrease:force_divisible_by=2"
        codecs = ("-vf", fit, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "copy")
        try:
            async with self._ffmpegs:
                await encode(self._ffmpeg, "-i", str(source), *codecs, to=output)
        except LecternError:
            return ""
        return f"{self._origin_url}/{record_id}/{output.name}"


def result(record_id: int, resolution: str, url: str) -> dict[str, object]:
    """What the cloud says of a rendition that is at *url*, or that could not be made if that is empty."""
    return {
        "cmd": "transcoding",
        "record_id": record_id,
        "video_resolution": resolution,
        "result": "sucess" if url else "failed",
        "transcode_video_url": url,
        "type": "oss",
    }
