"""Plays a day to its end: bookings, doubles, cancels, faults; then peace, until everything is at rest."""

import heapq
import json
import random
import sqlite3
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import redis

from tests.faults.day import Class, Day
from tests.faults.world import CACHED, HOSTS, LOST_S, World

FAULT_EVERY_S = 6.0
REST_S = 300.0
"""After the last fault all is at rest within so long: a class on air, a timeout, a start on a busy machine."""

PROGRESS_S = 5.0
Say = Callable[[str], None]
GARBAGE = ("", "{", "[]", '{"cmd": "order"}', '{"cmd": "order", "class_id": "../etc/passwd"}', "\x00\xff", '"order"')


class Play:
    """One day in one world."""

    def __init__(self, world: World, day: Day, say: Say) -> None:
        self.world, self.day, self.say = world, day, say
        self.bodies: dict[int, dict[str, Any]] = {}
        self.over_bound: set[str] = set()
        self.healed_at = 0.0
        self.recovered_s: float | None = None
        self._bus = redis.Redis.from_url(world.town.redis_url, socket_timeout=1, decode_responses=True)
        self._chance = random.Random(f"faults {day.seed}")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._booked = 0
        self._began = 0.0
        self._schedule()

    def class_id(self, one: Class) -> str:
        """Its id on the wire."""
        return f"{self.world.stage.prefix}-d{self.day.seed}-{one.number}"

    def run(self) -> None:
        """Play it."""
        began = said = self._began = time.monotonic()
        while self._events:
            at_s = self._events[0][0]
            now = time.monotonic()
            if now - began >= at_s:
                heapq.heappop(self._events)[2]()
                continue
            self.world.tend()
            self._look()
            if now - said > PROGRESS_S:
                said = now
                self.say(f"{now - began:4.0f} s: {self._words()}")
            time.sleep(min(0.05, max(at_s - (now - began), 0)))
        self.world.heal()
        self.healed_at = time.time()
        self.say(f"{time.monotonic() - began:4.0f} s: no more faults; {self._words()}")
        self._rest(began)

    def _rest(self, began: float) -> None:
        give_up_at = said = time.monotonic()
        give_up_at += REST_S
        while time.monotonic() < give_up_at:
            self.world.tend()
            self._look()
            waits = self.unrest()
            if self.recovered_s is None and not any("answered" in one for one in waits):
                self.recovered_s = time.time() - self.healed_at
            if not waits:
                return
            if time.monotonic() - said > PROGRESS_S:
                said = time.monotonic()
                self.say(f"{said - began:4.0f} s: {'; '.join(waits[:4])}")
            time.sleep(0.3)

    # -- what is played ----------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        for one in self.day.classes:
            self._at(one.at_s, lambda one=one: self._book(one))  # type: ignore[misc]  # bound at once
            for after_s in one.again_after_s:
                self._at(one.at_s + after_s, lambda one=one: self._book(one))  # type: ignore[misc]
            if one.differently_after_s is not None:
                self._at(one.at_s + one.differently_after_s, lambda one=one: self._book(one, end_time=4e9 - 1))  # type: ignore[misc]
            if one.cancelled_after_s is not None:
                self._at(one.at_s + one.cancelled_after_s, lambda one=one: self._cancel(one))  # type: ignore[misc]
        at_s = 3.0
        while at_s < self.day.length_s:
            self._at(at_s, self._fault)
            at_s += self._chance.expovariate(1 / FAULT_EVERY_S)
        # Long enough that the classes of a stopped streamer are moved, while some are on air there.
        who = self._chance.choice(HOSTS[1:])
        self._at(self.day.length_s * 0.4, lambda: self.world.stop(who, LOST_S * 2.5))

    def _at(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._numbers), act))

    def _book(self, one: Class, **fields: object) -> None:
        if one.number not in self.bodies:
            self.bodies[one.number] = self._body(one)
            self._booked += 1
        body = {**self.bodies[one.number], **fields}
        text = self._chance.choice(GARBAGE) if one.kind == "garbage" else json.dumps(body)
        self._send("order", text)

    def _body(self, one: Class) -> dict[str, Any]:
        class_id = self.class_id(one)
        body = self.world.stage.booking(
            self.world.record_id(one.record),
            one.resolution,
            starts_in_s=one.starts_in_s,
            length_s=one.length_s,
            listed=(one.resolution,) if one.resolution and one.kind == "listed" else (),
            class_id=class_id,
            push_url=self.world.town.receiver.url(class_id),
        )
        if one.kind == "malformed":
            del body["start_time"]
        return body

    def _cancel(self, one: Class) -> None:
        self._send("cancel", json.dumps({"cmd": "cancel", "class_id": self.class_id(one)}))

    def _send(self, channel: str, body: str) -> None:
        """What Redis does not take is sent again, as a platform does; it may be taken twice."""
        try:
            self._bus.xadd(self.world.stage.channels[channel], {"body": body})
        except (redis.RedisError, OSError):
            self._at(time.monotonic() - self._began + 0.5, lambda: self._send(channel, body))

    def _fault(self) -> None:
        chance, world = self._chance, self.world
        streamer = chance.choice(HOSTS[1:])
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
        ]
        chance.choices([act for _, act in faults], [weight for weight, _ in faults])[0]()

    # -- what is seen ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Whether a cache is over its bound at this moment, by its rows."""
        for who in HOSTS[1:]:
            try:
                (row,) = self.world.stage.rows(
                    who, "select count(*) as num from video_list where state in ('ready', 'downloading')"
                )
            except sqlite3.Error:
                continue
            if row["num"] > CACHED:
                self.over_bound.add(who)

    def answers(self) -> dict[str, list[tuple[str, int]]]:
        """All that was said on the bus: class_id to (result, code) of each answer."""
        found: dict[str, list[tuple[str, int]]] = {}
        entries: Any = self._bus.xrange(self.world.stage.channels["order_result"])
        for _, fields in entries:
            said = json.loads(fields["body"])
            found.setdefault(said["class_id"], []).append((said["result"], said["code"]))
        return found

    def unrest(self) -> list[str]:
        """What is not at rest yet, in words."""
        try:
            answered = self.answers()
        except (redis.RedisError, OSError):
            return ["Redis can not be asked: nothing is known to be answered"]
        waits: list[str] = []
        missing = [
            self.class_id(one)
            for one in self.day.classes
            if one.kind != "garbage" and self.class_id(one) not in answered
        ]
        if missing:
            waits.append(f"{len(missing)} classes are not answered: {', '.join(missing[:3])}")
        now = time.time()
        for who in HOSTS:
            waits += self._unrest_of(who, now)
        return waits

    def _unrest_of(self, who: str, now: float) -> list[str]:
        asked = {
            "messages wait in the inbox": "select id from inbox_list where state = 'new'",
            "messages wait in the outbox": "select id from outbox_list where sent_at is null",
        }
        if who == "teacher":
            asked["classes have not ended"] = (
                "select class_id from order_list where state in ('received', 'waiting', 'placed')"
                f" or (state = 'ready' and start_time < {now + 600})"
            )
        else:
            asked["classes are on air or late"] = (
                "select c.class_id from class_list c join task_list t on c.class_id = t.class_id"
                f" where c.released_at is null and (c.state = 'waiting' or t.start_time < {now + 600})"
            )
        waits: list[str] = []
        try:
            for what, sql in asked.items():
                if rows := self.world.stage.rows(who, sql):
                    waits.append(f"{who}: {len(rows)} {what}")
        except sqlite3.Error as error:
            waits.append(f"{who}: {error}")
        return waits

    def _words(self) -> str:
        faults = self.world.faults + self.world.struck_itself()
        return f"{self._booked} of {len(self.day.classes)} booked, {faults} faults; {self.world.words()}"
