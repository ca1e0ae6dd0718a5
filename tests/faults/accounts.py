"""What can be seen of classes from outside, and what is said of them when they are over."""

import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx
import redis

from flows.streamer.amend import OTHER_TIME
from lectern import errors
from tests.stage import Stage, wait_until

OVER = ("aired with gaps", "aired", "broken", "cancelled")
"""The states of a class that is over; the longer of two words first, because a sentence is searched for them."""

OUTCOMES: Mapping[str, set[str]] = {
    "aired": {"whole"},
    "aired with gaps": {"with_gaps"},
    "broken": {"not_aired", "with_gaps"},
    "cancelled": {"cancelled"},
}
"""What the platform is told of the end of a class, by its state."""

RUN_ENDS = {"broken": "FAILED", "refused": "FAILED", "cancelled": "CANCELLED"}
"""The state of the run of a class, by how the class ended; COMPLETED for the others."""

NOTHING = "nothing to do"
"""What the message of a run begins with that came too late, or too often."""

ENDED_UNHEARD = errors.ENDED.number
"""The code of a cancel that its streamer did not hear before the end of the class: it may have aired it."""

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""The states of a run that has told how its class ended."""

TOLD_S = 30.0
"""Seconds after the end of a class within which its runs tell it: they look each 5 s, and where a process has died, the
next one has to take them up first."""


class Accounts:
    """Asks the teacher at *bind*, and Prefect, for what they say of the classes of *stage*.

    Events, explain, page, report and runs are to say the same of a class that is over.
    """

    def __init__(self, stage: Stage, bind: str, streamers: Sequence[str]) -> None:
        self._stage, self._streamers = stage, streamers
        one_each = httpx.Limits(max_keepalive_connections=0)  # nothing is open between two questions
        self._http = httpx.Client(base_url=f"http://{bind}", timeout=60, trust_env=False, limits=one_each)
        self._http.headers["Accept-Language"] = "en"
        self._seen: dict[str, str] = {}
        self._lines: dict[str, dict[str, dict[str, Any]]] = {}

    def report(self, since: float) -> dict[str, dict[str, Any]]:
        """The lines of the report by class, from the day of *since* on."""
        day = time.strftime("%Y-%m-%d", time.localtime(since))
        if day not in self._lines:
            whole = ("report", "--from", day, "--to", "2099-01-01", "--format", "json")
            found = json.loads(self._stage.lectern("teacher", *whole).stdout)["classes"]
            self._lines[day] = {one["class_id"]: one for one in found}
        return self._lines[day]

    def account(self, class_id: str) -> dict[str, Any]:
        """What ``explain --json`` prints of a class."""
        found: dict[str, Any] = json.loads(self._get(f"/v1/classes/{class_id}"))
        return found

    def events(self, class_id: str) -> list[dict[str, Any]]:
        """The events of a class, as who has missed some asks for them."""
        found: list[dict[str, Any]] = []
        while more := json.loads(self._get(f"/v1/classes/{class_id}/events?after={len(found)}"))["events"]:
            found += more
        return found

    def differ(self, class_id: str, state: str) -> Iterator[str]:
        """Who says of a class that is over another state than its teacher."""
        start = self._stage.order(class_id)["start_time"]
        says = {
            "the report": self.report(start - 60).get(class_id, {}).get("state"),
            "explain": self.account(class_id)["standing"],
            "the page": self._on_the_page(class_id),
            "the as-run page": self._in_the_as_run(class_id, start),
        }
        yield from (f"{who} says {what}, the teacher {state}" for who, what in says.items() if what != state)
        if (end := self.events(class_id)[-1:]) and end[0].get("outcome") not in OUTCOMES[state]:
            yield f"is {state}, and the platform was told {end}"
        if state != "cancelled" or end[0].get("code") != ENDED_UNHEARD:
            yield from self._shown_in_prefect(class_id, self._on_its_streamer(class_id, state))

    def _on_its_streamer(self, class_id: str, state: str) -> str:
        """How a class ended on its streamer: not as its teacher's *state* if it heard of the cancel after its end."""
        order = self._stage.order(class_id)
        heard = "select max(at) as at from event_list where class_id = ? and what = 'cancel confirmed'"
        if state != "cancelled" or (self._stage.rows("teacher", heard, class_id)[0]["at"] or 0) <= order["end_time"]:
            return state
        who = next(one for one in self._streamers if order.get("streamer") == self._stage.name(one))
        return str(self._stage.airing(who, class_id).get("state", state))

    def runs(self, class_id: str) -> list[tuple[str, str]]:
        """The state and the message of each run of a class on the streamer that has it, oldest first."""
        tags, name = [f"class:{class_id}"], self._stage.order(class_id).get("streamer")
        who = next(one for one in self._streamers if name in {self._stage.name(one), None})
        runs = self._stage.runs(who, "broadcast", tags=tags)
        runs.sort(key=lambda run: str(run["created"]))
        return [(run["state_type"], str((run["state"] or {}).get("message") or "")) for run in runs]

    def _have_ended(self, class_id: str) -> bool:
        return all(kind in ENDED for kind, _ in self.runs(class_id))

    def _get(self, path: str) -> str:
        """What the teacher answers at *path*, which is asked for once; who asks too often has to wait."""

        def answer() -> httpx.Response | None:
            found = self._http.get(path)
            return None if found.status_code == httpx.codes.TOO_MANY_REQUESTS else found

        if not self._http.cookies:
            self._http.get("/", params={"token": self._token("viewer")})
            self._http.headers["Authorization"] = f"Bearer {self._token('client')}"
        if path not in self._seen:
            found = wait_until(answer, timeout_s=60, description=f"{path} is answered")
            assert found is not None
            self._seen[path] = found.raise_for_status().text
        return self._seen[path]

    def _token(self, kind: str) -> str:
        made = self._stage.lectern("teacher", kind, "add", f"accounts-{kind}", "--json")
        return str(json.loads(made.stdout)["token"])

    def _on_the_page(self, class_id: str) -> str:
        text = self._get(f"/class/{class_id}")
        found = re.search(r'<h2 class="title">\S+ <span class="[^"]*">([^<]*)</span>', text)
        return found[1] if found else text

    def _in_the_as_run(self, class_id: str, start: float) -> str:
        """The state of a class on the as-run page of the day on which it begins, where those refused stand apart."""
        page = self._get(f"/as-run?day={time.strftime('%Y-%m-%d', time.localtime(start))}")
        rows = [row for row in re.split(r"<tr>|<p>", page) if f'<a href="/class/{class_id}">' in row]
        shown = [re.search(r'<span class="s [^"]*">([^<]*)</span>', row) for row in rows]
        return next((state[1] if state else "refused" for state in shown), f"nothing: {page}")

    def _shown_in_prefect(self, class_id: str, state: str) -> Iterator[str]:
        """What its runs say otherwise than the rows: the last one that was not for another time tells its end."""
        with suppress(AssertionError):  # which runs tell no end is said below
            wait_until(self._have_ended, class_id, timeout_s=TOLD_S, description=f"the runs of {class_id} have ended")
        told = self.runs(class_id)
        for kind, message in told:
            if kind not in ENDED:
                yield f"is {state}, and one of its runs is {kind}: {message}"
            says = kind == "COMPLETED" and not message.startswith(NOTHING)  # which says how it was then
            named = next((name for name in OVER if says and name in message), state)
            if named != state:
                yield f"is {state}, and one of its runs says {named}: {message}"
        shown = [kind for kind, message in told if not message.startswith((NOTHING, OTHER_TIME))]
        ends = {RUN_ENDS.get(state, "COMPLETED")}
        if self._stage.order(class_id).get("code") == errors.NOT_MOVED.number:
            ends.add("CANCELLED")  # it was taken from its streamer, and nobody else could take it
        if shown and shown[-1] not in ends and told[-1][1] != f"{NOTHING}: {class_id} is {state}":
            yield f"is {state}, and its runs are {told}"
        bar = self._stage.described(f"broadcast-{self._stage.order(class_id).get('streamer')}-{class_id}")
        if bar.startswith(f"{class_id}: ") and bar != f"{class_id}: {state}":
            yield f"is {state}, and the bar of its run says {bar}"


class Sight:
    """Looks at the bus and into the databases: what was answered, who was alarmed, and what is not at rest."""

    def __init__(self, stage: Stage, booked: Sequence[str], due: Mapping[str, str], changes: Mapping[str, int]) -> None:
        self._stage, self._booked = stage, booked
        self._due = due  # odd classes that must be answered, too
        self._changes = changes  # how often each class was changed

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
        return self._stage.stream(self._stage.channels[channel])

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
        try:
            answered = self.answers()
        except (redis.RedisError, OSError):
            return ["Redis cannot be asked: nothing is known to be answered"]
        waits: list[str] = []
        missing = [class_id for class_id in (*self._booked, *self._due) if class_id not in answered]
        if missing:
            waits.append(f"{len(missing)} classes are not answered: {', '.join(missing[:3])}")
        changed = Counter(said["class_id"] for said in self._said("change_result"))
        if left := [class_id for class_id, number in self._changes.items() if changed[class_id] < number]:
            waits.append(f"changes of {len(left)} classes are not answered: {', '.join(left[:3])}")
        now = time.time()
        for who in self._stage.residents:
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
