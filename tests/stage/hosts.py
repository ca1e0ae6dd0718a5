"""A teacher and streamers of a test's own: their settings, and their resident processes."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lectern.wire.parser import PUBLISHED
from tests.stage import forked
from tests.stage.children import LECTERN, UP_S, Child, is_forked
from tests.stage.ear import Ear
from tests.stage.leases import granting
from tests.stage.town import Town
from tests.waiting import wait_until
from town import playout
from town.oss_transcoder import OssTranscoder
from town.ports import HOST
from town.settings import of_any_host

SECRET = "made-up-key"
_numbers = itertools.count(1)


class Hosts:
    """A teacher and streamers of their own: names, channels, keys, databases; the servers are the town's."""

    transcoder: type[OssTranscoder] = OssTranscoder

    def __init__(self, town: Town, folder: Path, settings: Mapping[str, str]) -> None:
        self.town, self.folder = town, folder
        self.prefix = f"s{next(_numbers)}"
        self.residents: dict[str, Child] = {}
        self.playouts: dict[str, Child] = {}
        self._sockets = Path(tempfile.mkdtemp(prefix="playout-"))  # a socket's path has to be short
        self.own: dict[str, dict[str, str]] = {}  # settings of one host
        self.launcher: Sequence[str] = LECTERN
        self.playout_first = False  # as on a host, before the other processes; it takes the cores of other tests
        self._initialised: set[str] = set()
        self._children: list[Child] = []
        channels = [*PUBLISHED, "order_result", "change_result", "cancel_result", "class_event", "alarm"]
        self.channels = {name: f"{self.prefix}:{name}" for name in channels}
        self.ear = Ear(town.redis_url, self.channels["order_result"], self.channels["alarm"])
        self.oss = self.transcoder(
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
            **of_any_host(self.folder, town.programs, self.oss, town.ssh, SECRET),
            **{f"{name.upper()}_CHANNEL": channel for name, channel in self.channels.items()},
            "WAITING_KEY": f"{prefix}:{{record_id}}_{{resolution}}",
            "STREAMER_STREAM": f"{prefix}:to:{{name}}",
            "REPORT_STREAM": f"{prefix}:report",
            "DEAD_LETTER_STREAM": f"{prefix}:dead_letter",
            "STREAMERS_KEY": f"{prefix}:streamers",
            "REDIS_URL": town.redis_url,
            "PREFECT_API_URL": str(town.api.base_url).rstrip("/"),
            "TEACHER_QUEUE": self.name("teacher"),
            "TRANSCODING_TIME_OUT_S": "12",
            "HTTP_TIMEOUT_S": "5",
            "UPLOAD_URL": f"{town.origin.url}/put",
            "PUBLIC_URL": f"{town.origin.url}/put",
            "DOWNLOAD_RATE": "50m",
            "BROADCAST_LEAD_S": "8",
            "SWEEP_INTERVAL_S": "2",
            "POLL_INTERVAL_S": "2",  # a look costs a host and its Prefect server 8 ms
            "ALARM_GROUP_S": "0",  # a test hears each alarm
            "DRAIN_TIMEOUT_S": "1",
            "API_BIND": f"{HOST}:0",
            "HEALTH_BIND": f"{HOST}:0",
            "HEARTBEAT_INTERVAL_S": "2",
            "STREAMER_LOST_AFTER_S": "20",
            "LEASE_S": "12",
        }

    # -- the resident processes ------------------------------------------------------------------------------------

    def name(self, who: str) -> str:
        """The name of the host *who*: ``teacher``, ``streamer1`` …"""
        return f"{self.prefix}-{who}"

    def environment(self, who: str) -> dict[str, str]:
        """All that the host *who* sees."""
        own = (
            {"TEACHER_NAME": self.name(who)}
            if _role(who) == "teacher"
            else {
                "STREAMER_NAME": self.name(who),
                "STREAMER_DATABASE_URL": f"sqlite:///{self.database(who)}",
                "VIDEO_ROOT": str(self.folder / who),
                "PLAYOUT_DIR": str(self.folder / f"playout-{who}"),
                "PLAYOUT_SOCKET": str(self._sockets / who),
            }
        )
        return {**self.town.environment, **self.settings, **own, **self.own.get(who, {})}

    def database(self, who: str) -> Path:
        return self.folder / f"{who}.db"

    def server_url(self, who: str) -> str | None:
        """Where the database of *who* is, if it is one of a server."""
        found = self.environment(who)["TEACHER_DATABASE_URL"]
        return found if _role(who) == "teacher" and found.startswith("postgresql:") else None

    def lectern(self, who: str, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run ``lectern …`` on the host *who* to its end."""
        if is_forked(LECTERN):
            return forked.run(arguments, self.environment(who), self.folder, text, timeout_s=UP_S)
        return subprocess.run(
            [*LECTERN, *arguments],
            env=self.environment(who),
            cwd=self.folder,
            capture_output=True,
            text=True,
            input=text,
            timeout=UP_S,
            check=False,
        )

    def init(self, *who: str) -> None:
        """Initialise the hosts *who* that are not initialised."""
        new = [one for one in who if one not in self._initialised]
        begun = [self._begin(one, "init", _role(one)) for one in new]
        for one, child in zip(new, begun, strict=True):
            wait_until(lambda c: c.exit_code is not None, child, timeout_s=UP_S, description=f"{one} is initialised")
            assert child.exit_code == 0, child.said()
            self._initialised.add(one)

    def up(self, *who: str) -> None:
        """Initialise and start the hosts *who* that do not run, and wait until they work."""
        self.init(*who)
        living = {one for one, child in self.residents.items() if child.exit_code is None}
        for child in [self.serve(one) for one in who if one not in living]:
            child.wait_for("started!")
        if "teacher" not in self._initialised:
            names, key, bus = [self.name(one) for one in who], f"{self.prefix}:streamers", self.town.redis
            with granting(bus, names, key=key, stream=f"{self.prefix}:to:{{}}"):
                for name in names:
                    wait_until(bus.hexists, key, name, timeout_s=120, description=f"{name} has a lease")

    def serve(self, who: str, **extra: str) -> Child:
        """Start the resident process of *who*, and its playout if that does not run; wait for nothing."""
        if _role(who) == "streamer":
            self.play(who)
        self.residents[who] = self._begin(who, "serve", _role(who), **extra)
        return self.residents[who]

    def play(self, who: str) -> Child:
        """Start the playout of a streamer, if it does not run: it outlives the resident process."""
        living = self.playouts.get(who)
        if living is None or living.exit_code is not None:
            environment = self.environment(who)
            folder = Path(environment["PLAYOUT_DIR"])
            folder.mkdir(exist_ok=True)
            log = self.folder / f"{len(self._children):03}-playout-{who}.log"
            argv = playout.argv(folder, Path(environment["PLAYOUT_SOCKET"]), first=self.playout_first)
            self.playouts[who] = Child(argv, environment, log)
            self._children.append(self.playouts[who])
        return self.playouts[who]

    def playing(self, who: str) -> dict[str, Any]:
        """What the playout of a streamer says of itself and its classes."""
        return playout.status(Path(self.environment(who)["PLAYOUT_SOCKET"]))

    def _begin(self, who: str, *arguments: str, **extra: str) -> Child:
        log = self.folder / f"{len(self._children):03}-{arguments[0]}-{who}.log"
        self._children.append(Child([*self.launcher, *arguments], {**self.environment(who), **extra}, log))
        return self._children[-1]

    def rest(self) -> list[str]:
        """End the residents that run; returns whose they are."""
        living = [who for who, child in self.residents.items() if child.exit_code is None]
        self._end([self.residents[who] for who in living])
        return living

    def logs(self) -> Iterator[tuple[str, str]]:
        for child in self._children:
            yield child.log.stem, child.said()[-4000:]

    def close(self) -> None:
        """End all residents, by their ids."""
        self._end([child for child in self._children if child.exit_code is None])
        shutil.rmtree(self._sockets, ignore_errors=True)
        self.town.background.run(self.oss.stop())
        self.ear.close()

    @staticmethod
    def _end(living: Sequence[Child]) -> None:
        for child in living:
            with suppress(ProcessLookupError):  # it may have ended a moment ago
                os.kill(child.pid, signal.SIGCONT)
                os.kill(child.pid, signal.SIGTERM)
        for child in living:
            child.end()


def _role(who: str) -> str:
    return "teacher" if who.startswith("teacher") else "streamer"
