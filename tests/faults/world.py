"""The real processes of a day, and what can be done to them; whoever dies is started again, as by a supervisor."""

import asyncio
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from redis.exceptions import RedisError

from lectern.demo.oss_transcoder import OssTranscoder, Rule
from lectern.states import Resolution
from tests.faults import points
from tests.faults.day import TIME_OUT_S, Day, Rendition
from tests.faults.points import STREAMER, TEACHER, Strike
from tests.stage import Child, Gate, Stage, Town

ROOT = Path(__file__).parents[2]
HOSTS = ("teacher", "streamer1", "streamer2")
LOST_S, LEASE_S = 12, 6
CACHED = 8
"""Renditions that a streamer may keep."""


class Transcoder(OssTranscoder):
    """Makes nothing: says of each rendition what the day has for it, late, doubled, or not at all."""

    renditions: Mapping[tuple[int, str], Rendition] = {}

    async def _answer(self, rule: Rule, record_id: int, resolution: Resolution) -> None:
        found = self.renditions.get((record_id, resolution.value))
        if found is None or found.result == "none":
            return
        told = [(found.delay_s, self._result(record_id, resolution, made=found.result == "made"))]
        if found.again_after_s is not None:
            told.append((found.delay_s + found.again_after_s, told[0][1]))
        if found.lie_after_s is not None:
            lie = {**self._result(record_id, resolution, made=False), "type": "ecs", "attempt": 0}
            told.append((found.lie_after_s, lie))
        began = time.monotonic()
        for at_s, result in sorted(told, key=lambda one: one[0]):
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            await self._say(result, kept=found.kept)

    def _result(self, record_id: int, resolution: Resolution, *, made: bool) -> dict[str, object]:
        url = f"{self._origin_url}/{record_id}/{record_id}_{resolution.value}.flv"
        return {
            "cmd": "transcoding",
            "record_id": record_id,
            "video_resolution": resolution.value,
            "result": "sucess" if made else "failed",
            "transcode_video_url": url if made else "",
            "type": "oss",
        }

    async def _say(self, result: dict[str, object], *, kept: bool) -> None:
        assert self._redis is not None
        for _ in range(200):  # a transcoder that reaches no Redis tries again, as the cloud's does
            with suppress(RedisError, OSError):
                if kept:
                    await self._redis.xadd(self._channel, {"body": json.dumps(result)})
                else:
                    await self._redis.publish(self._channel, json.dumps(result))
                return
            await asyncio.sleep(0.2)


class World:
    """A town that may be hurt, and the hosts in it."""

    def __init__(self, town: Town, folder: Path) -> None:
        self.town = town
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
            "MAX_VIDEO_NUM": str(CACHED),
            "BROADCAST_LEAD_S": "2",
            "INBOX_LEASE_S": "20",
            "INBOX_TRIES": "1000",
            "DRAIN_TIMEOUT_S": "2",
            "LOG_LEVEL": "INFO",
        }

    def _own(self, who: str) -> dict[str, str]:
        redis, prefect = (self.gates[who, what].port for what in ("redis", "prefect"))
        return {
            "REDIS_URL": f"redis://127.0.0.1:{redis}/0",
            "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
            "PYTHONPATH": str(ROOT),
        }

    def open(self, day: Day) -> None:
        """Start everything; whoever was there before has left messages, so nobody needs to be waited for."""
        self._chance = random.Random(f"world {day.seed}")
        self.stage.oss.renditions = {  # type: ignore[attr-defined]  # ours
            (self.record_id(one.record), one.resolution): one for one in day.renditions.values()
        }
        for record in range(day.records):
            self.town.record("240P", "480P", "720P", "1080P", record_id=self.record_id(record))
        self.stage.init(*HOSTS)
        self.peace = False
        for who in HOSTS:
            self._start(who)

    def record_id(self, record: int) -> int:
        """The id of the day's record."""
        return 1_000_000 + int(self.stage.prefix[1:]) * 10_000 + record

    # -- faults ------------------------------------------------------------------------------------------------------

    def child(self, who: str) -> Child:
        """The process of a host, or of a server."""
        return self.stage.residents[who] if who in HOSTS else self.town.servers[who]

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

    def cut(self, who: str, what: str, for_s: float) -> None:
        """No way from *who* to *what* for so long."""
        key = f"{who} to {what}"
        if key not in self._stopped:
            self.faults += 1
            self.town.background.run(self.gates[who, what].stop())
            self._stopped[key] = time.monotonic() + for_s

    def break_pushes(self) -> None:
        """All that is on air breaks off."""
        self.faults += 1
        self.town.background.run(self.town.receiver.stop())
        self.town.background.run(self.town.receiver.start())

    def tend(self) -> None:
        """What a supervisor does, many times a second: start what is dead, and let go on what was stopped."""
        now = time.monotonic()
        for who in [*HOSTS, *self.town.servers]:
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
        self._down = dict.fromkeys([*HOSTS, *self.town.servers], 0.0)
        self.tend()

    def struck_itself(self) -> int:
        """How many processes came to a point where they were killed or stopped."""
        return len(self.struck.read_text().splitlines()) if self.struck.exists() else 0

    def words(self) -> str:
        """How everybody is."""
        return ", ".join(
            f"{who} {'dead' if self.child(who).exit_code is not None else 'stopped' if who in self._stopped else 'up'}"
            for who in [*HOSTS, *self.town.servers]
        )

    def close(self) -> None:
        """End everything that is ours."""
        self.peace = True
        for what in list(self._stopped):
            self._go_on(what)
        self.stage.close()
        for gate in self.gates.values():
            self.town.background.run(gate.stop())


def _is_stopped(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False
