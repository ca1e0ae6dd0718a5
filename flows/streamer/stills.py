"""What a streamer answers when its teacher asks for the picture of a class that is on air."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flows.host import StreamerHost, log
from lectern.db import leases
from lectern.errors import Caught, LecternError, TryAgain
from lectern.i18n import Text
from lectern.media import ffmpeg

AT_ONCE = 4  # number of stills that one child decodes
JOIN_S = 0.05  # seconds that a child waits for further pictures to make
EACH_S = 1.2
"""Seconds in which at most one still is made anew if many are looked at: 50 classes take less than 5 % of a core."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class StillServer:
    """The stills of one streamer. Nothing is decoded while nobody asks."""

    def __init__(self, host: StreamerHost) -> None:
        self._host, self._stills = host, Stills(AT_ONCE, EACH_S)
        self._child = asyncio.Semaphore(1)
        self._asked: list[tuple[bytes, asyncio.Future[bytes]]] = []

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
        if sent["slate"] and lesson.get("slate"):
            return await self._decoded(Path(lesson["slate"]), 0.0)
        return await self._decoded(Path(lesson["file"]), sent["position_s"] or 0.0)

    async def _decoded(self, recording: Path, at_s: float) -> bytes:
        """The picture at a position; the child that makes it makes all that were asked for while another one ran."""
        picture: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        excerpt = await ffmpeg.excerpt(recording, at_s)
        self._asked.append((excerpt, picture))
        async with self._child:
            if not picture.done():
                await asyncio.sleep(JOIN_S)
                asked, self._asked = self._asked, []
                pictures: Sequence[bytes | str] = ()
                with Caught() as failed:  # whoever waits is answered, whatever happened
                    pictures = await ffmpeg.jpegs([excerpt for excerpt, _ in asked])
                if failed.error is not None:
                    log.warning("stills: %d pictures cannot be made: %r", len(asked), failed.error)
                    pictures = [str(failed.error)] * len(asked)
                for (_, waits), made in zip(asked, pictures, strict=True):
                    if isinstance(made, bytes):
                        waits.set_result(made)
                    else:
                        waits.set_exception(TryAgain("no picture: {why}", why=made))
        return await picture


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
