"""What a streamer answers when its teacher asks for the picture of a class that is on air."""

import hmac
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flows.host import StreamerHost
from flows.playout_link import NotTaken
from flows.stills import Stills
from lectern.db import leases
from lectern.errors import LecternError, TryAgain
from lectern.i18n import Text
from lectern.media import still

AT_ONCE = 1
"""Number of stills that are decoded at the same time."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class StillServer:
    """The stills of one streamer. Nothing is decoded while nobody asks."""

    def __init__(self, host: StreamerHost) -> None:
        self._host, self._stills = host, Stills(AT_ONCE)

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
        try:
            answer = await self._host.playout.ask("status", active=True)
        except NotTaken as error:
            raise TryAgain(error.message) from error
        sent = next((one for one in answer["classes"] if one["class_id"] == class_id), None)
        lesson = self._host.playout.confirmed.get(class_id)
        if sent is None or lesson is None or sent["state"] != "on_air":
            raise TryAgain(Text("not on air"))
        if sent["slate"] and lesson.get("slate"):
            return await still.jpeg(Path(lesson["slate"]), 0.0)
        return await still.jpeg(Path(lesson["file"]), sent["position_s"] or 0.0)
