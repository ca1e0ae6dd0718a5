"""Starts programs in threads of their own, because the start waits for the child's first turn on a processor.

On a busy machine each start takes a tenth of a second and more, in which an event loop would pass on no lease.
"""

import asyncio
import errno
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from lectern.errors import Caught


class Started:
    """A program and its pipes, for the loop in which it was started.

    The thread that started it lives as long as the program: Linux kills a child that wants to die with its parent
    as soon as that thread ends.
    """

    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    stdin: asyncio.StreamWriter | None = None

    def __init__(self, popen: "subprocess.Popen[bytes]", ended: asyncio.Event) -> None:
        self.pid = popen.pid
        self._popen = popen
        self._ended = ended
        self._pipes: list[asyncio.BaseTransport] = []

    @property
    def returncode(self) -> int | None:
        """The exit code of the program; None while it runs."""
        return self._popen.returncode

    async def wait(self) -> None:
        """Wait for the end of the program, whoever holds its pipes."""
        await self._ended.wait()

    async def connect(self) -> None:
        """Connect the program's pipes to the loop."""
        self.stdout, self.stderr = await self._reader(self._popen.stdout), await self._reader(self._popen.stderr)
        if self._popen.stdin is not None:
            loop, unread = asyncio.get_running_loop(), asyncio.StreamReaderProtocol(asyncio.StreamReader())
            transport, protocol = await loop.connect_write_pipe(lambda: unread, self._popen.stdin)
            self._pipes.append(transport)
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)

    async def _reader(self, pipe: object) -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        loop, protocol = asyncio.get_running_loop(), asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, pipe)
        self._pipes.append(transport)
        return reader

    def close(self) -> None:
        """Close our ends of the pipes, also of pipes that somebody else still holds."""
        for pipe in self._pipes:
            pipe.close()


async def start(
    argv: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    before_exec: Callable[[], None] | None,
    *,
    reads: bool,
) -> Started:
    """Start a program in a process group of its own; raises OSError if it cannot be started."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Future[subprocess.Popen[bytes]] = loop.create_future()
    ended = asyncio.Event()

    def live() -> None:
        with Caught() as failed:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=cwd,
                env=env,
                process_group=0,
                preexec_fn=before_exec,  # noqa: PLW1509 (it only calls the system; see lectern.effects.last_will)
            )
        if failed.error is not None:  # it is raised to whoever starts the program
            _tell(loop, _failed, coming, failed.error)
            return
        if not _tell(loop, _came, coming, popen):
            popen.kill()
        popen.wait()
        _tell(loop, ended.set)

    try:
        threading.Thread(target=live, name=f"process {argv[0]}", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no thread to be had just now") from error
    popen = await coming
    started = Started(popen, ended)
    with ExitStack() as failed:
        failed.callback(_kill, popen)
        failed.callback(started.close)
        await started.connect()
        failed.pop_all()
    return started


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: object) -> bool:
    """Have *call* called in the loop; False if the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)
        return True
    return False


def _came(coming: "asyncio.Future[subprocess.Popen[bytes]]", popen: "subprocess.Popen[bytes]") -> None:
    if coming.done():  # whoever wanted it was cancelled
        _kill(popen)
    else:
        coming.set_result(popen)


def _failed(coming: "asyncio.Future[subprocess.Popen[bytes]]", error: Exception) -> None:
    if not coming.done():
        coming.set_exception(error)


def _kill(popen: "subprocess.Popen[bytes]") -> None:
    popen.kill()
    for pipe in (popen.stdin, popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()
