"""The origin: an HTTP server over a folder of recordings, with faults that can be switched while it runs."""

import asyncio
import contextlib
import dataclasses
import functools
import mimetypes
import os
import re
import secrets
from collections import deque
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from lectern.storage import cache_dir
from town.faults import Faults
from town.ports import HOST, Http, Loopback

CRC_HEADER = "x-oss-hash-crc64ecma"
_crc64 = functools.cache(lambda file, _version: cache_dir.crc64(file))
"""The CRC of a file, read once for each version (time of change and size) of it."""

_CHUNK_BYTES = 256 * 1024
_KEPT_REQUESTS = 10_000


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that was answered."""

    method: str
    path: str
    range: str | None


class Origin(Loopback):
    """Serves the files under *root* by GET and HEAD, and takes new ones by PUT under *put_prefixes*."""

    def __init__(self, root: Path, port: int | None = None, *, put_prefixes: tuple[str, ...] = ("put/",)) -> None:
        super().__init__(port)
        self.root = root.resolve()
        self.faults = Faults()
        self.requests: deque[Asked] = deque(maxlen=_KEPT_REQUESTS)
        self._put_prefixes = put_prefixes
        self._answers: set[asyncio.Task[None]] = set()
        self._http = Http(self._serve, self.port)

    @property
    def url(self) -> str:
        """The origin's base, without a slash at its end."""
        return f"http://{HOST}:{self.port}"

    def url_for(self, name: str) -> str:
        """The URL of the file *name*, a path relative to the root."""
        return f"{self.url}/{quote(name.lstrip('/'))}"

    def recording(self, record: int, resolution: str | None = None, listed: Sequence[str] = ()) -> dict[str, Any]:
        """The fields of a booking that name a recording of this origin; without *resolution* those of the old kind."""
        fields: dict[str, Any] = {"video_url": self.url_for(f"{record}/{record}.flv")}
        if resolution is not None:
            urls = {one: self.url_for(f"{record}/{record}_{one}.flv") for one in listed}
            fields |= {"record_id": record, "video_resolution": resolution, "video_url_list": urls}
        return fields

    async def start(self) -> None:
        """Listen; the root folder is made if it is missing."""
        self.root.mkdir(parents=True, exist_ok=True)
        await self._http.start()

    async def stop(self) -> None:
        """Break off all answers under way and close the port."""
        for answer in self._answers:
            answer.cancel()
        await self._http.stop()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, until done or until the client has gone: slow answers would outlive it otherwise."""
        request = Request(scope, receive)
        if request.method == "PUT":
            with contextlib.suppress(ClientDisconnect):
                await self._put(_Answer(self, request, send))
            return
        answer = asyncio.create_task(self._get(_Answer(self, request, send)))
        gone = asyncio.create_task(_hangup(receive))
        self._answers.add(answer)
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.cancel()
            gone.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
            self._answers.discard(answer)

    async def _get(self, answer: "_Answer") -> None:
        request = answer.request
        if await answer.spoiled():
            return
        if request.method not in ("GET", "HEAD"):
            await answer.say(405)
            return
        file = self._file(answer.path)
        if file is None or not file.is_file():
            await answer.say(404)
            return
        stat = file.stat()
        headers = await self._describe(file, stat)
        first, end, status = _part(request, stat.st_size)
        if status == 416:
            await answer.say(416, {"content-range": f"bytes */{stat.st_size}"})
            return
        if status == 206:
            headers["content-range"] = f"bytes {first}-{end - 1}/{stat.st_size}"
        headers["content-length"] = str(max(0, end - first + answer.fault.length_lie))
        await answer.say(status, headers, body=(file, first, end))

    async def _put(self, answer: "_Answer") -> None:
        file = self._file(answer.path)
        refused = file is None or not answer.path.startswith(self._put_prefixes) or file.is_dir()
        if refused or answer.fault.status is not None:  # a client cut off while it sends never sees the answer
            async for _ in answer.request.stream():
                pass
        if await answer.spoiled():
            return
        if file is None or refused:
            await answer.say(403)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            with unfinished.open("wb") as sink:
                async for chunk in answer.request.stream():
                    await asyncio.to_thread(sink.write, chunk)
            await answer.fault.let_go()
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
        described = await self._describe(file, file.stat())
        await answer.say(200, {name: described[name] for name in ("etag", CRC_HEADER)})

    def _file(self, path: str) -> Path | None:
        """The file that *path* means, None if it leaves the root or is hidden."""
        if not path or "\0" in path or any(part.startswith(".") or len(part) > 255 for part in path.split("/")):
            return None
        file = (self.root / path).resolve()
        return file if file.is_relative_to(self.root) else None

    async def _describe(self, file: Path, stat: os.stat_result) -> dict[str, str]:
        return {
            "content-type": mimetypes.guess_type(file.name)[0] or "application/octet-stream",
            "accept-ranges": "bytes",
            "etag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"',
            "last-modified": formatdate(stat.st_mtime, usegmt=True),
            CRC_HEADER: str(await asyncio.to_thread(_crc64, file, (stat.st_mtime_ns, stat.st_size))),
        }


class _Answer:
    """One request on its way to an answer."""

    def __init__(self, origin: Origin, request: Request, send: Send) -> None:
        self.request = request
        self.path = str(request.scope["path"]).lstrip("/")
        self.fault = origin.faults.take(request.method, self.path)
        self._origin = origin
        self._send = send

    async def spoiled(self) -> bool:
        """Whether the fault took the answer's place; what it delays is delayed here."""
        await asyncio.sleep(self.fault.delay_s)
        if self.fault.status is not None:
            await self.say(self.fault.status)
        return self.fault.status is not None

    async def say(
        self, status: int, headers: dict[str, str] | None = None, body: tuple[Path, int, int] | None = None
    ) -> None:
        """Send the head, and of *body* = (file, first, end) what the method and the fault leave."""
        asked = Asked(self.request.method, f"/{self.path}", self.request.headers.get("range"))
        self._origin.requests.append(asked)
        head = {"content-length": "0"} | (headers or {})
        raw = [(name.encode(), value.encode()) for name, value in head.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        announced, sent = int(head["content-length"]), 0
        if body is not None and self.request.method != "HEAD":
            wanted = min(body[2] - body[1], announced)
            if self.fault.truncate_bytes is not None:
                wanted = min(wanted, self.fault.truncate_bytes)
            sent = await self._stream(body[0], body[1], wanted)
        if sent == announced or self.request.method == "HEAD":
            await self._send({"type": "http.response.body", "body": b""})
        # Otherwise the answer stays unfinished, upon which uvicorn closes the connection.

    async def _stream(self, file: Path, first: int, wanted: int) -> int:
        sent = 0
        with file.open("rb") as source:
            source.seek(first)
            while sent < wanted:
                chunk = await asyncio.to_thread(source.read, min(_CHUNK_BYTES, wanted - sent))
                if not chunk:
                    break
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
                sent += len(chunk)
                await self.fault.let_go()
        return sent


async def _hangup(receive: Receive) -> None:
    """Wait until the client of a request has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _part(request: Request, size: int) -> tuple[int, int, int]:
    """First byte, end and status of what is asked for; a Range that means nothing is no Range (RFC 9110)."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if asked is None:
        return 0, size, 200
    first, end = int(asked[1]), min(size, int(asked[2]) + 1) if asked[2] else size
    return first, end, 206 if first < end else 416
