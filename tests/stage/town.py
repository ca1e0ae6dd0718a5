"""The servers that all tests of a session share."""

import asyncio
import hashlib
import inspect
import itertools
import shutil
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import redis

from tests.stage import prefect_database
from tests.stage.children import UP_S, Child
from tests.waiting import wait_until
from town import programs, recordings, settings
from town.origin import Origin
from town.ports import HOST, Loopback, free_port
from town.rtmp import RtmpReceiver
from town.sshd import SshServer

T = TypeVar("T")
RECORDING_S = 30
LONGEST_S = 400
"""Of the recording from whose beginning the other long ones are cut."""


_monotonic = time.monotonic


class _Loop(asyncio.SelectorEventLoop):
    def time(self) -> float:
        """The real one: a timer that is set while a test turns the clock ahead would not be due for that long."""
        return _monotonic()


class Background:
    """An asyncio loop in a thread: the demo's servers live there, the tests stay plain functions."""

    def __init__(self) -> None:
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = UP_S) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Town:
    """What all tests of a session share: Redis, the Prefect server, an origin, an RTMP receiver, an SSH server."""

    def __init__(
        self, folder: Path, *, durable: bool = False, redis_password: str = "", prefect_auth: str = ""
    ) -> None:
        self.folder = folder
        self._redis_password, self._prefect_auth = redis_password, prefect_auth  # where both let in anybody: empty
        self._durable = durable  # Redis keeps what it has said yes to, also when it is killed
        self.programs = programs.gather(folder / "bin")
        self.background = Background()
        self.origin = Origin(folder / "origin")
        self.receiver = RtmpReceiver(folder / "received")
        self.ssh = SshServer(folder / "ssh", environment={"PATH": programs.path(self.programs)})
        self.redis_port, self.prefect_port = free_port(), free_port()
        given = f":{redis_password}@" if redis_password else ""
        self.redis_url = f"redis://{given}{HOST}:{self.redis_port}/0"
        self.redis: redis.Redis = redis.Redis.from_url(self.redis_url, decode_responses=True)
        user, _, password = prefect_auth.partition(":")
        auth = (user, password) if prefect_auth else None
        self.api = httpx.Client(base_url=f"http://{HOST}:{self.prefect_port}/api", timeout=60, auth=auth)
        self.servers: dict[str, Child] = {}
        self.more: dict[str, str] = {}  # what every process sees besides
        self._records = itertools.count(1001)

    @property
    def environment(self) -> dict[str, str]:
        """What every process sees, and nothing of the user's settings."""
        return settings.environment(self.folder, self.programs) | self.more

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; the Prefect server takes its time."""
        prefect = self.begin("prefect")
        self.begin("redis")
        for server in (self.origin, self.receiver, self.ssh):
            self.background.run(server.start())
        self._master(RECORDING_S)
        wait_until(
            lambda: self._answers(self.redis.ping, redis.RedisError), timeout_s=UP_S, description="Redis answers"
        )
        self._wait_for_prefect(prefect)

    def _wait_for_prefect(self, prefect: Child) -> None:
        def is_up() -> bool:
            assert prefect.exit_code is None, f"the Prefect server ended:\n{prefect.said()[-2000:]}"
            return self._answers(lambda: self.api.get("/health").is_success, httpx.HTTPError)

        wait_until(is_up, timeout_s=UP_S, description="the Prefect server answers")

    @contextmanager
    def away(self, *some: Loopback) -> Iterator[None]:
        """Meanwhile *some* servers, or ways to servers, are shut."""
        for one in some:
            self.background.run(one.stop())
        try:
            yield
        finally:
            for one in some:
                self.background.run(one.start())

    def rest(self) -> None:
        """End the Prefect server, which works also when nobody asks it, until somebody is to need it again."""
        self.servers["prefect"].end()

    def wake(self) -> None:
        """Start it again; it has forgotten nothing."""
        if self.servers["prefect"].exit_code is not None:
            self._wait_for_prefect(self.begin("prefect"))

    def begin(self, server: str) -> Child:
        """Start ``redis`` or ``prefect``, and wait for nothing."""
        extra: dict[str, str] = {}
        if server == "redis":
            argv = [self.programs.redis_server, "--port", str(self.redis_port), "--bind", HOST, "--save", ""]
            argv += ["--appendonly", "yes" if self._durable else "no", "--appendfsync", "always"]
            argv += ["--dir", str(self.folder)]
            argv += ["--requirepass", self._redis_password] if self._redis_password else []
        else:
            prefect_database.lay(self.folder / "prefect", self.environment)
            argv = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST]
            argv += ["--port", str(self.prefect_port)]
            services = ("TASK_RUN_RECORDER", "EVENT_PERSISTER")
            extra = {f"PREFECT_SERVER_SERVICES_{service}_BATCH_SIZE": "50" for service in services}
            extra["PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS"] = "600"  # as provision.yml has it
            extra |= {"PREFECT_SERVER_API_AUTH_STRING": self._prefect_auth} if self._prefect_auth else {}
            extra["PREFECT_UI_API_URL"] = f"http://{HOST}:{self.prefect_port}/api"  # of --port the UI hears nothing
            extra["PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT"] = "false"
            extra["PREFECT_SERVER_REGISTER_BLOCKS_ON_START"] = "false"  # a fifth of its start; we use none
        log = self.folder / f"{server}.log"
        self.servers[server] = Child(argv, {**self.environment, **extra}, log)
        return self.servers[server]

    @staticmethod
    def _answers(ask: Callable[[], object], away: type[Exception]) -> bool:
        try:
            return bool(ask())
        except away:
            return False

    def stop(self) -> None:
        self.api.close()
        self.redis.close()
        for child in self.servers.values():
            child.end()
        for server in (self.ssh, self.receiver, self.origin):
            self.background.run(server.stop())
        self.background.close()

    def record(self, *resolutions: str, record_id: int | None = None, seconds: int = RECORDING_S) -> int:
        """A new record on the origin, with these renditions beside its original; returns its id."""
        number = next(self._records) if record_id is None else record_id
        folder = self.origin.root / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (str(number), *(f"{number}_{one}" for one in resolutions)):
            file = folder / f"{name}.flv"
            if not file.exists():
                file.hardlink_to(self._master(seconds))
        return number

    def _master(self, seconds: int) -> Path:
        master = self.folder / ("master.flv" if seconds == RECORDING_S else f"master-{seconds}.flv")
        if not master.exists():
            shutil.copyfile(self._made(seconds), master)
        return master

    def _made(self, seconds: int) -> Path:
        """The clone's recording of so many seconds; to cut one from a longer one takes a tenth of a second."""

        def make(to: Path) -> None:
            if seconds == RECORDING_S or seconds >= LONGEST_S:
                made = recordings.make(self.programs.ffmpeg, to, seconds=seconds, width=480, height=360)
                self.background.run(made)
            else:
                longer = self._made(RECORDING_S if seconds < RECORDING_S else LONGEST_S)
                cut = ("-i", str(longer), "-t", str(seconds), "-c", "copy")
                self.background.run(recordings.encode(self.programs.ffmpeg, *cut, to=to))

        way = hashlib.sha256(inspect.getsource(recordings.make).encode()).hexdigest()[:12]
        return prefect_database.once(f"recording-{way}-{seconds}.flv", make)

    def asked(self, path: str, method: str = "GET") -> int:
        return sum(one.path == f"/{path}" and one.method == method for one in list(self.origin.requests))
