"""A playout of its own for a test: its processes, and a client that waits for what the test wants to see."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, cast

from lectern.playout import kernel, timetable, worker_process
from lectern.playout.control_socket import write_timetable
from lectern.playout.lease import listening
from lectern.playout.worker import Terms, Worker
from lectern.playout.worker_process import Pipe, Shared
from tests import marks
from tests.playout import flvs
from tests.playout.receiver import Receiver
from tests.waiting import wait_until


class Playout:
    """Runs `program` (the product's, or one that the test makes) as a supervisor in *folder*."""

    def __init__(
        self,
        folder: Path,
        *,
        program: Path = worker_process.PROGRAM,
        lease_s: float = 600.0,
        ca_file: Path | None = None,
        **environment: str,
    ) -> None:
        self.folder, self._program, self._lease_s = folder, program, lease_s
        self._ca_file = ca_file
        self._environment = {**os.environ, **environment}
        self.socket = folder / "s"
        self.events: list[dict[str, Any]] = []
        self.timetable: dict[str, dict[str, Any]] = {}
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def start(self) -> None:
        """Start a supervisor, and give it a lease."""
        marks.starts("a playout")
        argv = [sys.executable, "-I", "-S", str(self._program), "holder"]
        argv += ["--dir", str(self.folder), "--socket", str(self.socket)]
        argv += ["--ca-file", str(self._ca_file)] if self._ca_file else []
        self.process = subprocess.Popen(argv, env=self._environment)
        self._disconnect()
        wait_until(lambda: self.process.poll() is not None or self.is_there(), description="a playout that answers")
        if self._lease_s:
            self.lease(self._lease_s)

    def is_there(self) -> bool:
        try:
            return bool(self.ask("hello")["ok"])
        except OSError:
            return False

    def lease(self, seconds: float) -> None:
        self.lease_until(kernel.boot_now() + seconds)

    def lease_until(self, until: float) -> dict[str, Any]:
        """Tell the supervisor when the lease ends; the answer."""
        with socket.socket(socket.AF_UNIX) as holder:
            holder.settimeout(10)
            holder.connect(str(self.folder / "lease.sock"))
            holder.sendall(json.dumps({"until": until}).encode() + b"\n")
            found: dict[str, Any] = json.loads(holder.makefile().readline())
        assert found["ok"], found
        return found

    def air(
        self, class_id: str, file: Path, *urls: str, starts_in_s: float = 0.5, length_s: float = 60.0, **more: Any
    ) -> Any:
        start = more.pop("start", time.time() + starts_in_s)
        fields = {"class_id": class_id, "file": str(file), "push_urls": list(urls)}
        self.timetable[class_id] = {**fields, "start": start, "end": start + length_s, **more}
        answer = self.hand_over()
        assert class_id not in answer["refused"], answer
        return answer

    def put_on_air(self, class_id: str, file: Path, *urls: str, **more: Any) -> None:
        """Air a class from now on, and wait until it is on air."""
        self.air(class_id, file, *urls, starts_in_s=0.2, **more)
        wait_until(lambda: self.told("on_air", class_id), description=f"{class_id} is on air")

    def cancel(self, class_id: str) -> None:
        del self.timetable[class_id]
        self.hand_over()

    def hand_over(self) -> dict[str, Any]:
        """Write the timetable, and have it taken over; the answer."""
        lines = [json.dumps(one) for one in sorted(self.timetable.values(), key=lambda one: float(one["start"]))]
        version = write_timetable(self.folder / timetable.NAME, lines)
        answer = self.ask("timetable", version=version)
        assert answer["ok"] and answer["version"] == version, answer  # noqa: PT018 (it is one answer)
        return answer

    def status(self, class_id: str) -> dict[str, Any]:
        (found,) = self.ask("status", class_id=class_id)["classes"]
        return dict(found)

    def hello(self) -> dict[str, Any]:
        return self.ask("hello")

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """The answer; connects anew where the connection has ended."""
        try:
            if self._connection is None:
                self._connection = socket.socket(socket.AF_UNIX)
                self._lines = self._connection.makefile("rb")
                self._connection.settimeout(10)
                self._connection.connect(str(self.socket))
                self._send(self._connection, do="hello", events=True)
            return self._send(self._connection, do=do, **fields)
        except OSError:
            self._disconnect()
            raise

    def again(self, do: str, **fields: Any) -> dict[str, Any]:
        """The answer, as soon as somebody gives one."""

        def answer() -> dict[str, Any] | None:
            with suppress(OSError):
                return self.ask(do, **fields)
            return None

        return wait_until(answer, description=f"somebody answers {do}") or {}

    def _send(self, connection: socket.socket, **fields: Any) -> dict[str, Any]:
        connection.sendall(json.dumps(fields).encode() + b"\n")
        while (line := self._lines.readline()).endswith(b"\n"):
            found: dict[str, Any] = json.loads(line)
            if "event" not in found:
                return found
            self.events.append(found)
        raise OSError("the connection ended")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._lines.close()
            self._connection.close()
            self._connection = None

    def told(self, event: str, class_id: str | None = None) -> list[dict[str, Any]]:
        """The events of a kind that have come."""
        with suppress(OSError):
            self.ask("hello")
        return [one for one in self.events if one["event"] == event and class_id in (None, one.get("class_id"))]

    def worker(self) -> int:
        """The process id of the worker."""
        return int(self.again("hello")["pid"])

    def kill_worker(self) -> dict[str, Any]:
        """Kill the worker; what the next one says of how it took over."""
        os.kill(self.worker(), signal.SIGKILL)
        return dict(wait_until(lambda: self.again("status")["worker"]["taken_over"], description="another worker"))


class Inside(Playout):
    """A playout whose worker is a thread of the test; what a supervisor keeps and says is kept and said here."""

    def start(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.shared = Shared.at()
        self.kept: dict[str, list[int]] = {}
        self.lease(self._lease_s)
        self.go("start")

    def go(self, why: str) -> None:
        """Have a worker on air, with the sessions that were kept."""
        ours, theirs = socket.socketpair()
        self.pipe = Pipe(ours)
        given = theirs.detach(), os.dup(self.shared.file), listening(self.socket, "--socket").detach()
        ca_file = str(self._ca_file) if self._ca_file else None
        self.at_work = Worker(Terms(self.folder, os.getpid(), *given, ca_file))
        for key, files in self.kept.items():
            if len(files) > 1:
                self.pipe.say("session", tuple(files), key=key)
        self.pipe.say("go", why=why, at=time.monotonic())
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        self._disconnect()
        wait_until(lambda: not self._thread.is_alive() or self.is_there(), description="a worker that answers")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self.at_work.run())
        await asyncio.wait({self._task})
        # That of a class which has just ended is the loop's alone, until the receiver closes it as well.
        for one in [*cast("Any", self._loop)._selector.get_map().values()]:
            if isinstance(one.fileobj, socket.socket) and one.fileobj.family == socket.AF_INET:
                self._loop.remove_reader(one.fileobj)
                one.fileobj.close()
        if not self._task.cancelled():
            self._task.result()

    def lease_until(self, until: float) -> dict[str, Any]:
        self.shared.lease_until = until
        return {"ok": True}

    def heard(self) -> list[str]:
        """What the worker has said to its supervisor since it was heard last; files beside it are kept."""
        found = self.pipe.hear()
        for message, files in found:
            for file in self.kept.pop(message["key"], ()) if message["say"] in ("session", "over") else ():
                os.close(file)
            if message["say"] == "session":
                self.kept[message["key"]] = files
        return [message["say"] for message, _ in found]

    def kill_worker(self) -> dict[str, Any]:
        self.die()
        self.go("died")
        return dict(self.ask("status")["worker"]["taken_over"])

    def die(self) -> None:
        """End the worker where it waits; a connection stands as long as it is kept."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        if self.at_work._control._server is not None:
            self.at_work._control._server.close()
        with suppress(worker_process.Gone):
            self.heard()
        for push in [push for one in self.at_work.schedule.airings.values() for push in one._pushes.values()]:
            push.feed.close()
            if push._session is not None and push._session.journal is not None:
                push._session.journal.close()
        for one in (self.pipe, self.at_work.pipe):
            one.close()
        os.close(self.at_work.shared.file)

    def __exit__(self, *_: object) -> None:
        self._disconnect()
        self.die()
        for file in (self.shared.file, *(file for files in self.kept.values() for file in files)):
            os.close(file)


@contextmanager
def loopback(
    folder: Path, tags: Iterable[flvs.Tag] | None = None, playout: type[Playout] = Playout, **how: Any
) -> Iterator[tuple[Any, Receiver, Path]]:
    """A playout, a receiver that it may push to, and the recording of *tags*, or else of a minute."""
    with Receiver() as receiver, playout(folder / "p", **how) as found:
        yield found, receiver, flvs.write(folder / "whole.flv", tags or flvs.lesson(60))
