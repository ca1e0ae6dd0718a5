"""Two ECS hosts on this machine, and a teacher that they make renditions for."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import Any

from tests.stage import Gate, Stage, running_with, wait_until
from town.ports import HOST
from town.sshd import SshServer


class Server(SshServer):
    """An ECS host: a home of its own, and a way to it that can be shut.

    While there is a file *slow*, no program begins there.
    """

    def __init__(self, folder: Path, *admits: Path) -> None:
        self.home = folder / "home"
        self.slow = self.home / "slow"
        programs = self.home / "bin"
        programs.mkdir(parents=True)
        first = programs / "setsid"  # each command there begins with it
        first.write_text(f'#!/bin/sh\nwhile [ -e "{self.slow}" ]; do sleep 0.05; done\nexec {which("setsid")} "$@"\n')
        first.chmod(0o755)
        own = {"HOME": str(self.home), "PATH": f"{programs}:{os.environ['PATH']}"}
        super().__init__(folder, environment=own, admits=admits)
        self.gate = Gate(self.port)

    @property
    def name(self) -> str:
        return f"ssh://{self.user}@{HOST}:{self.gate.port}"

    @property
    def known(self) -> str:
        return self.known_hosts.read_text().replace(f":{self.port} ", f":{self.gate.port} ")

    def jobs(self) -> list[str]:
        root = self.home / "work"
        return [one.name for one in root.iterdir()] if root.is_dir() else []

    def processes(self, *words: str, name: str = "") -> list[int]:
        """What runs there for jobs, called *name*, with *words* in its command line."""
        return running_with(str(self.home / "work"), *words, name=name)


class Ecs(Stage):
    """A stage with two ECS hosts; the OSS fails at once, and ffmpeg takes its time."""

    a: Server
    b: Server

    def programs(self, name: str, *words: str) -> list[int]:
        """What is called *name* and runs for jobs, on either host."""
        return [*self.a.processes(*words, name=name), *self.b.processes(*words, name=name)]

    def encoders(self) -> list[int]:
        """The ffmpegs that encode, on either host."""
        return self.programs("ffmpeg", "-force_key_frames")

    def encoding(self) -> int:
        """Wait until one encodes, and is watched."""
        return wait_until(lambda: (self.encoders() or [0])[0], description="ffmpeg encodes")

    @contextmanager
    def busy(self) -> Iterator[list[str]]:
        """Meanwhile both hosts are at work, and stand still; gives the classes that wait for what they make."""
        classes = [self.book(self.booking(self.town.record(), "240P")) for _ in range(2)]
        encoders: set[int] = set()

        def stand_still() -> bool:
            for pid in self.encoders():  # at once: the other host may begin when this one would have ended
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    encoders.add(pid)
            return len(encoders) == 2

        wait_until(stand_still, timeout_s=120, description="both hosts are at work")
        try:
            yield classes
        finally:
            for pid in encoders:
                os.kill(pid, signal.SIGCONT)

    def made(self, *classes: str) -> bool:
        """Wait for the answers to *classes*; whether all are good."""
        return all(self.answer(one, timeout_s=120)["result"] == "success" for one in classes)

    def row(self, record: int, resolution: str = "240P") -> dict[str, Any]:
        """A rendition of a record, as the teacher has it."""
        wanted = "select * from video_list where record_id = ? and resolution = ?"
        return next(iter(self.rows("teacher", wanted, record, resolution)), {})

    def results(self, record: int) -> list[dict[str, Any]]:
        """What our own servers published of a record, and was heard; the stream is trimmed of what all have read."""
        heard = self.rows("teacher", "select body from inbox_list where command = 'transcoding' order by id")
        said = [json.loads(one["body"]) for one in heard]
        return [one for one in said if (one["record_id"], one["type"]) == (record, "ecs")]

    def puts(self, record: int, resolution: str = "240P") -> int:
        """How often a rendition of a record was uploaded."""
        return self.town.asked(f"put/{record}/{record}_{resolution}.flv", "PUT")

    def clean(self) -> None:
        """Wait until nothing is left on the hosts."""
        for server in (self.a, self.b):
            wait_until(
                lambda s: not s.jobs() and not s.processes(),
                server,
                description=f"nothing is left on {server.name}: {server.jobs()}, {server.processes()}",
            )


def made_once(ecs: Ecs, record: int, class_id: str) -> None:
    """One place on a host, one answer, one upload, one result."""
    assert ecs.made(class_id)
    begun = "select detail from event_list where stem = ? and what = 'ECS transcoding begins'"
    assert len(ecs.rows("teacher", begun, f"{record}_240P")) == 1
    assert ecs.puts(record) == 1
    assert [one["result"] for one in ecs.results(record)] == ["sucess"]
    assert len(ecs.ear.answers[class_id]) == 1
