"""Plays a day to its end: bookings, doubles, changes, cancels, faults; then peace, until everything is at rest."""

import heapq
import json
import random
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.faults.accounts import Sight
from tests.faults.content import Content
from tests.faults.day import LONG_S, Class, Day, How
from tests.faults.world import HOSTS, LOST_S, World
from town.recordings import Publish

FAULT_EVERY_S = 6.0
ODD_EVERY_S = 1.5
PATIENT = 0.7
"""So many of the faults wait until everybody is well again; the others strike those that begin, too."""

PATIENCE_S = 60.0
REST_S, STILL_S = 700.0, 240.0
"""After the last fault something changes at least so often, until all is at rest: a timeout, a class on air."""

SEEN_S = 2.0
"""So long is watched how two push one class, should they."""

PROGRESS_S, AGAIN_S = 5.0, 0.5
Say = Callable[[str], None]


class Play:
    def __init__(self, world: World, day: Day, say: Say) -> None:
        self.world, self.day, self.say = world, day, say
        self.bodies: dict[int, dict[str, Any]] = {}
        self.over_bound: set[str] = set()
        self.losses = self.moved = 0  # of streamers with a class on air; of these classes to another one
        self._bus = redis.Redis.from_url(
            world.town.redis_url, socket_timeout=1, decode_responses=True, retry=Retry(NoBackoff(), 0)
        )
        self._chance, self._changing = (random.Random(f"{what} {day.seed}") for what in ("faults", "changing"))
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._unsent: deque[tuple[str, Mapping[bytes, bytes]]] = deque()  # streams, and what is put on them
        self._send_at = 0.0
        self._began = 0.0
        self.content = Content(world, day.seed, lambda stream, entry: self._unsent.append((stream, entry)))
        self.changes: Counter[str] = Counter()
        self.sight = Sight(world.stage, [self.class_id(one) for one in day.classes], self.content.due, self.changes)
        self._schedule()

    def class_id(self, one: Class) -> str:
        return f"{self.world.stage.prefix}-d{self.day.seed}-{one.number}"

    def run(self) -> None:
        said = self._began = time.monotonic()
        while self._events or self._unsent:
            self.world.tend()
            now = self._now()
            while self._events and self._events[0][0] <= now:
                heapq.heappop(self._events)[2]()
            self._send()
            self.content.tend()
            self._look()
            if time.monotonic() - said > PROGRESS_S:
                said = time.monotonic()
                self.say(f"{now:4.0f} s: {self._words()}")
            time.sleep(0.02)
        self.content.end()
        self.world.heal()
        self.say(f"{self._now():4.0f} s: no more faults; {self._words()}")
        self.waits = self._rest()

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _rest(self) -> list[str]:
        """Until nothing is waited for, or nothing changes any more; returns what is waited for then.

        It is not looked at again: a class with an odd end may be on air for years, and is told of now and then.
        """
        waits: list[str] = []
        said = changed = time.monotonic()
        end = changed + REST_S
        while (now := time.monotonic()) < min(end, changed + STILL_S):
            self.world.tend()
            self._look()
            before, waits = waits, self.sight.unrest()
            waits = waits or ([] if self.world.all_well() else [self._words()])  # who was just begun says nothing yet
            if not waits:
                break
            changed = now if waits != before else changed
            if now - said > PROGRESS_S:
                said = now
                self.say(f"{self._now():4.0f} s: {'; '.join(waits[:4])}")
            time.sleep(0.3)
        return waits

    # -- what is played ----------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        for one in self.day.classes:
            self._at(one.at_s, lambda one=one: self._book(one))  # type: ignore[misc]  # bound at once
            for after_s in one.again_after_s:
                self._at(one.at_s + after_s, lambda one=one: self._book(one))  # type: ignore[misc]
            for after_s in one.changed_after_s:
                self._at(one.at_s + after_s, lambda one=one: self._change(one))  # type: ignore[misc]
            if one.cancelled_after_s is not None:
                self._at(one.at_s + one.cancelled_after_s, lambda one=one: self._cancel(one))  # type: ignore[misc]
        for one, how in self.day.losses:
            self._at(one.at_s, lambda one=one, how=how: self._lose(one, how))  # type: ignore[misc]
        at_s = 3.0
        while at_s < self.day.length_s:
            until = at_s + PATIENCE_S if self._chance.random() < PATIENT else at_s
            self._at(at_s, lambda until=until: self._fault(until))  # type: ignore[misc]
            at_s += self._chance.expovariate(1 / FAULT_EVERY_S)
        at_s = 0.0
        while at_s < self.day.length_s:
            self._at(at_s, self.content.happen)
            at_s += self._chance.expovariate(1 / ODD_EVERY_S)

    def _at(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._numbers), act))

    def _book(self, one: Class) -> None:
        if one.number not in self.bodies:
            class_id = self.class_id(one)
            self.bodies[one.number] = self.world.stage.booking(
                self.world.record_id(one.record),
                one.resolution,
                starts_in_s=one.starts_in_s,
                length_s=one.length_s,
                listed=(one.resolution,) if one.resolution and one.kind == "listed" else (),
                class_id=class_id,
                push_url=self.world.town.receiver.url(class_id),
            )
        self._put("order", self.bodies[one.number])

    def _change(self, one: Class) -> None:
        """It ends at another time, is pushed elsewhere, or is moved, perhaps to a time that is far away."""
        class_id, its, chance = self.class_id(one), self.bodies[one.number], self._changing
        by = chance.choice((-4.0, 3.0, 8.0))
        start, end = its["start_time"], its["end_time"]
        moved = [{"start_time": start + by_s, "end_time": end + by_s} for by_s in (by, 3 * 3600.0)]
        fields = chance.choice(
            [{"end_time": end + by}, {"push_url": self.world.town.receiver.url(f"{class_id}-b")}, *moved]
        )
        self.changes[class_id] += 1
        self._put("change", {"cmd": "change", "class_id": class_id, **fields})

    def pushes(self, one: Class) -> list[list[Publish]]:
        """What was pushed of a class, to its first URL and to the one of a change."""
        return [self.world.stage.pushes(name) for name in (self.class_id(one), f"{self.class_id(one)}-b")]

    def _cancel(self, one: Class) -> None:
        self._put("cancel", {"cmd": "cancel", "class_id": self.class_id(one)})

    def _put(self, channel: str, message: dict[str, Any]) -> None:
        self._unsent.append((self.world.stage.channels[channel], {b"body": json.dumps(message).encode()}))

    def _send(self) -> None:
        """What Redis does not take is sent again, as a platform does; it may be taken twice."""
        while self._unsent and time.monotonic() >= self._send_at:
            stream, entry = self._unsent[0]
            try:
                self._bus.xadd(stream, dict(entry.items()))
            except (redis.RedisError, OSError):
                self._send_at = time.monotonic() + AGAIN_S
            else:
                self._unsent.popleft()

    def _lose(self, one: Class, how: How) -> None:
        """The streamer that airs the class is not heard of, until another one airs it."""
        body, who = self.bodies.get(one.number), self._airing(one)
        if who is not None and self.world.all_well() and self._may_be_followed(who):
            self.losses += 1
            self.world.lose(who, how, LONG_S)
            lost_at = time.time()
            self._at(self._now() + LOST_S, lambda: self._find(one, who, lost_at))
        elif body is None or (time.time() < body["end_time"] and not self._is_over(one)):
            self._at(self._now() + 0.5, lambda: self._lose(one, how))

    def _may_be_followed(self, who: str) -> bool:
        """Whether another streamer may take the classes of this one: only one that its last heartbeat names."""
        stage = self.world.stage
        try:
            beats = self._bus.hgetall(f"{stage.prefix}:streamers")
        except (redis.RedisError, OSError):
            return False
        name, others = stage.name(who), {stage.name(one) for one in HOSTS[1:] if one != who}
        return bool(others & beats.keys() & {*json.loads(beats.get(name, "{}")).get("peers", ())})

    def _find(self, one: Class, lost: str, lost_at: float) -> None:
        """When another one has pushed for a moment, in which the lost one must not push any more."""
        pushes = [push for push in self.world.stage.pushes(self.class_id(one)) if push.started_at > lost_at]
        seen_s = max([(push.last_media_at or 0) - (push.first_media_at or 0) for push in pushes], default=0.0)
        is_moved = seen_s > SEEN_S and self._airing(one) not in (None, lost)
        if is_moved or not self.world.is_lost(lost) or time.time() > self.bodies[one.number]["end_time"]:
            self.moved += is_moved
            self.world.find(lost)
            self._cancel(one)
        else:
            self._at(self._now() + 0.5, lambda: self._find(one, lost, lost_at))

    def _airing(self, one: Class) -> str | None:
        """The streamer that airs the class, by the pushes that arrive and the booking's row."""
        if not any(push.ended_at is None for push in self.world.stage.pushes(self.class_id(one))):
            return None
        streamer = self._order(one).get("streamer")
        return next((who for who in HOSTS[1:] if self.world.stage.name(who) == streamer), None)

    def _is_over(self, one: Class) -> bool:
        """Whether the class will never be on air: it may have come while no streamer was heard."""
        return self._order(one).get("state") in {"refused", "cancelled", "broken"}

    def _order(self, one: Class) -> dict[str, Any]:
        try:
            return self.world.stage.order(self.class_id(one))
        except sqlite3.Error:
            return {}

    def _fault(self, patient_until: float) -> None:
        if self._now() < patient_until and not self.world.all_well():
            self._at(self._now() + 0.5, lambda: self._fault(patient_until))
            return
        chance, world = self._chance, self.world
        heard = [one for one in HOSTS[1:] if not world.is_lost(one)]  # who is lost, is not found by a fault
        streamer = chance.choice(heard or HOSTS[1:])
        who = chance.choice(("teacher", streamer))
        faults: list[tuple[int, Callable[[], None]]] = [
            (6, lambda: world.kill("teacher", chance.uniform(0, 3))),
            (6, lambda: world.kill(streamer, chance.uniform(0, 3))),
            (3, lambda: world.stop("teacher", chance.uniform(1, 10))),
            (3, lambda: world.stop(streamer, chance.uniform(1, 14))),
            (3, lambda: world.cut(who, "redis", chance.uniform(0.5, 12))),
            (2, lambda: world.cut(who, "prefect", chance.uniform(0.5, 10))),
            (2, lambda: world.kill("redis", chance.uniform(0, 3))),
            (1, lambda: world.stop("redis", chance.uniform(0.5, 6))),
            (1, lambda: world.stop("prefect", chance.uniform(0.5, 8))),
            (2, world.break_pushes),
            (2, lambda: world.reload(who)),
            (3, lambda: world.kill_worker(streamer)),
            (1, lambda: world.stop_worker(streamer, chance.uniform(0.5, 8))),
            (2, lambda: world.kill(f"playout of {streamer}", chance.uniform(0, 3))),
            (1, lambda: world.stop(f"playout of {streamer}", chance.uniform(1, 14))),
        ]
        chance.choices([act for _, act in faults], [weight for weight, _ in faults])[0]()

    # -- what is seen ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        for who in HOSTS[1:]:
            try:
                (row,) = self.world.stage.rows(
                    who, "select count(*) as num from video_list where state in ('ready', 'downloading')"
                )
            except sqlite3.Error:
                continue
            if row["num"] > self.world.cached:
                self.over_bound.add(who)

    def _words(self) -> str:
        odd = f"{self.world.faults + self.world.struck_itself()} faults, {self.content.happened} odd things"
        return f"{len(self.bodies)} of {len(self.day.classes)} booked, {odd}; {self.world.words()}"
