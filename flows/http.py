"""What a host answers over HTTP: whether it is ready, which version is at work, and its metrics."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flows.host import Host
from lectern import __version__
from lectern.effects import metrics
from lectern.errors import Misuse
from lectern.settings import Settings, StreamerSettings, TeacherSettings

log = logging.getLogger("lectern")
START_S = 10.0


class Health:
    """What ``GET /health`` says of this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since = time.time()
        self.ready = False

    def answer(self, _request: Request) -> Response:
        """200 where the bus is read and runs are taken, 503 before and while it drains."""
        body = {
            "version": __version__,
            "role": "teacher" if isinstance(self._settings, TeacherSettings) else "streamer",
            "name": self._settings.name,
            "ready": self.ready,
            "since": self._since,
        }
        return JSONResponse(body, 200 if self.ready else 503)


class Metrics:
    """What ``GET /metrics`` says, for Prometheus."""

    def __init__(self, host: Host[Any]) -> None:
        self._host = host

    async def answer(self, _request: Request) -> Response:
        """The rows are counted anew for each answer."""
        settings = self._host.settings
        text = await self._host.commit(self._text, settings)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _text(self, connection: Connection, settings: Settings) -> bytes:
        if isinstance(settings, StreamerSettings):
            return metrics.exposition("streamer", settings.name, connection, settings.max_bytes)
        return metrics.exposition("teacher", settings.name, connection)


@asynccontextmanager
async def served(host: Host[Any], health: Health, more: Sequence[Route] = ()) -> AsyncIterator[None]:
    """Answer at the settings' address meanwhile; raises Misuse where it is taken. Without an address, nothing."""
    settings: Settings = host.settings
    if not settings.bind:
        yield
        return
    routes = [Route("/health", health.answer), Route("/metrics", Metrics(host).answer), *more]
    server = _server(settings, Starlette(routes=routes))
    serving = asyncio.create_task(_serve(server, settings))
    try:
        async with asyncio.timeout(START_S):
            while not server.started:
                if serving.done():
                    serving.result()
                await asyncio.sleep(0.01)
        log.info("%s: answers at http://%s/health", settings.name, settings.bind)
        yield
    finally:
        server.should_exit = True
        await asyncio.wait([serving], timeout=START_S)


def _server(settings: Settings, app: Starlette) -> uvicorn.Server:
    host, _, port = settings.bind.rpartition(":")
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host.strip("[]"),
            port=int(port),
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=100,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )
    )


async def _serve(server: uvicorn.Server, settings: Settings) -> None:
    try:
        await server.serve()
    except SystemExit as error:  # uvicorn's word for an address that is taken
        raise Misuse(
            f"{settings.name}: can not listen at {settings.bind}. Is another process there? Set "
            f"{'API_BIND' if isinstance(settings, TeacherSettings) else 'HEALTH_BIND'} to another host:port."
        ) from error
