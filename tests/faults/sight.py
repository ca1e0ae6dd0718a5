"""What can be seen of a day from outside: what was answered, who was alarmed, and what is not at rest."""

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from lectern import errors
from tests.faults.accounts import OUTCOMES
from tests.faults.world import HOSTS, World


class Sight:
    """Looks at the bus and into the databases."""

    def __init__(self, world: World, bus: "redis.Redis", booked: Sequence[str], due: Mapping[str, str]) -> None:
        self._stage, self._bus = world.stage, bus
        self._booked = booked
        self._due = due  # odd classes that must be answered, too

    def answers(self) -> dict[str, list[tuple[str, int]]]:
        """All that was said on the bus: class_id to (result, code) of each answer."""
        found: dict[str, list[tuple[str, int]]] = {}
        for said in self._said("order_result"):
            found.setdefault(said["class_id"], []).append((said["result"], said["code"]))
        return found

    def alarmed(self) -> set[str]:
        """The classes of which an alarm said that they are not aired, or not to their end."""
        codes = {errors.AIRING_BROKEN.number, errors.NOT_MOVED.number, errors.ENDED.number}
        return {str(said["class_id"]) for said in self._said("alarm") if said["code"] in codes and said.get("class_id")}

    def _said(self, channel: str) -> list[dict[str, Any]]:
        entries: Any = self._bus.xrange(self._stage.channels[channel])
        return [json.loads(fields["body"]) for _, fields in entries]

    def events(self) -> dict[str, dict[int, dict[str, Any]]]:
        """The events of each class that were told on the bus, by their numbers; of the same number the first."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for said in self._said("class_event"):
            found.setdefault(said["class_id"], {}).setdefault(said["seq"], said)
        return found

    def faulty_events(self) -> list[str]:
        """What is wrong with the events of classes: a hole, another order or content, no end or two, an untrue one."""
        wrong: list[str] = []
        first = self.events()
        wrong += [
            f"{said['class_id']} {said['seq']}: told again with other content"
            for said in self._said("class_event")
            if said != first[said["class_id"]][said["seq"]]
        ]
        sql = "select class_id, state, end_time from order_list where revises is null"
        for row in self._stage.rows("teacher", sql):
            told = first.get(row["class_id"], {})
            if sorted(told) != list(range(1, len(told) + 1)):
                wrong.append(f"{row['class_id']}: its events have a hole: {sorted(told)}")
            ends = [seq for seq, said in told.items() if said["event"] in {"refused", "ended"}]
            if list(told) != sorted(told):
                wrong.append(f"{row['class_id']}: its events came in another order: {list(told)}")
            outcomes = OUTCOMES.get(row["state"], {None} if row["state"] == "refused" else None)
            if outcomes is None or (row["state"] == "broken" and row["end_time"] > time.time()):
                wrong += [f"{row['class_id']}: is {row['state']}, and its end was told"] if ends else []
            elif ends != [len(told)] or told[ends[0]].get("outcome") not in outcomes:
                said = [(one["event"], one.get("outcome")) for one in told.values()]
                wrong.append(f"{row['class_id']}: is {row['state']}, and was told as {said[-4:]}")
        return wrong

    def unrest(self) -> list[str]:
        """What is not at rest yet, in words."""
        try:
            answered = self.answers()
        except (redis.RedisError, OSError):
            return ["Redis cannot be asked: nothing is known to be answered"]
        waits: list[str] = []
        missing = [class_id for class_id in (*self._booked, *self._due) if class_id not in answered]
        if missing:
            waits.append(f"{len(missing)} classes are not answered: {', '.join(missing[:3])}")
        now = time.time()
        for who in HOSTS:
            waits += self._unrest_of(who, now)
        return waits

    def _unrest_of(self, who: str, now: float) -> list[str]:
        """What waits on *who*; an odd class may end as far away as it likes, an old row is never at rest."""
        asked = {
            "messages wait in the inbox": "select id from inbox_list where state = 'new'",
            "messages wait in the outbox": "select id from outbox_list where sent_at is null",
        }
        if who == "teacher":
            asked["classes have not ended"] = (
                "select class_id from order_list where state in ('received', 'waiting', 'placed')"
                f" or (state = 'ready' and start_time < {now + 600} and class_id not like 'odd-%')"
            )
            asked["ends are not told"] = (
                "select class_id from order_list o where revises is null and not exists (select 1 from class_event_list"
                " e where e.class_id = o.class_id and e.event = 'ended') and (state in ('aired', 'aired with gaps',"
                f" 'cancelled') or (state = 'broken' and end_time < {now}))"
            )
        else:
            asked["classes are on air or late"] = (
                "select c.class_id from class_list c join task_list t on c.class_id = t.class_id"
                " where c.class_id not like 'old-%' and c.released_at is null and (c.state = 'waiting'"
                f" or (t.start_time < {now + 600} and c.class_id not like 'odd-%'))"
            )
        waits: list[str] = []
        try:
            for what, sql in asked.items():
                if rows := self._stage.rows(who, sql):
                    waits.append(f"{who}: {len(rows)} {what}")
        except sqlite3.Error as error:
            waits.append(f"{who}: {error}")
        return waits
