"""What a streamer answers when its teacher asks for the picture of a class that is on air."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flows.host import StreamerHost
from lectern.db import leases
from lectern.errors import LecternError, TryAgain
from lectern.i18n import Text
from lectern.media import ffmpeg

AT_ONCE = 2  # number of stills that are decoded at the same time
EACH_S = 2.0
"""Seconds in which at most one still is made anew if many are looked at: 50 classes take less than 5 % of a core."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class StillServer:
    """The stills of one streamer. Nothing is decoded while nobody asks."""

    def __init__(self, host: StreamerHost) -> None:
        self._host, self._stills = host, Stills(AT_ONCE, EACH_S)

    def routes(self) -> list[Route]:
        """The route of the stills."""
        return [Route("/still/{class_id}.jpg", self.answer)]

    async def answer(self, request: Request) -> Response:
        """The picture for whoever knows the session of this streamer's lease, as the teacher does; else 401.

        Without a picture it is 404, and in words why.
        """
        session = await self._host.read_tx(leases.session, self._host.settings.name)
        given = request.headers.get("authorization", "")
        if not session or not hmac.compare_digest(given.encode(), f"Bearer {session}".encode()):
            return Response(status_code=401, headers=HEADERS)
        class_id = request.path_params["class_id"]
        try:
            picture = await self._stills.of(class_id, partial(self._made, class_id))
        except LecternError as error:
            return PlainTextResponse(error.message, 404, HEADERS)
        return Response(picture, media_type="image/jpeg", headers=HEADERS)

    async def _made(self, class_id: str) -> bytes:
        """The keyframe at the clock's position, or the slate's picture while the slate is on air."""
        answer = await self._host.playout.ask("status", active=True, class_id=class_id)
        sent = next(iter(answer["classes"]), None)
        lesson = self._host.playout.confirmed.get(class_id)
        if sent is None or lesson is None or sent["state"] != "on_air":
            raise TryAgain(Text("not on air"))
        recording, at_s = lesson["file"], sent["position_s"] or 0.0
        if sent["slate"] and lesson.get("slate"):
            recording, at_s = lesson["slate"], 0.0
        return await ffmpeg.jpeg(await ffmpeg.excerpt(Path(recording), at_s))


KEPT_S = 10.0  # seconds for which a still is kept, and also the reason why there is none
MOST = 500  # number of stills that are kept or made at the same time


class Stills:
    """The stills that were asked for in the last KEPT_S seconds; *at_once* of them are made at the same time.

    Of many, at most one in *each_s* seconds is made anew: they are kept longer.
    """

    def __init__(self, at_once: int, each_s: float = 0.0) -> None:
        self._gate, self._each_s = asyncio.Semaphore(at_once), each_s
        self._kept: dict[str, tuple[float, asyncio.Task[bytes]]] = {}

    async def of(self, class_id: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The still of a class, which *make* makes unless it is kept; raises LecternError if there is none."""
        now = time.monotonic()
        oldest = now - max(KEPT_S, self._each_s * len(self._kept))
        self._kept = {name: one for name, one in self._kept.items() if _is_kept(*one, now - KEPT_S, oldest)}
        if class_id not in self._kept:
            if len(self._kept) >= MOST:
                raise TryAgain(Text("too many pictures are asked for at once"))
            self._kept[class_id] = now, asyncio.create_task(self._made(make))
        made = self._kept[class_id][1]
        await asyncio.wait({made})  # whoever gives up does not cancel it for the others
        return made.result()

    async def _made(self, make: Callable[[], Awaitable[bytes]]) -> bytes:
        async with self._gate:
            return await make()


def _is_kept(at: float, made: "asyncio.Task[bytes]", oldest_failure: float, oldest: float) -> bool:
    if not made.done():
        return True
    return at > (oldest_failure if made.cancelled() or made.exception() else oldest)
