"""The real processes of a day, and what can be done to them; whoever dies is started again, as by a supervisor."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from tests.faults.day import LONG_S, RESOLUTIONS, TIME_OUT_S, Day, How, Transcoder
from tests.faults.points import LAUNCHER, STREAMER, TEACHER, Orders, obeying
from tests.faults.ways import Ways
from tests.stage import UP_S, Child, Gate, Stage, Town, wait_until
from town.ports import HOST, free_port

HOSTS = ("teacher", "streamer1", "streamer2")
PLAYOUTS = {f"playout of {who}": who for who in HOSTS[1:]}
LOST_S, LEASE_S = 12, 6


class _Stage(Stage):
    transcoder = Transcoder


class World:
    """A town that may be hurt, and the hosts in it."""

    def __init__(self, town: Town, folder: Path, cached: int) -> None:
        self.town = town
        self.cached = cached  # renditions that a streamer may keep
        self._more = folder / "more.env"
        self._more.touch()
        self.ways = Ways(town, HOSTS)
        self.ways.do(Gate.start)
        self.stage = _Stage(town, folder, self._settings())
        self.errors = Orders(folder / "errors")
        self._orders = {who: Orders(folder / f"orders-{who}") for who in HOSTS}
        for who, orders in self._orders.items():
            self.stage.own[who] = {**obeying(self.errors, orders), **self.ways.own(who)}
        self.stage.launcher = LAUNCHER
        self.faults = 0
        self._down: dict[str, float] = {}  # when to start again what was found dead, monotonic
        self._stopped: dict[str, tuple[float, Callable[[], object]]] = {}  # when and how to let go on what is stopped
        self._chance = random.Random(0)
        self.peace = True

    def _settings(self) -> dict[str, str]:
        return {
            "STREAMER_LOST_AFTER_S": str(LOST_S),
            "LEASE_S": str(LEASE_S),
            "HEARTBEAT_INTERVAL_S": "1",
            "POLL_INTERVAL_S": "1",
            "TRANSCODING_TIME_OUT_S": str(TIME_OUT_S),
            "ECS_HOSTS": "",
            "MAX_ATTEMPTS_A_DAY": "1000",
            "MAX_VIDEO_NUM": str(self.cached),
            "BROADCAST_LEAD_S": "2",
            "INBOX_LEASE_S": "20",
            "INBOX_MAX_ATTEMPTS": "1000",
            "DRAIN_TIMEOUT_S": "2",
            "LOG_LEVEL": "INFO",
            "LECTERN_SETTINGS": str(self._more),
            "API_BIND": f"{HOST}:{free_port()}",
        }

    def open(self, day: Day) -> None:
        """Start everything, and wait until each host is up, or has come to the point at which it is struck."""
        self._chance = random.Random(f"world {day.seed}")
        said = {(self.record_id(record), resolution): one for (record, resolution), one in day.renditions.items()}
        self.stage.oss.renditions = said  # type: ignore[attr-defined]  # ours
        for record in range(day.records):
            self.town.record(*RESOLUTIONS, record_id=self.record_id(record), seconds=int(LONG_S) + 10)
        self.stage.init(*HOSTS)
        self.peace = False
        for who in HOSTS:
            self._start(who)
        for who in HOSTS:
            begun = lambda w=who: self._is_up(w) or not self._works(w)  # noqa: E731
            wait_until(begun, timeout_s=UP_S, description=f"{who} is up, or struck")

    def record_id(self, record: int) -> int:
        return 1_000_000 + int(self.stage.prefix[1:]) * 10_000 + record

    # -- faults ------------------------------------------------------------------------------------------------------

    def child(self, who: str) -> Child:
        """The process of a host, the one that holds what it airs, or that of a server."""
        if who in PLAYOUTS:
            return self.stage.playouts[PLAYOUTS[who]]
        return self.stage.residents[who] if who in HOSTS else self.town.servers[who]

    def everybody(self) -> list[str]:
        return [*HOSTS, *PLAYOUTS, *self.town.servers]

    def _works(self, who: str) -> bool:
        child = self.child(who)
        return child.exit_code is None and not _is_stopped(child.pid)

    def _is_up(self, who: str) -> bool:
        return self._works(who) and (who not in HOSTS or "started!" in self.child(who).said())

    def all_well(self) -> bool:
        return not self._stopped and all(self._is_up(who) for who in self.everybody())

    def kill(self, who: str, for_s: float) -> None:
        """SIGKILL; it is started again after *for_s*."""
        if self.child(who).exit_code is None:
            self.faults += 1
            self.child(who).kill()
            self._stopped.pop(who, None)
            self._down[who] = time.monotonic() + for_s

    def stop(self, who: str, for_s: float) -> None:
        """SIGSTOP for so long."""
        if self.child(who).exit_code is None:
            self._hold(who, for_s, self.child(who).pause, lambda: self.child(who).go_on())

    def _hold(self, key: str, for_s: float, stop: Callable[[], object], go_on: Callable[[], object]) -> None:
        if key not in self._stopped:
            self.faults += 1
            stop()
            self._stopped[key] = time.monotonic() + for_s, go_on

    def _workers(self, streamer: str) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.child(f"playout of {streamer}").pid).children()
        return []

    def reload(self, who: str) -> None:
        """The settings are read anew, of which one is another."""
        if self._is_up(who):
            self._more.write_text(f"ALARM_QUIET_S={self._chance.randrange(600, 1200)}\n")
            os.kill(self.child(who).pid, signal.SIGHUP)

    def kill_worker(self, streamer: str) -> None:
        """SIGKILL to the process that sends what is on air; the one that holds it starts another."""
        for worker in self._workers(streamer):
            with suppress(psutil.NoSuchProcess):
                worker.kill()
                self.faults += 1

    def stop_worker(self, streamer: str, for_s: float) -> None:
        """SIGSTOP to it for so long, unless it is killed for that meanwhile."""
        for worker in self._workers(streamer)[:1]:
            with suppress(psutil.NoSuchProcess):
                self._hold(f"worker of {streamer}", for_s, worker.suspend, worker.resume)

    def cut(self, who: str, what: str, for_s: float) -> None:
        way = partial(self.ways.do, Gate.stop, (who, what)), partial(self.ways.do, Gate.start, (who, what))
        self._hold(f"{who} to {what}", for_s, *way)

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
        for what in self._stopped.keys() & _ways(who):
            self._stopped[what] = 0.0, self._stopped[what][1]
        self._down.update(dict.fromkeys(self._down.keys() & _ways(who), 0.0))

    def break_pushes(self) -> None:
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
                self._stopped[who] = now + self._chance.uniform(1, 15), child.go_on  # it struck itself at a point
        for what, (until, _) in list(self._stopped.items()):
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
        self._orders[who].forget()
        if not self.peace:
            self._order(who)
        self.stage.serve(who)

    def _order(self, who: str) -> None:
        """Something is to happen at named points of the next process of *who*."""
        names, orders = list(TEACHER if who == "teacher" else STREAMER), self._orders[who]
        orders.strike(self._chance.choice(names), "linger", seconds=self._chance.choice((0.05, 0.3)))
        if self._chance.random() < 0.8:
            do = self._chance.choices(("kill", "stop"), (4, 1))[0]
            orders.strike(self._chance.choice(names), do, call=self._chance.choice((1, 1, 1, 2, 3)))

    def _go_on(self, what: str) -> None:
        _, go_on = self._stopped.pop(what)
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            go_on()

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
        return sum(len(orders.struck()) for orders in self._orders.values())

    def words(self) -> str:
        return ", ".join(
            f"{who} {'dead' if self.child(who).exit_code is not None else 'stopped' if who in self._stopped else 'up'}"
            for who in self.everybody()
        )

    def close(self) -> None:
        self.peace = True
        for what in list(self._stopped):
            self._go_on(what)
        self.stage.close()
        self.ways.do(Gate.stop)


def _ways(who: str) -> set[str]:
    """What can be stopped of *who*."""
    return {who, f"{who} to redis", f"{who} to prefect", f"playout of {who}", f"worker of {who}"}


def _is_stopped(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False
