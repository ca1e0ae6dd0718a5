"""The real processes of a day, and what can be done to them; whoever dies is started again, as by a supervisor."""

import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.faults import points
from tests.faults.day import LONG_S, TIME_OUT_S, Day, How, Rendition
from tests.faults.points import STREAMER, TEACHER, Strike
from tests.faults.transcoder import Transcoder
from tests.stage import UP_S, Child, Gate, Stage, Town, wait_until
from town.ports import HOST, free_port

ROOT = Path(__file__).parents[2]
HOSTS = ("teacher", "streamer1", "streamer2")
PLAYOUTS = {f"playout of {who}": who for who in HOSTS[1:]}
WORKERS = {f"worker of {who}": f"playout of {who}" for who in HOSTS[1:]}
LOST_S, LEASE_S = 12, 6


class World:
    """A town that may be hurt, and the hosts in it."""

    def __init__(self, town: Town, folder: Path, cached: int) -> None:
        self.town = town
        self.cached = cached  # renditions that a streamer may keep
        self.gates = {
            (who, what): Gate(port)
            for who in HOSTS
            for what, port in (("redis", town.redis_port), ("prefect", town.prefect_port))
        }
        for gate in self.gates.values():
            town.background.run(gate.start())
        Stage.transcoder, before = Transcoder, Stage.transcoder
        try:
            self.stage = Stage(town, folder, self._settings())
        finally:
            Stage.transcoder = before
        self.stage.own = {who: self._own(who) for who in HOSTS}
        self.stage.launcher = (sys.executable, "-m", "tests.faults.points")
        self.struck = folder / "struck.log"
        self.faults = 0
        self._down: dict[str, float] = {}  # when to start again what was found dead, monotonic
        self._stopped: dict[str, float] = {}  # when to let go on what is stopped
        self._workers: dict[str, psutil.Process] = {}  # those that are stopped
        self._chance = random.Random(0)
        self.peace = True

    def _settings(self) -> dict[str, str]:
        return {
            "STREAMER_LOST_AFTER_S": str(LOST_S),
            "LEASE_S": str(LEASE_S),
            "HEARTBEAT_INTERVAL_S": "1",
            "TRANSCODING_TIME_OUT_S": str(TIME_OUT_S),
            "ECS_HOSTS": "",
            "MAX_ATTEMPTS_A_DAY": "1000",
            "MAX_VIDEO_NUM": str(self.cached),
            "BROADCAST_LEAD_S": "2",
            "INBOX_LEASE_S": "20",
            "INBOX_MAX_ATTEMPTS": "1000",
            "DRAIN_TIMEOUT_S": "2",
            "LOG_LEVEL": "INFO",
            "API_BIND": f"{HOST}:{free_port()}",
        }

    def _own(self, who: str) -> dict[str, str]:
        redis, prefect = (self.gates[who, what].port for what in ("redis", "prefect"))
        return {
            "REDIS_URL": f"redis://127.0.0.1:{redis}/0",
            "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
            "PYTHONPATH": str(ROOT),
        }

    def open(self, day: Day) -> None:
        """Start everything, and wait until each host is up, or has come to the point at which it is struck."""
        self._chance = random.Random(f"world {day.seed}")
        self.transcodes(day.renditions.values())
        for record in range(day.records):
            self.record(record)
        self.stage.init(*HOSTS)
        self.peace = False
        for who in HOSTS:
            self._start(who)
        for who in HOSTS:
            begun = lambda w=who: self._is_up(w) or not self._works(w)  # noqa: E731
            wait_until(begun, timeout_s=UP_S, description=f"{who} is up, or struck")

    def transcodes(self, renditions: Iterable[Rendition]) -> None:
        """What the transcoder has to say from now on."""
        said = {(self.record_id(one.record), one.resolution): one for one in renditions}
        self.stage.oss.renditions = said  # type: ignore[attr-defined]  # ours

    def record(self, record: int) -> None:
        """Put the day's record on the origin."""
        resolutions = ("240P", "480P", "720P", "1080P")
        self.town.record(*resolutions, record_id=self.record_id(record), seconds=int(LONG_S) + 10)

    def record_id(self, record: int) -> int:
        return 1_000_000 + int(self.stage.prefix[1:]) * 10_000 + record

    # -- faults ------------------------------------------------------------------------------------------------------

    def child(self, who: str) -> Child:
        """The process of a host, the one that holds what it airs, or that of a server."""
        if who in PLAYOUTS:
            return self.stage.playouts[PLAYOUTS[who]]
        return self.stage.residents[who] if who in HOSTS else self.town.servers[who]

    def everybody(self) -> list[str]:
        """All that a supervisor keeps up."""
        return [*HOSTS, *PLAYOUTS, *self.town.servers]

    def _works(self, who: str) -> bool:
        """Whether its process is there, and not stopped."""
        child = self.child(who)
        return child.exit_code is None and not _is_stopped(child.pid)

    def _is_up(self, who: str) -> bool:
        return self._works(who) and (who not in HOSTS or "started!" in self.child(who).said())

    def all_well(self) -> bool:
        """Whether everybody is up, and nobody is cut off."""
        return not self._stopped and all(self._is_up(who) for who in self.everybody())

    def kill(self, who: str, for_s: float) -> None:
        """SIGKILL; it is started again after *for_s*."""
        if self.child(who).exit_code is None:
            self.faults += 1
            self.child(who).kill()
            self._stopped.pop(who, None)
            self._down[who] = time.monotonic() + for_s

    def stop(self, who: str, for_s: float) -> None:
        """SIGSTOP for so long; of the Prefect server also its children."""
        if self.child(who).exit_code is None and who not in self._stopped:
            self.faults += 1
            self.child(who).pause()
            self._stopped[who] = time.monotonic() + for_s

    def kill_worker(self, streamer: str) -> None:
        """SIGKILL to the process that sends what is on air; the one that holds it starts another."""
        with suppress(psutil.NoSuchProcess):
            for worker in psutil.Process(self.child(f"playout of {streamer}").pid).children():
                self.faults += 1
                worker.kill()

    def stop_worker(self, streamer: str, for_s: float) -> None:
        """SIGSTOP to it for so long, unless it is killed for that meanwhile."""
        key = f"worker of {streamer}"
        with suppress(psutil.NoSuchProcess):
            for worker in psutil.Process(self.child(f"playout of {streamer}").pid).children()[:1]:
                if key not in self._stopped:
                    self.faults += 1
                    worker.suspend()
                    self._workers[key] = worker
                    self._stopped[key] = time.monotonic() + for_s

    def cut(self, who: str, what: str, for_s: float) -> None:
        """No way from *who* to *what* for so long."""
        key = f"{who} to {what}"
        if key not in self._stopped:
            self.faults += 1
            self.town.background.run(self.gates[who, what].stop())
            self._stopped[key] = time.monotonic() + for_s

    def lose(self, who: str, how: How, for_s: float) -> None:
        """Nothing is heard of *who* for so long, unless it is found before."""
        if how == "freeze":  # the whole host, as a hypervisor does
            self.stop_worker(who, for_s)
            self.stop(f"playout of {who}", for_s)
        if how in ("stop", "freeze"):
            self.stop(who, for_s)
        elif how == "kill":
            self.kill(who, for_s)
        else:
            for what in ("redis", "prefect"):
                self.cut(who, what, for_s)

    def is_lost(self, who: str) -> bool:
        return who in self._down or not self._stopped.keys().isdisjoint(_ways(who))

    def find(self, who: str) -> None:
        for until in (self._stopped, self._down):
            until.update(dict.fromkeys(until.keys() & _ways(who), 0.0))

    def break_pushes(self) -> None:
        """All that is on air breaks off."""
        self.faults += 1
        self.town.background.run(self.town.receiver.stop())
        self.town.background.run(self.town.receiver.start())

    def tend(self) -> None:
        """What a supervisor does, many times a second: start what is dead, and let go on what was stopped."""
        now = time.monotonic()
        for who in self.everybody():
            child = self.child(who)
            if child.exit_code is not None:
                if self._down.setdefault(who, now + self._chance.uniform(0, 2)) <= now:
                    self._start(who)
            elif who in HOSTS and who not in self._stopped and _is_stopped(child.pid):
                self._stopped[who] = now + self._chance.uniform(1, 15)  # it struck itself at a point
        for what, until in list(self._stopped.items()):
            if until <= now:
                self._go_on(what)

    def _start(self, who: str) -> None:
        self._down.pop(who, None)
        if who in PLAYOUTS:
            self.stage.play(PLAYOUTS[who])
            return
        if who not in HOSTS:
            self.town.begin(who)
            return
        strikes = [] if self.peace else self.strikes(who)
        faults = json.dumps([one.to_json() for one in strikes])
        self.stage.serve(who, **{points.FAULTS: faults, points.LOG: str(self.struck)})

    def strikes(self, who: str) -> Sequence[Strike]:
        """What is to happen at named points of the next process of *who*."""
        names = list(TEACHER if who == "teacher" else STREAMER)
        strikes = [Strike(self._chance.choice(names), "linger", seconds=self._chance.choice((0.05, 0.3)))]
        if self._chance.random() < 0.8:
            do = self._chance.choices(("kill", "stop"), (4, 1))[0]
            call = self._chance.choice((1, 1, 1, 2, 3))
            strikes.append(Strike(self._chance.choice(names), do, call))  # type: ignore[arg-type]  # a literal
        return strikes

    def _go_on(self, what: str) -> None:
        del self._stopped[what]
        if " to " in what:
            who, _, server = what.partition(" to ")
            self.town.background.run(self.gates[who, server].start())
        elif what in WORKERS:
            with suppress(psutil.NoSuchProcess):
                self._workers.pop(what).resume()
        else:
            with suppress(ProcessLookupError):
                self.child(what).go_on()

    def heal(self) -> None:
        """No more faults: all that is stopped goes on, all that is dead is started, and no point is armed."""
        self.peace = True
        for what in list(self._stopped):
            self._go_on(what)
        for who in HOSTS:
            if self.child(who).exit_code is None:
                with suppress(ProcessLookupError):
                    self.child(who).go_on()
                    self.child(who).kill()  # the last fault, and the end of the points
        self._down = dict.fromkeys(self.everybody(), 0.0)
        self.tend()

    def struck_itself(self) -> int:
        """How many processes came to a point where they were killed or stopped."""
        return len(self.struck.read_text().splitlines()) if self.struck.exists() else 0

    def words(self) -> str:
        return ", ".join(
            f"{who} {'dead' if self.child(who).exit_code is not None else 'stopped' if who in self._stopped else 'up'}"
            for who in self.everybody()
        )

    def close(self) -> None:
        """End everything that is ours."""
        self.peace = True
        for what in list(self._stopped):
            self._go_on(what)
        self.stage.close()
        for gate in self.gates.values():
            self.town.background.run(gate.stop())


def _ways(who: str) -> set[str]:
    """What can be stopped of *who*."""
    return {who, f"{who} to redis", f"{who} to prefect", f"playout of {who}", f"worker of {who}"}


def _is_stopped(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False
