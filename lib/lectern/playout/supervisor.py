"""The supervisor: keeps sockets, journals and the lease, and starts workers; small, and hardly ever changed."""

import os
import resource
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lectern.playout import kernel, worker_process
from lectern.playout.kernel import say
from lectern.playout.lease import LeaseSocket, listening, locked
from lectern.playout.worker_process import Child, Shared

LOOK_S = 0.1
HUNG_S = 2.0
"""Seconds without a tick after which a worker is killed."""
START_S = 10.0
"""Seconds in which a worker must make its first tick."""
DEATHS, DEATHS_S = 3, 60.0
"""Number of workers that die within that many seconds before the supervisor goes back to the release before."""
GOOD_S = 3600.0
"""Seconds for which the supervisor may go back from a new release to the one before."""
HANGS = 2
"""Number of workers that may hang over a session; then it is not handed on, because it may be what holds them up."""
MAX_PAUSE_S = 5.0


@dataclass
class HeldSession:
    """Copies of a session's connection and journal; without a journal (TLS) it can be reset, but not handed over."""

    connection: socket.socket
    journal: int | None
    hangs: int = 0
    """Number of workers that hung while they handled the session."""

    def close(self, *, is_reset: bool = False) -> None:
        """Close the copies; *is_reset* first resets the connection for all processes that hold it."""
        if is_reset:
            with suppress(OSError):
                kernel.reset(self.connection)
        self.connection.close()
        if self.journal is not None:
            os.close(self.journal)


class PlayoutSupervisor:
    """Runs in *folder* until SIGTERM; clients connect to the socket at *address*."""

    def __init__(self, folder: Path, address: Path, ca_file: str | None) -> None:
        self.folder, self.address, self.ca_file = folder, address, ca_file
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each session takes two here, and two in the worker
        self._lock = locked(folder / "playout.lock")
        self.shared = Shared.at()
        self.lease = LeaseSocket(folder, self.shared)
        self.listener = listening(address, "--socket")
        self.sessions: dict[str, HeldSession] = {}
        self.worker: Child | None = None
        self.standby: Child | None = None
        self.next: Child | None = None
        self._why, self._why_at = "start", time.monotonic()
        self._program = worker_process.program()
        self._good: Path | None = None
        self._good_at = 0.0
        self._ran = self._program.resolve()  # of the last worker on air, whatever the link leads to by now
        self._deaths: list[float] = []
        self._start_at, self._pause_s = 0.0, 0.0
        self._looked_at = time.monotonic()
        self._over = False

    def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        say(f"began in {self.folder}; its control socket is {self.address}")
        if not kernel.HAND_OVER:
            say("this kernel cannot hand sessions over: after the end of a worker, classes get new ones")
        try:
            while not self._over:
                self.look()
                left = self.shared.lease_until - kernel.boot_now()
                ready = select.poll()  # not select.select, which takes no descriptor above 1,023
                for connection in self.lease.sockets():
                    ready.register(connection, select.POLLIN)
                for child in self._children:
                    ready.register(child.pipe.connection, select.POLLIN | select.POLLOUT * child.pipe.waits)
                ready.poll((min(LOOK_S, left) if left > 0 else LOOK_S) * 1000)
        finally:
            self.close()

    def look(self) -> None:
        """Check everything once: the lease, the worker, the next worker, the standby."""
        self.lease.serve()
        for child in self._children:
            self._take(child)
        if not self.shared.held():
            self._fence()
        now = time.monotonic()
        was_away = now - self._looked_at > 1.0
        self._looked_at = now
        if self.worker is not None:
            if self.worker.is_over:
                self._lost("died", self.worker.end)
            elif not was_away and self._is_hung(self.worker, now):
                self.worker.kill()
                self._lost("hung", "hung, and was killed")
            elif was_away and self.worker.on_air_at is not None:
                self.worker.on_air_at = now  # this process was stopped, and perhaps the worker, too
        self._look_at_next()
        self._look_at_standby(now)
        for child in self._children:
            child.pipe.flush()

    def close(self) -> None:
        """End the workers, then all connections."""
        for child in self._children:
            child.close()
        for held in self.sessions.values():
            held.close()
        self.lease.close()
        self.listener.close()
        self.address.unlink(missing_ok=True)
        say("ended")

    @property
    def _children(self) -> list[Child]:
        return [child for child in (self.worker, self.standby, self.next) if child is not None]

    def _take(self, worker: Child) -> None:
        for message, files in worker.hear():
            if message["say"] == "session":
                self._forget(message["key"])
                self.sessions[message["key"]] = HeldSession(
                    socket.socket(fileno=files[0]), files[1] if files[1:] else None
                )
            elif message["say"] == "over":
                self._forget(message["key"])
            elif message["say"] == "upgrade" and self.next is None:
                try:
                    self.next = self._child(worker_process.program())
                except OSError as error:
                    self._upgrade_failed(worker_process.no_start(error))

    def _forget(self, key: str) -> None:
        if (held := self.sessions.pop(key, None)) is not None:
            held.close()

    def _fence(self) -> None:
        """Reset all connections when the lease is over: nothing may be sent after it, whatever the worker does."""
        if not self.sessions:
            return
        for held in self.sessions.values():
            held.close(is_reset=True)
        say(f"the lease is over: {len(self.sessions)} connections were reset")
        self.sessions.clear()
        if self.worker is not None and time.monotonic() - self.shared.ticked_at > LOOK_S * 5:
            self.worker.kill()  # it may have connections that it could not tell of

    def _is_hung(self, worker: Child, now: float) -> bool:
        if worker.on_air_at is None:
            return False
        ticked_at = self.shared.ticked_at
        if ticked_at < worker.on_air_at:
            return now - worker.on_air_at > START_S
        return now - ticked_at > HUNG_S

    def _lost(self, why: str, words: str) -> None:
        """Note how a worker ended, so that the standby replaces it; after DEATHS deaths, return to the good release."""
        assert self.worker is not None
        worker, self.worker = self.worker, None
        self._take(worker)
        say(f"the worker {words}")
        worker.pipe.close()
        self._why, self._why_at = why, time.monotonic()
        for key in [key for key in self.sessions if why == "hung" and key.startswith(f"{self.shared.handled}\n")]:
            held = self.sessions[key]
            held.hangs += 1
            if held.hangs >= HANGS:
                say(f"{key.split(chr(10))[1]}: {held.hangs} workers hung over its session, which is reset")
                held.close(is_reset=True)
                del self.sessions[key]
        self._deaths = [at for at in self._deaths if at > self._why_at - DEATHS_S] + [self._why_at]
        if self._why_at - self._good_at > GOOD_S:
            self._good = None
        if len(self._deaths) >= DEATHS and self._good is not None and self._good != worker.program:
            say(f"{DEATHS} workers of {worker.program} died within {DEATHS_S:g} s: back to {self._good}")
            self._program, self._deaths = self._good, []
            self._drop_standby()

    def _look_at_next(self) -> None:
        """Replace the worker, as an upgrade asks, once the new worker is loaded."""
        new = self.next
        if new is None:
            return
        if new.loaded is not None and not new.is_over:
            self.next = None
            if self.worker is not None:
                self.worker.kill()
                self._take(self.worker)
                self.worker.pipe.close()
                self.worker = None
            self._drop_standby()
            self._program, self._good = worker_process.program(), None
            self._why, self._why_at = "upgrade", time.monotonic()
            self._on_air(new)
        elif new.is_over or new.is_late:
            self.next, why = None, new.end  # before it is killed, which is no reason
            new.close()
            self._upgrade_failed(why)

    def _drop_standby(self) -> None:
        if self.standby is not None:
            self.standby.close()
            self.standby = None

    def _upgrade_failed(self, why: str) -> None:
        text = f"the new worker {why}; the old one goes on"
        say(f"the upgrade failed: {text}")
        if self.worker is not None:
            self.worker.pipe.say("upgrade failed", why=text)

    def _look_at_standby(self, now: float) -> None:
        standby = self.standby
        if standby is not None and (standby.is_over or standby.is_late):
            self._pause(now, standby.end)
            standby.close()
            if standby.loaded is None and standby.program != self._ran:
                self._program = self._ran
                say(f"a worker that should wait is of {self._ran} again")
            self.standby = standby = None
        if standby is not None and standby.loaded is not None and self.worker is None:
            self.standby, self._pause_s = None, 0.0
            self._on_air(standby)
        elif standby is None and now >= self._start_at and self.next is None:
            try:
                self.standby = self._child(self._program)
            except OSError as error:  # no process or memory is left: what is on air goes on
                self._pause(now, worker_process.no_start(error))

    def _pause(self, now: float, why: str) -> None:
        say(f"a worker that should wait {why}")
        self._pause_s = min(MAX_PAUSE_S, self._pause_s * 2 + 0.1)
        self._start_at = now + self._pause_s

    def _child(self, program: Path) -> Child:
        files = {"shared": self.shared.file, "listener": self.listener.fileno()}
        return Child(program.resolve(), self.folder, files, self.ca_file)

    def _on_air(self, worker: Child) -> None:
        for key, held in list(self.sessions.items()):
            with suppress(OSError):  # too many files are open for a copy of these
                if held.journal is not None:
                    worker.pipe.say("session", (held.connection.fileno(), held.journal), key=key)
                    continue
            held.close(is_reset=True)
            del self.sessions[key]
        self.shared.handle(0)
        worker.pipe.say("go", why=self._why, at=self._why_at)
        worker.on_air_at = time.monotonic()
        if self._good is None and worker.program != self._ran:  # by an upgrade, or as its link leads to it now
            self._good, self._good_at, self._deaths = self._ran, worker.on_air_at, []
        self.worker, self._ran = worker, worker.program
        assert worker.loaded is not None
        say(f"a worker of release {worker.loaded['release']} is on air ({self._why}), pid {worker.process.pid}")

    def _stop(self, *_: object) -> None:
        self._over = True
