"""All that a class platform has, on this machine's loopback: started in order, ended by process id."""

import asyncio
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis.asyncio as redis

from town import playout, ports, programs, settings
from town.origin import Origin
from town.oss_transcoder import OssTranscoder
from town.programs import Programs
from town.sshd import SshServer

GRACE_S = 25.0
Say = Callable[[str], None]


@dataclass
class Child:
    """A process of ours, and its log."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    async def end(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """End it by its id; what does not listen is killed."""
        if self.process.returncode is not None:
            return
        self.process.send_signal(sign)
        try:
            await asyncio.wait_for(self.process.wait(), GRACE_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


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
    children: dict[str, Child] = field(default_factory=dict)

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

    async def start_receiver(self) -> None:
        """The RTMP receiver is a process of its own, so that it can be killed in the middle of a class."""
        argv = (sys.executable, "-m", "town.rtmp", "--root", str(self.root / "received"))
        await self.spawn("receiver", *argv, "--port", str(self.rtmp_port))
        await until(lambda: _listens(self.rtmp_port), 30, "the RTMP receiver listens", self.children["receiver"])

    async def kill_receiver(self) -> None:
        """Kill the RTMP receiver, with SIGKILL."""
        child = self.children["receiver"]
        child.process.kill()
        await child.process.wait()

    async def start_playout(self) -> None:
        """The playout is a process of its own, which outlives the streamer's resident."""
        folder = self.root / "playout"
        folder.mkdir(exist_ok=True)
        await self.spawn("playout", *playout.argv(folder, self.playout_socket, first=True))
        await until(self.playout_socket.exists, 30, "the playout is there", self.children["playout"])

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
        out, err = await asyncio.wait_for(process.communicate(), 120)
        if process.returncode:
            raise RuntimeError(f"lectern {' '.join(arguments)} ended with {process.returncode}: {err.decode()[-2000:]}")
        return out.decode()

    async def serve(self, role: str) -> Child:
        """Start a resident process."""
        return await self.spawn(role, sys.executable, "-c", "from lectern.cli import main; main()", "serve", role)


async def until(condition: Callable[[], bool], timeout_s: float, what: str, child: Child | None = None) -> None:
    """Wait for a condition; raises TimeoutError that says what was waited for, and the log of *child*."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        ended = child is not None and child.process.returncode is not None
        if ended or time.monotonic() > deadline:
            said = f"\n{child.last_words()}" if child else ""
            raise TimeoutError(f"{'ended before' if ended else f'waited {timeout_s:g} s until'} {what}{said}")
        await asyncio.sleep(0.1)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((ports.HOST, port), timeout=1):
            return True
    except OSError:
        return False


@asynccontextmanager
async def running(
    root: Path, say: Say, meanwhile: Callable[["Stack", Say], Coroutine[object, object, None]]
) -> AsyncIterator[Stack]:
    """Start everything below *root*, in order, and do *meanwhile* beside it; end it all, in the other order."""
    _clear(root)
    found = programs.gather(root / "bin")
    redis_port, prefect_port, key = ports.free_port(), ports.free_port(), secrets.token_hex(16)
    environment = settings.environment(root, found, redis_port, prefect_port)
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(Origin(root / "origin", put_prefixes=("1",)))
        oss = await stack.enter_async_context(
            OssTranscoder(root / "origin", origin.url, environment["REDIS_URL"], key, ffmpeg=found.ffmpeg)
        )
        ssh = await stack.enter_async_context(SshServer(root / "ssh", environment={"PATH": environment["PATH"]}))
        environment |= settings.of_hosts(root, found, origin, oss, ssh, key)
        ui = f"http://{ports.HOST}:{prefect_port}"
        running = Stack(root, found, environment["REDIS_URL"], ui, origin, oss, ports.free_port(), environment)
        stack.callback(shutil.rmtree, running.playout_socket.parent, ignore_errors=True)
        stack.push_async_callback(_end_all, running.children)
        async with asyncio.TaskGroup() as group:
            group.create_task(meanwhile(running, say))
            group.create_task(_start(running, redis_port, prefect_port, say))
        yield running
        say("ending everything")


def _clear(root: Path) -> None:
    """Make *root* anew; a folder that no demo made is not touched."""
    mark = root / ".made-by-the-demo"
    if root.exists() and any(root.iterdir()) and not mark.exists():
        raise FileExistsError(f"{root} is not empty, and no demo made it. Name another folder with --root.")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    mark.touch()


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
    await _redis_up(stack.redis_url)
    await _prefect_up(f"{stack.ui_url}/api/health", prefect)
    say("lectern init, for the teacher and the streamer")
    await asyncio.gather(stack.lectern("init", "teacher"), stack.lectern("init", "streamer"))
    say("lectern playout, then lectern serve, the teacher and the streamer")
    await stack.start_playout()
    for role in ("teacher", "streamer"):
        child = await stack.serve(role)
        await until(lambda child=child: "started!" in child.last_words(), 60, f"the {role} is up", child)  # type: ignore[misc]
    # Until then the teacher has no streamer to place a class on.
    streamer, held = stack.children["streamer"], "lease: held"
    await until(lambda: held in streamer.last_words(), 60, "the streamer holds its lease", streamer)


async def _redis_up(url: str) -> None:
    client = redis.Redis.from_url(url)
    try:
        for _ in range(100):
            try:
                await client.ping()
            except redis.RedisError:
                await asyncio.sleep(0.1)
            else:
                return
        raise TimeoutError(f"{url} did not answer within 10 s")
    finally:
        await client.aclose()


async def _prefect_up(url: str, child: Child) -> None:
    deadline = time.monotonic() + 120
    async with httpx.AsyncClient(timeout=5) as client:
        while True:
            try:
                if (await client.get(url)).is_success:
                    return
            except httpx.HTTPError:
                pass
            if child.process.returncode is not None or time.monotonic() > deadline:
                raise TimeoutError(f"the Prefect server did not come up:\n{child.last_words()}")
            await asyncio.sleep(0.2)


async def _end_all(children: Mapping[str, Child]) -> None:
    residents = [child for name, child in children.items() if name in {"teacher", "streamer"}]
    await asyncio.gather(*(child.end() for child in residents))
    await asyncio.gather(*(child.end() for child in children.values()))
