"""All that a class platform has, on this machine's loopback: started in order, ended by process id."""

import asyncio
import fcntl
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis.asyncio as redis

from lectern.timing import shielded
from town import playout, ports, programs, settings
from town.origin import Origin
from town.oss_transcoder import OssTranscoder
from town.programs import Programs
from town.sshd import SshServer
from town.waits import GaveUp, Sight, Waits, size

GRACE_S = 25.0
INIT_S, SLOWEST = 12.0, 10.0
"""Seconds that ``lectern init`` takes while nothing else runs; how many times as slow the demo lets a machine be."""

Say = Callable[[str], None]


@dataclass
class Child:
    """A process of ours, and its log."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    async def end(self) -> None:
        """End it by its id; what does not listen is killed, and so is what it leaves behind."""
        if self.process.returncode is not None:
            return
        self.process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), GRACE_S)
        self.kill()
        await self.process.wait()

    def kill(self) -> None:
        """Kill it, and the processes of its group, by the id of that."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def sight(self, *files: Path) -> Sight:
        """How it gets on: its log, and *files* that it writes."""
        last = self.last_words().rstrip().rpartition("\n")[2]
        return Sight(size(self.log, *files), last, has_ended=self.process.returncode is not None)


@dataclass
class Stack:
    """What runs, and where."""

    root: Path
    programs: Programs
    redis_url: str
    ui_url: str
    origin: Origin
    oss: OssTranscoder
    rtmp_port: int
    environment: dict[str, str]
    waits: Waits
    children: dict[str, Child] = field(default_factory=dict)
    slowness: float = 1.0
    """How many times as long as on a machine that has nothing else to do its programs take."""

    async def spawn(self, name: str, *argv: str, **extra: str) -> Child:
        """Start a process in a group of its own, its log in ``logs/NAME.log``."""
        log = self.root / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=self.root,
                env={**self.environment, **extra},
                start_new_session=True,
            )
        self.children[name] = Child(name, process, log)
        return self.children[name]

    def on_signals(self, act: Callable[[], object]) -> None:
        """Have Ctrl-C, SIGTERM, and the end of the terminal *act*."""
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(sign, act)

    def kill_all(self) -> None:
        """Kill what has not ended yet."""
        for child in self.children.values():
            if child.process.returncode is None:
                child.kill()

    async def start_receiver(self, after_s: float = 0.0) -> None:
        """The RTMP receiver is a process of its own, so that it can be killed in the middle of a class."""
        at = str(time.time() + after_s)
        argv = (sys.executable, "-m", "town.rtmp", "--root", str(self.root / "received"), "--at", at)
        receiver = await self.spawn("receiver", *argv, "--port", str(self.rtmp_port))
        await self.waits.until(lambda: _listens(self.rtmp_port), "the RTMP receiver", receiver.sight)

    async def kill_receiver(self) -> None:
        """Kill the RTMP receiver, with SIGKILL."""
        child = self.children["receiver"]
        child.process.kill()
        await child.process.wait()

    async def start_playout(self) -> None:
        """The playout is a process of its own, which outlives the streamer's resident."""
        folder = self.root / "playout"
        folder.mkdir(exist_ok=True)
        child = await self.spawn("playout", *playout.argv(folder, self.playout_socket, first=True))
        await self.waits.until(self.playout_socket.exists, "the playout", child.sight)

    @property
    def playout_socket(self) -> Path:
        """Where the streamer's playout answers."""
        return Path(self.environment["PLAYOUT_SOCKET"])

    async def lectern(self, *arguments: str) -> str:
        """Run ``lectern …`` to its end; returns what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from lectern.cli import main; main()",
            *arguments,
            cwd=self.root,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        typed = f"lectern {' '.join(arguments)}"
        ending = asyncio.create_task(process.communicate())
        try:
            await self.waits.until(ending.done, typed, lambda: Sight(size(*self._databases())))
        finally:
            if not ending.done():
                process.kill()
            out, err = await ending
        if process.returncode:
            raise GaveUp(f"{typed} ended with {process.returncode}: {err.decode(errors='replace').strip()[-2000:]}")
        return out.decode()

    def _databases(self) -> list[Path]:
        return [*self.root.glob("*.db*"), self.root / "prefect"]

    async def serve(self, role: str) -> Child:
        """Start a resident process."""
        return await self.spawn(role, sys.executable, "-c", "from lectern.cli import main; main()", "serve", role)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((ports.HOST, port), timeout=1):
            return True
    except OSError:
        return False


@asynccontextmanager
async def running(
    root: Path, say: Say, waits: Waits, meanwhile: Callable[["Stack", Say], Coroutine[object, object, None]]
) -> AsyncIterator[Stack]:
    """Start everything below *root*, in order, and do *meanwhile* beside it; end it all, in the other order."""
    async with AsyncExitStack() as stack:
        stack.enter_context(_claimed(root))
        found = programs.gather(root / "bin")
        redis_port, prefect_port, key = ports.free_port(), ports.free_port(), secrets.token_hex(16)
        environment = settings.environment(root, found) | settings.of_servers(redis_port, prefect_port)
        origin = await stack.enter_async_context(Origin(root / "origin", put_prefixes=("1",)))
        oss = await stack.enter_async_context(
            OssTranscoder(root / "origin", origin.url, environment["REDIS_URL"], key, ffmpeg=found.ffmpeg)
        )
        ssh = await stack.enter_async_context(SshServer(root / "ssh", environment={"PATH": environment["PATH"]}))
        environment |= settings.of_hosts(root, found, origin, oss, ssh, key)
        ui = f"http://{ports.HOST}:{prefect_port}"
        running = Stack(root, found, environment["REDIS_URL"], ui, origin, oss, ports.free_port(), environment, waits)
        stack.callback(shutil.rmtree, running.playout_socket.parent, ignore_errors=True)
        stack.push_async_callback(lambda: shielded(_end_all(running.children)))
        task = asyncio.current_task()
        assert task is not None
        running.on_signals(task.cancel)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(meanwhile(running, say))
                group.create_task(_start(running, redis_port, prefect_port, say))
            yield running
        finally:
            running.on_signals(running.kill_all)
            say("ending everything")


@contextmanager
def _claimed(root: Path) -> Iterator[None]:
    """Make *root* anew, for this demo alone; a folder that no demo made is not touched."""
    mark = root / ".made-by-the-demo"
    if root.exists() and any(root.iterdir()) and not mark.exists():
        raise FileExistsError(f"{root} is not empty, and no demo made it. Name another folder with --root.")
    root.mkdir(parents=True, exist_ok=True)
    with mark.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(f"another demo runs in {root}. End it first, with Ctrl-C in its terminal.") from error
        for one in list(root.iterdir()):
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            elif one != mark:
                one.unlink()
        yield


async def _start(stack: Stack, redis_port: int, prefect_port: int, say: Say) -> None:
    say("Redis, Prefect server, origin, OSS transcoder, SSH server, RTMP receiver")
    redis_argv = (stack.programs.redis_server, "--port", str(redis_port), "--bind", ports.HOST, "--save", "")
    await stack.spawn("redis", *redis_argv, "--appendonly", "no", "--dir", str(stack.root))
    prefect = await stack.spawn(
        "prefect",
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        ports.HOST,
        "--port",
        str(prefect_port),
    )
    await stack.start_receiver()
    redis_server, database = stack.children["redis"], stack.root / "prefect"
    await stack.waits.until(lambda: _redis_answers(stack.redis_url), "Redis", redis_server.sight)
    health = f"{stack.ui_url}/api/health"
    async with _client() as client:
        await stack.waits.until(lambda: _answers(client, health), "the Prefect server", lambda: prefect.sight(database))
    say("lectern init, for the teacher and the streamer")
    began = time.monotonic()
    await asyncio.gather(stack.lectern("init", "teacher"), stack.lectern("init", "streamer"))
    took_s = time.monotonic() - began
    stack.slowness = min(max(1.0, took_s / INIT_S), SLOWEST)
    stack.environment |= settings.of_pace(stack.slowness)
    if stack.slowness > 1.0:
        say(f"that took {took_s:.0f} s, not {INIT_S:g}: this machine is slow or busy, so all classes begin later")
    say("lectern playout, then lectern serve, the teacher and the streamer")
    await stack.start_playout()
    await _said(stack, await stack.serve("teacher"), "started!", "the teacher")
    streamer = await stack.serve("streamer")
    await _said(stack, streamer, "started!", "the streamer")
    await _said(stack, streamer, "lease: held", "the streamer's lease")  # until then a class has no place to go to


async def _said(stack: Stack, child: Child, words: str, what: str) -> None:
    await stack.waits.until(lambda: words in child.log.read_text(errors="replace"), what, child.sight)


async def _redis_answers(url: str) -> bool:
    client = redis.Redis.from_url(url, socket_timeout=5)
    try:
        return bool(await client.ping())
    except redis.RedisError:
        return False
    finally:
        await client.aclose()


def _client() -> httpx.AsyncClient:
    """A client of servers on this machine, which no proxy reaches that the environment may name."""
    return httpx.AsyncClient(timeout=5, trust_env=False)


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False


async def _end_all(children: Mapping[str, Child]) -> None:
    residents = [child for name, child in children.items() if name in {"teacher", "streamer"}]
    await asyncio.gather(*(child.end() for child in residents))
    await asyncio.gather(*(child.end() for child in children.values()))
