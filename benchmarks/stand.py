"""What the rows measure on: servers on loopback, hosts of their own, and an ear that hears answers."""

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import redis
import uvicorn
from pydantic_core import from_json
from rich.console import Console
from starlette.types import ASGIApp

from tests.stage import Stage, Town, staged, wait_until
from town.ports import HOST, free_port

REAL = {
    "SWEEP_INTERVAL_S": "30",
    "POLL_INTERVAL_S": "1",
    "HEARTBEAT_INTERVAL_S": "5",
    "STREAMER_LOST_AFTER_S": "60",
    "LEASE_S": "45",
    "BROADCAST_LEAD_S": "300",
    "TRANSCODING_TIME_OUT_S": "120",
    "ALARM_GROUP_S": "60",
}
"""The product's own defaults, which the stage of the tests shortens."""


Heard = dict[str, float]
"""When each class was answered first, in epoch seconds."""


def _listen(url: str, channel: str, number: int, give_up_s: float, ready: Event, heard: "Queue[Heard]") -> None:
    answers: Heard = {}
    with redis.Redis.from_url(url, protocol=2) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(channel)
        pubsub.get_message(timeout=5)
        # Not by the library's poll, whose time would be missed by what is measured.
        connection: Any = pubsub.connection
        ready.set()
        until = time.monotonic() + give_up_s
        while len(answers) < number and time.monotonic() < until:
            with suppress(redis.TimeoutError):
                kind, _, data = connection.read_response(timeout=0.5, disconnect_on_error=False)
                if kind == b"message":
                    answers.setdefault(from_json(data)["class_id"], time.time())
    heard.put(answers)


class Ear:
    """A process of its own that hears *number* different classes answered on *channel*."""

    def __init__(self, url: str, channel: str, number: int, give_up_s: float) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._number, self._give_up_s = number, give_up_s
        self._heard: Queue[Heard] = spawn.Queue()
        ready = spawn.Event()
        asked = (url, channel, number, give_up_s, ready, self._heard)
        self._process = spawn.Process(target=_listen, args=asked, daemon=True)
        self._process.start()
        assert ready.wait(60), "the ear does not hear"

    def all(self) -> Heard:
        """Wait for the last answer; fails if one is missing."""
        heard = self._heard.get(timeout=self._give_up_s + 60)
        self._process.join(30)
        assert len(heard) == self._number, f"{len(heard)} of {self._number} bookings were answered"
        return heard


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """The address at which a thread of this process serves *app*."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, description="the app is served")
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


class Stand:
    """The servers that all rows of a run share, started when the first row wants them."""

    def __init__(self, folder: Path, console: Console, *, quick: bool, **settings: str) -> None:
        self._folder, self._console, self.quick = folder, console, quick
        self._settings = settings
        self._town: Town | None = None

    def like(self, **settings: str) -> "Stand":
        """Another stand, whose servers have *settings*."""
        return Stand(self.folder(), self._console, quick=self.quick, **settings)

    def say(self, what: str) -> None:
        """Progress, with the time."""
        self._console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim]  {what}", highlight=False, soft_wrap=True)

    @property
    def rounds(self) -> int:
        """How often each way is measured."""
        return 1 if self.quick else 3

    @property
    def town(self) -> Town:
        """Redis, a Prefect server on SQLite, an origin, an RTMP receiver."""
        if self._town is None:
            self.say("the servers start")
            self._town = Town(self._folder / "town")  # what is started of it is ended, also if not all of it starts
            self._town.more = self._settings
            self._town.start()
        return self._town

    def folder(self) -> Path:
        """A new folder for one measurement."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    @contextmanager
    def stage(self, **settings: str) -> Iterator[Stage]:
        """A teacher and streamers with the product's defaults and *settings*."""
        with staged(self.town, self.folder(), **{**REAL, **settings}) as stage:
            stage.playout_first = True  # as on a host
            yield stage

    def close(self) -> None:
        """End the servers."""
        if self._town is not None:
            self._town.stop()
