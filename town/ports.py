"""Ports of loopback, and the ways in which the demo's servers live on them."""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

HOST = os.environ.get("TOWN_HOST", "127.0.0.1")
"""Where its servers listen, and where they are asked: loopback, or the name of its container in the trial cluster."""

# Below the range from which the kernel takes the ports of outgoing connections: a port found here is not
# snatched by some client between the moment it was found and the moment a server listens on it.
_FIRST, _LAST = 20_000, 32_000
_held: list[int] = []  # file descriptors


def free_port() -> int:
    """A port of 127.0.0.1 on which no process listens; no other caller gets it while this process lives.

    It stays bound here, without listening. A server sets SO_REUSEADDR, so it may listen on the port all the same;
    until then, a client is refused. This search does not set it, in any process, so it skips bound ports.
    """
    for port in random.sample(range(_FIRST, _LAST), k=_LAST - _FIRST):
        found = socket.socket()
        try:
            found.bind((HOST, port))
        except OSError:
            found.close()
            continue
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _held.append(found.detach())
        return port
    raise OSError(f"{HOST}: no free port between {_FIRST} and {_LAST}")


class Loopback(ABC):
    """A server on loopback: started and stopped within one asyncio loop, as often as wanted, on one port."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()

    @abstractmethod
    async def start(self) -> None:
        """Listen; when this returns, clients are served."""

    @abstractmethod
    async def stop(self) -> None:
        """End everything that was started; a server that does not run stays as it is."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def run(self) -> None:
        """Serve as a process of its own: one JSON line with the port when ready, until SIGTERM or SIGINT."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        async with self:
            print(json.dumps({"port": self.port}), flush=True)
            await told.wait()


class _Guest(uvicorn.Server):
    """A uvicorn that leaves the signal handlers of its host process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Http:
    """An ASGI application served on a port of loopback."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; raises OSError if the port is taken."""
        # Answers that break off are what the demo's servers are for: uvicorn need not report each of them.
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        listener = socket.create_server((HOST, self._port), backlog=1024)
        self._server = _Guest(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not (self._server.started or self._serving.done()):  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Close the port and end what is under way, within about a second."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await self._serving
        await asyncio.sleep(0.01)
        for late in list(self._server.server_state.connections):  # accepted while uvicorn closed the others
            late.transport.abort()
        self._server = self._serving = None
