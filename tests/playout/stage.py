"""A playout of its own for a test: its processes, and a client that waits for what the test wants to see."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lectern.playout import kernel, timetable, worker_process
from lectern.playout.control_socket import write_timetable
from tests import marks
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
        self._rest = b""
        self._answers: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()
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
        if self._connection is not None:
            self._connection.close()
            self._connection = None
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
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.settimeout(10)
            self._rest = b""
            try:
                self._connection.connect(str(self.socket))
                self._send(do="hello", events=True)
            except OSError:
                self._connection.close()
                self._connection = None
                raise
        try:
            return self._send(do=do, **fields)
        except OSError:
            self._connection.close()
            self._connection = None
            raise

    def again(self, do: str, **fields: Any) -> dict[str, Any]:
        end = time.monotonic() + 20
        while True:
            with suppress(OSError):
                return self.ask(do, **fields)
            assert time.monotonic() < end, f"nobody answers {do}"
            time.sleep(0.02)

    def _send(self, **fields: Any) -> dict[str, Any]:
        assert self._connection is not None
        self._connection.sendall(json.dumps(fields).encode() + b"\n")
        while True:
            while b"\n" not in self._rest:
                data = self._connection.recv(1 << 20)
                if not data:
                    raise OSError("the connection ended")
                self._rest += data
            line, _, self._rest = self._rest.partition(b"\n")
            found: dict[str, Any] = json.loads(line)
            if "event" not in found:
                return found
            self.events.append(found)

    def told(self, event: str, class_id: str | None = None) -> list[dict[str, Any]]:
        """The events of a kind that have come."""
        with suppress(OSError):
            self.ask("hello")
        return [one for one in self.events if one["event"] == event and class_id in (None, one.get("class_id"))]

    def worker(self) -> int:
        """The process id of the worker."""
        return int(self.again("hello")["pid"])
