"""What the tests of flows stand on: real servers, resident processes as children, the platform at the other end."""

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import redis

from lectern.demo import programs, recordings
from lectern.demo.origin import Origin
from lectern.demo.oss_transcoder import OssTranscoder
from lectern.demo.platform import position_s
from lectern.demo.ports import HOST, Loopback, free_port
from lectern.demo.recordings import Publish
from lectern.demo.rtmp import RtmpReceiver
from lectern.demo.sshd import SshServer

T = TypeVar("T")
Fields = dict[str, Any]
SECRET = "made-up-key"
RECORDING_S = 30
UP_S = 90.0
"""A resident process is up within 4 to 8 s on an idle machine; other tests may run beside these."""

# A child dies with the tests, even where they are killed: the setting survives the exec.
_MORTAL = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"
_LECTERN = (sys.executable, "-c", "from lectern.cli import main; main()")
_numbers = itertools.count(1)


def wait_until(condition: Callable[[], T], *, timeout_s: float = 30.0, description: str) -> T:
    """Wait until *condition* is true, and return what it returned."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < give_up_at, f"waited {timeout_s:g} s until {description}"
        time.sleep(0.05)


class Background:
    """An asyncio loop in a thread: the demo's servers live there, the tests stay plain functions."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        """The result of *work*."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def close(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Child:
    """A process of ours, with its log; it is ended by its id."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-c", _MORTAL, *argv],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=log.parent,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        """What it wrote to its log."""
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str, timeout_s: float = UP_S) -> None:
        """Wait until it has said *words*; it must not end before."""

        def has_said() -> bool:
            assert self.exit_code is None or words in self.said(), f"ended ({self.exit_code}) before it said {words!r}"
            return words in self.said()

        wait_until(has_said, timeout_s=timeout_s, description=f"{self.log.stem} says {words!r}")

    def end(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; returns the exit code. What does not listen is killed, and fails the test."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(f"{self.log.stem} did not end within {timeout_s:g} s of SIGTERM") from error

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it does not get to another instruction."""
        os.kill(self.pid, signal.SIGSTOP)


class Gate(Loopback):
    """A way to a server of loopback that can be shut: then connections are cut and refused, until it is opened."""

    def __init__(self, to_port: int) -> None:
        super().__init__()
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Open it."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def stop(self) -> None:
        """Shut it."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, onward = await asyncio.open_connection(HOST, self._to_port)
            self._open |= {writer, onward}
            await asyncio.gather(self._pump(reader, onward), self._pump(there, writer))
            self._open -= {writer, onward}
        writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.transport.abort()


class Ear:
    """The platform's: hears the answers and alarms that are published while it listens."""

    def __init__(self, url: str, answers: str, alarms: str) -> None:
        self.answers: dict[str, list[Fields]] = defaultdict(list)
        self.alarms: list[Fields] = []
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.subscribe(answers, alarms)
        self._alarms = alarms
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="ear", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            found = self._pubsub.get_message(timeout=0.2)
            if found is None:
                continue
            message = {**json.loads(found["data"]), "received_at": time.time()}
            if found["channel"] == self._alarms:
                self.alarms.append(message)
            else:
                self.answers[message["class_id"]].append(message)

    def close(self) -> None:
        """Stop listening."""
        self._over.set()
        self._thread.join(5)
        self._pubsub.close()
        self._client.close()


class Town:
    """What all tests of a session share: Redis, the Prefect server, an origin, an RTMP receiver, an SSH server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = programs.gather(folder / "bin")
        self.background = Background()
        self.origin = Origin(folder / "origin")
        self.receiver = RtmpReceiver(folder / "received")
        self.ssh = SshServer(folder / "ssh")
        self.redis_port, self.prefect_port = free_port(), free_port()
        self.redis_url = f"redis://{HOST}:{self.redis_port}/0"
        self.redis: redis.Redis = redis.Redis.from_url(self.redis_url, decode_responses=True)
        self.api = httpx.Client(base_url=f"http://{HOST}:{self.prefect_port}/api", timeout=60)
        self._children: list[Child] = []
        self._records = itertools.count(1001)

    @property
    def environment(self) -> dict[str, str]:
        """What every process sees, and nothing of the user's settings."""
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
        return {
            **kept,
            "PATH": programs.path(self.programs),
            "HOME": str(self.folder),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }

    def start(self) -> None:
        """Start everything; the Prefect server takes its time."""
        argv = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(self.prefect_port)]
        services = ("TASK_RUN_RECORDER", "EVENT_PERSISTER")
        batches = {f"PREFECT_SERVER_SERVICES_{service}_BATCH_SIZE": "50" for service in services}
        prefect = self._spawn("prefect", *argv, **batches)
        argv = [self.programs.redis_server, "--port", str(self.redis_port), "--bind", HOST, "--save", ""]
        self._spawn("redis", *argv, "--appendonly", "no", "--dir", str(self.folder))
        for server in (self.origin, self.receiver, self.ssh):
            self.background.run(server.start())
        master = self.folder / "master.flv"
        ffmpeg = self.programs.ffmpeg
        self.background.run(recordings.make(ffmpeg, master, seconds=RECORDING_S, width=480, height=360))
        wait_until(lambda: self._answers(self.redis.ping, redis.RedisError), description="Redis answers")

        def is_up() -> bool:
            assert prefect.exit_code is None, f"the Prefect server ended:\n{prefect.said()[-2000:]}"
            return self._answers(lambda: self.api.get("/health").is_success, httpx.HTTPError)

        wait_until(is_up, timeout_s=120, description="the Prefect server answers")

    @staticmethod
    def _answers(ask: Callable[[], object], away: type[Exception]) -> bool:
        try:
            return bool(ask())
        except away:
            return False

    def _spawn(self, name: str, *argv: str, **extra: str) -> Child:
        child = Child(argv, {**self.environment, **extra}, self.folder / f"{name}.log")
        self._children.append(child)
        return child

    def stop(self) -> None:
        """End everything."""
        self.api.close()
        self.redis.close()
        for child in self._children:
            child.end()
        for server in (self.ssh, self.receiver, self.origin):
            self.background.run(server.stop())
        self.background.close()

    def record(self, *resolutions: str, record_id: int | None = None) -> int:
        """A new record on the origin, with these renditions beside its original; returns its id."""
        number = next(self._records) if record_id is None else record_id
        folder = self.origin.root / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (str(number), *(f"{number}_{one}" for one in resolutions)):
            file = folder / f"{name}.flv"
            if not file.exists():
                file.hardlink_to(self.folder / "master.flv")
        return number

    def asked(self, path: str, method: str = "GET") -> int:
        """How often the origin was asked for *path*."""
        return sum(one.path == f"/{path}" and one.method == method for one in list(self.origin.requests))


class Stage:
    """A teacher and streamers of their own: names, channels, keys, databases; the servers are the town's."""

    def __init__(self, town: Town, folder: Path, settings: Mapping[str, str]) -> None:
        self.town, self.folder = town, folder
        self.prefix = f"s{next(_numbers)}"
        self.residents: dict[str, Child] = {}
        self._initialised: set[str] = set()
        self._children: list[Child] = []
        self._classes = itertools.count(1)
        channels = ("order", "cancel", "transcoding", "order_result", "alarm")
        self.channels = {name: f"{self.prefix}:{name}" for name in channels}
        self.ear = Ear(town.redis_url, self.channels["order_result"], self.channels["alarm"])
        self.oss = OssTranscoder(
            town.origin.root,
            town.origin.url,
            town.redis_url,
            SECRET,
            channel=self.channels["transcoding"],
            ffmpeg=town.programs.ffmpeg,
        )
        town.background.run(self.oss.start())
        self.settings = {**self._settings(), **settings}

    def _settings(self) -> dict[str, str]:
        town, prefix = self.town, self.prefix
        return {
            **{f"{name.upper()}_CHANNEL": channel for name, channel in self.channels.items()},
            "WAITING_KEY": f"{prefix}:{{record_id}}_{{resolution}}",
            "STREAMER_STREAM": f"{prefix}:to:{{name}}",
            "REPORT_STREAM": f"{prefix}:report",
            "DEAD_LETTER_STREAM": f"{prefix}:dead_letter",
            "STREAMERS_KEY": f"{prefix}:streamers",
            "REDIS_URL": town.redis_url,
            "PREFECT_API_URL": str(town.api.base_url).rstrip("/"),
            "TEACHER_NAME": self.name("teacher"),
            "TEACHER_DATABASE_URL": f"sqlite:///{self.folder}/teacher.db",
            "TRANSCODE_SIGN_KEY": SECRET,
            "OSS_TRANSCODE_URL": self.oss.url,
            "TRANSCODING_TIME_OUT_S": "12",
            "HTTP_TIMEOUT_S": "5",
            "ECS_HOSTS": town.ssh.url,
            "ECS_SSH_KEY": str(town.ssh.client_key),
            "ECS_KNOWN_HOSTS": str(town.ssh.known_hosts),
            "ECS_WORK_ROOT": str(self.folder / "ecs"),
            "ECS_FFMPEG": town.programs.ffmpeg,
            "ECS_WGET": town.programs.wget,
            "UPLOAD_URL": f"{town.origin.url}/put",
            "PUBLIC_URL": f"{town.origin.url}/put",
            "WGET_PATH": town.programs.wget,
            "DOWNLOAD_RATE": "50m",
            "ALLOWED_ORIGINS": HOST,
            "BROADCAST_LEAD_S": "3",
            "SWEEP_INTERVAL_S": "2",
            "DRAIN_TIMEOUT_S": "1",
            "API_BIND": f"{HOST}:0",
            "HEALTH_BIND": f"{HOST}:0",
            "HEARTBEAT_INTERVAL_S": "2",
            "STREAMER_LOST_AFTER_S": "20",
        }

    # -- the resident processes ------------------------------------------------------------------------------------

    def name(self, who: str) -> str:
        """The name of the host *who*: ``teacher``, ``streamer1`` …"""
        return f"{self.prefix}-{who}"

    def environment(self, who: str) -> dict[str, str]:
        """All that the host *who* sees."""
        own = (
            {}
            if who == "teacher"
            else {
                "STREAMER_NAME": self.name(who),
                "STREAMER_DATABASE_URL": f"sqlite:///{self.database(who)}",
                "VIDEO_ROOT": str(self.folder / who),
            }
        )
        return {**self.town.environment, **self.settings, **own}

    def database(self, who: str) -> Path:
        """The database of *who*."""
        return self.folder / f"{who}.db"

    def lectern(self, who: str, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run ``lectern …`` on the host *who* to its end."""
        return subprocess.run(
            [*_LECTERN, *arguments],
            env=self.environment(who),
            cwd=self.folder,
            capture_output=True,
            text=True,
            input=text,
            timeout=120,
            check=False,
        )

    def up(self, *who: str) -> None:
        """Initialise and start the hosts *who* that do not run, and wait until they work."""
        new = [one for one in who if one not in self._initialised]
        begun = [self._begin(one, "init", _role(one)) for one in new]
        for one, child in zip(new, begun, strict=True):
            wait_until(lambda c=child: c.exit_code is not None, timeout_s=120, description=f"{one} is initialised")  # type: ignore[misc]
            assert child.exit_code == 0, child.said()
            self._initialised.add(one)
        living = {one for one, child in self.residents.items() if child.exit_code is None}
        for child in [self.serve(one) for one in who if one not in living]:
            child.wait_for("started!")

    def serve(self, who: str, **extra: str) -> Child:
        """Start the resident process of *who*, and wait for nothing."""
        self.residents[who] = self._begin(who, "serve", _role(who), **extra)
        return self.residents[who]

    def _begin(self, who: str, *arguments: str, **extra: str) -> Child:
        log = self.folder / f"{len(self._children)}-{arguments[0]}-{who}.log"
        self._children.append(Child([*_LECTERN, *arguments], {**self.environment(who), **extra}, log))
        return self._children[-1]

    def logs(self) -> Iterator[tuple[str, str]]:
        """The end of each log."""
        for child in self._children:
            yield child.log.stem, child.said()[-4000:]

    def close(self) -> None:
        """End all residents, by their ids."""
        living = [child for child in self._children if child.exit_code is None]
        for child in living:
            os.kill(child.pid, signal.SIGCONT)
            os.kill(child.pid, signal.SIGTERM)
        for child in living:
            child.end()
        self.town.background.run(self.oss.stop())
        self.ear.close()

    # -- the platform ----------------------------------------------------------------------------------------------

    def booking(
        self,
        record_id: int,
        resolution: str | None = None,
        *,
        starts_in_s: float = 600.0,
        length_s: float = 6.0,
        listed: Sequence[str] = (),
        **fields: object,
    ) -> Fields:
        """A booking of a new class; without *resolution* one of the old kind."""
        class_id = f"{self.prefix}-c{next(self._classes)}"
        start, url_for = time.time() + starts_in_s, self.town.origin.url_for
        new = {
            "video_resolution": resolution,
            "video_url_list": {one: url_for(f"{record_id}/{record_id}_{one}.flv") for one in listed},
        }
        return {
            "cmd": "order",
            "class_id": class_id,
            "institution_id": "i-7",
            "record_id": record_id,
            "video_url": url_for(f"{record_id}/{record_id}.flv"),
            "start_time": start,
            "end_time": start + length_s,
            "push_url": self.town.receiver.url(class_id),
            **(new if resolution else {}),
            **fields,
        }

    def publish(self, channel: str, message: object) -> None:
        """Publish on one of the documented channels; a text goes as it is."""
        body = message if isinstance(message, str) else json.dumps(message)
        self.town.redis.publish(self.channels[channel], body)

    def book(self, booking: Fields) -> str:
        """Publish a booking; returns its class_id."""
        self.publish("order", booking)
        return str(booking["class_id"])

    def cancel(self, class_id: str) -> None:
        """Publish a cancel."""
        self.publish("cancel", {"cmd": "cancel", "class_id": class_id})

    def tell(self, streamer: str, message: Fields) -> None:
        """Tell a streamer what a teacher would; for stages that have none."""
        self.town.redis.xadd(f"{self.prefix}:to:{self.name(streamer)}", {"body": json.dumps(message)})

    def stream(self, name: str) -> list[Fields]:
        """All that was put on a stream."""
        found: Any = self.town.redis.xrange(name)
        return [json.loads(fields["body"]) for _, fields in found]

    def answer(self, class_id: str, *, timeout_s: float = 45.0, count: int = 1) -> Fields:
        """The answer to a booking; with *count* the last of so many."""
        description = f"{class_id} is answered {count} times"
        wait_until(lambda: len(self.ear.answers[class_id]) >= count, timeout_s=timeout_s, description=description)
        return self.ear.answers[class_id][count - 1]

    def alarms(self, code: int, **fields: object) -> list[Fields]:
        """The alarms with *code* and these fields."""
        return [
            one
            for one in self.ear.alarms
            if one["code"] == code and all(one.get(name) == value for name, value in fields.items())
        ]

    def pushes(self, class_id: str) -> list[Publish]:
        """What the RTMP receiver took of a class, one entry a push."""
        return list(self.town.receiver.publishes.get(class_id, []))

    def on_air(self, class_id: str, timeout_s: float = 40.0) -> Publish:
        """Wait until pictures of the class arrive."""

        def seen() -> Publish | None:
            live = [one for one in self.pushes(class_id) if one.first_media_at is not None and one.ended_at is None]
            return live[-1] if live else None

        return wait_until(seen, timeout_s=timeout_s, description=f"{class_id} is on air")  # type: ignore[return-value]

    def off_air(self, class_id: str, timeout_s: float = 40.0) -> list[Publish]:
        """Wait until all pushes of the class have ended."""

        def over() -> bool:
            pushes = self.pushes(class_id)
            return bool(pushes) and all(one.ended_at is not None for one in pushes)

        wait_until(over, timeout_s=timeout_s, description=f"{class_id} is off air")
        return self.pushes(class_id)

    def position_s(self, record_id: int, push: Publish) -> float:
        """Where in the recording a push began, by its first key picture."""
        source = self.town.origin.root / str(record_id) / f"{record_id}.flv"
        found = position_s(source, self.town.receiver.root / push.file)
        assert found is not None, f"{push.file} has no key picture of {source.name}"
        return found

    # -- what can be seen from outside -----------------------------------------------------------------------------

    def rows(self, who: str, sql: str, *values: object) -> list[Fields]:
        """Rows of the database of *who*."""
        with closing(sqlite3.connect(f"file:{self.database(who)}?mode=ro", uri=True, timeout=20)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def order(self, class_id: str) -> Fields:
        """The booking as the teacher has it; empty where it is not known."""
        return next(iter(self.rows("teacher", "select * from order_list where class_id = ?", class_id)), {})

    def status(self, record_id: int, resolution: str) -> str | None:
        """The documented status of a rendition."""
        wanted = "select status from video_list where record_id = ? and resolution = ?"
        return next((row["status"] for row in self.rows("teacher", wanted, record_id, resolution)), None)

    def airing(self, who: str, class_id: str) -> Fields:
        """The class as the streamer *who* has it; empty where it is not known."""
        return next(iter(self.rows(who, "select * from class_list where class_id = ?", class_id)), {})

    def num_cite(self, who: str, stem: str) -> int | None:
        """The documented citation count of a rendition; None where it is not in the cache."""
        rows = self.rows(who, "select num_cite from video_list where id = ?", stem)
        return next((int(row["num_cite"]) for row in rows), None)

    def cached(self, who: str) -> set[str]:
        """The renditions that *who* has."""
        return {row["id"] for row in self.rows(who, "select id from video_list where state = 'ready'")}

    def waiting_list(self, record_id: int, resolution: str) -> list[str]:
        """The documented Redis list of the classes that wait for a rendition."""
        found: Any = self.town.redis.lrange(f"{self.prefix}:{record_id}_{resolution}", 0, -1)
        return [str(one) for one in found]

    def posts(self, record_id: int) -> int:
        """How many signed POSTs the OSS transcoder took for a record."""
        return sum(one.record_id == record_id for one in list(self.oss.posts))

    def runs(self, who: str, name: str, *, limit: int = 50) -> list[Fields]:
        """The runs of *who* whose name contains *name*, newest first, as Prefect knows them."""
        asked = {
            "flow_runs": {"name": {"like_": name}},
            "deployments": {"name": {"any_": [self.name(who)]}},
            "sort": "START_TIME_DESC",
            "limit": limit,
        }
        found: list[Fields] = self.town.api.post("/flow_runs/filter", json=asked).raise_for_status().json()
        return found

    def run(self, run_id: str) -> Fields:
        """A run as Prefect knows it."""
        found: Fields = self.town.api.get(f"/flow_runs/{run_id}").raise_for_status().json()
        return found

    def click(self, run_id: str, state_type: str, state_name: str) -> None:
        """Set a run's state as the UI does at *Retry* (SCHEDULED, AwaitingRetry) and *Cancel* (CANCELLING)."""
        state = {"type": state_type, "name": state_name, "message": f"{state_name} from the UI"}
        found = self.town.api.post(f"/flow_runs/{run_id}/set_state", json={"state": state}).raise_for_status().json()
        # A run that has not begun is cancelled at once, which Prefect says by rejecting the state in between.
        assert found["status"] == "ACCEPT" or found["state"]["type"] == "CANCELLED", found


def _role(who: str) -> str:
    return "teacher" if who == "teacher" else "streamer"


def ffmpegs_of(words: str) -> list[int]:
    """The ids of the ffmpegs that have *words* in their command line."""
    found = []
    for process in psutil.process_iter(["pid", "name", "cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if "ffmpeg" in command and words in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(int(process.pid))
    return found


@contextmanager
def staged(town: Town, folder: Path, **settings: str) -> Iterator[Stage]:
    """A stage in *folder*, with *settings* of its own; all its residents are ended."""
    stage = Stage(town, folder, settings)
    STAGES.append(stage)
    try:
        yield stage
    finally:
        STAGES.remove(stage)
        stage.close()


STAGES: list[Stage] = []
"""Those that are open: their logs are shown when a test fails."""
