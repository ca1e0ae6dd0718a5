"""Plays a case: bookings come, a teacher is struck, and all is looked at afterwards."""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.faults.points import LAUNCHER, Orders, obeying
from tests.faults.teachers.cases import ADOPTING, DOUBLING, NAMES, Case, Outcome
from tests.stage import Stage, wait_until
from town.oss_transcoder import Behaviour, Rule

FAR_S = 300_000.0
"""The classes begin so much later that none goes on air."""

RATE = 400
STOPPED_S = 30.0
WITHIN_S = 30.0
"""Seconds after the strike, or after somebody is there again, until the last is answered."""

RECORDS, WAITERS = 3, 10

IN_FLIGHT_S = 1.0
"""Seconds around a strike in which something may have been sent and not noted."""


class Play:
    """A stage with two teachers, for one case after the other."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self._random = random.Random(seed)
        self._orders = {one: Orders(stage.folder / f"orders-{one}") for one in NAMES}
        stage.launcher = LAUNCHER
        stage.own = {one: obeying(orders) for one, orders in self._orders.items()} | {"streamer1": obeying()}
        stage.oss.behave(Rule(Behaviour.QUICK, url=f"{stage.town.origin.url}/{{record_id}}/{{record_id}}.flv"))
        stage.init("teacher")
        stage.up(*NAMES, "streamer1")

    def play(self, case: Case, number: int) -> Outcome:
        stage = self.stage
        stage.up(*NAMES)
        struck_before = len(self._struck())
        records = [stage.town.record() for _ in range(RECORDS)]
        bookings = self._bookings(number, records)
        booking = threading.Thread(target=self._book, args=(case, bookings), daemon=True)
        booking.start()
        time.sleep(number / RATE / 4)
        struck_at = self._strike(case, struck_before)
        booking.join()
        since = self._bring_back(case, struck_at)
        ids = [str(one["class_id"]) for one in bookings]
        unheard = self._await_answers(ids, since)
        outcome = Outcome(case, number, unheard=len(unheard))
        if unheard:
            self._unheard(case, bookings, unheard, outcome)
        if case.do == "stop":  # for those that would be answered a second time by who stood still
            time.sleep(max(0.0, struck_at + STOPPED_S + 5 - time.time()))
        stage.up(*NAMES)
        self._settle(outcome)
        self._time(outcome, [one for one in ids if one not in unheard], since)
        self._judge(outcome, ids, records, self._struck()[struck_before:])
        return outcome

    # -- bookings --------------------------------------------------------------------------------------------------

    def _bookings(self, number: int, records: Sequence[int]) -> list[dict[str, Any]]:
        stage = self.stage
        cached = stage.town.record("480P")
        found = [
            stage.booking(cached, "480P", listed=("480P",), starts_in_s=FAR_S)
            for _ in range(number - len(records) * WAITERS)
        ]
        at = self._random.randrange(len(found))
        waiting = [stage.booking(one, "480P", starts_in_s=FAR_S) for one in records for _ in range(WAITERS)]
        return [*found[:at], *waiting, *found[at:]]

    def _book(self, case: Case, bookings: Sequence[dict[str, Any]]) -> None:
        began = time.monotonic()
        for count, one in enumerate(bookings):
            self._send(case, one)
            time.sleep(max(0.0, began + count / RATE - time.monotonic()))

    def _send(self, case: Case, booking: dict[str, Any]) -> None:
        if case.by == "channel":
            self.stage.book(booking)
        else:
            self.stage.book_on_stream(booking)

    # -- the strike ------------------------------------------------------------------------------------------------

    def _struck(self) -> list[float]:
        return sorted(at for orders in self._orders.values() for at in orders.struck())

    def _strike(self, case: Case, before: int) -> float:
        """Strike, and return when the last victim was struck."""
        if case.point == ADOPTING:
            for count, who in enumerate(case.victims, 1):
                self._strike_while_adopting(case, who, before + count)
        else:
            for who in case.victims:
                self._orders[who].strike(case.point, case.do, call=self._random.randint(1, 3))
        self._wait(before + len(case.victims))
        return time.time()

    def _strike_while_adopting(self, case: Case, who: str, number: int) -> None:
        """The other one is dead first, and may have been struck itself before."""
        other = NAMES[1 - NAMES.index(who)]
        if case.victims.index(who) > 0 and self.stage.residents[who].exit_code is not None:
            self.stage.serve(who).wait_for("started!")
        if self.stage.residents[other].exit_code is None:
            self.stage.residents[other].kill()
        self._orders[who].strike(case.point, case.do)
        # The dead one has something in any case that can be taken over.
        values = f"'of a test {time.time()}', '{self.stage.name(other)}', {time.time() + 3600}"
        self.stage.alter("teacher", f"insert into duty_list (name, owner, lease_until) values ({values})")
        self._wait(number)

    def _wait(self, number: int) -> None:
        wait_until(lambda: len(self._struck()) >= number, timeout_s=120, description="the point is reached")

    def _bring_back(self, case: Case, struck_at: float) -> float:
        """Who is dead and nobody does the work of is started, as supervisord does; returns when somebody works."""
        stage = self.stage
        for who in case.victims:
            if case.do == "kill":
                wait_until(lambda w: stage.residents[w].exit_code is not None, who, description="it is dead")
            else:
                threading.Timer(STOPPED_S, self._go_on, [who]).start()
        if case.survivor is not None and case.point != ADOPTING:
            return struck_at
        back = [case.survivor] if case.survivor else [one for one in NAMES if case.do == "kill"]
        for who in back:
            if stage.residents[who].exit_code is not None:
                stage.serve(who)
        for who in back:
            stage.residents[who].wait_for("started!")
        return time.time() if back else struck_at + STOPPED_S

    def _go_on(self, who: str) -> None:
        if self.stage.residents[who].exit_code is None:
            self.stage.residents[who].go_on()

    # -- what came of it -------------------------------------------------------------------------------------------

    def _await_answers(self, ids: Sequence[str], since: float) -> list[str]:
        """Wait for all that somebody has heard; returns those that nobody has."""
        end = max(since, time.time()) + 3 * WITHIN_S
        while missing := {one for one in ids if not self.stage.ear.answers[one]}:
            if time.time() - since > WITHIN_S:
                known = {row["class_id"] for row in self.stage.rows("teacher", "select class_id from order_list")}
                if known.isdisjoint(missing):
                    return sorted(missing)
            if time.time() > end:
                break
            time.sleep(0.2)
        return []

    def _unheard(self, case: Case, bookings: Sequence[dict[str, Any]], unheard: Sequence[str], out: Outcome) -> None:
        """What is published while nobody listens is lost, and the platform books it again."""
        nobody_listened = case.do == "kill" and case.survivor is None and case.point != ADOPTING
        if case.by == "stream" or not nobody_listened:
            out.faults.append(f"{len(unheard)} were never answered")
        for one in bookings:
            if one["class_id"] in unheard:
                self._send(case, one)
        self._await_answers(unheard, time.time())

    def _settle(self, outcome: Outcome) -> None:
        """Nothing is unhandled, unsent or pending, and no run is at work."""
        stage = self.stage

        def left() -> list[str]:
            new = stage.rows("teacher", "select id from inbox_list where state = 'new'")
            unsent = stage.rows("teacher", "select id from outbox_list where sent_at is null")
            pending: Any = stage.town.redis.xpending(stage.channels["order"], "lectern")
            asked = {
                "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}},
                "deployments": {"name": {"any_": [stage.name("teacher")]}},
            }
            runs = stage._post("/flow_runs/filter", asked)
            found = {"unhandled": len(new), "unsent": len(unsent), "pending": pending["pending"], "runs": len(runs)}
            return [f"{number} {what}" for what, number in found.items() if number]

        until = time.monotonic() + 90
        while (found := left()) and time.monotonic() < until:
            time.sleep(0.5)
        outcome.faults += [f"left: {one}" for one in found]

    def _time(self, out: Outcome, heard: Sequence[str], since: float) -> None:
        """When the last of the classes that somebody *heard* was answered."""
        firsts = {one: found[0]["received_at"] for one in heard if (found := self.stage.ear.answers[one])}
        out.last_s = max(0.0, max(firsts.values(), default=since) - since)
        if out.last_s > WITHIN_S:
            out.faults.append(f"the last was answered after {out.last_s:.1f} s")

    def _judge(self, out: Outcome, ids: Sequence[str], records: Sequence[int], strikes: Sequence[float]) -> None:
        answers = {one: self.stage.ear.answers[one] for one in ids}
        out.answered = Counter(len(found) for found in answers.values())

        def was_in_flight(found: Sequence[Mapping[str, Any]]) -> bool:
            """Whatever the point, a strike may fall between the sending of other answers and the note of it."""
            return any(abs(one["received_at"] - at) < IN_FLIGHT_S for one in found[:1] for at in strikes)

        most = {one: 2 if out.case.point in DOUBLING or was_in_flight(found) else 1 for one, found in answers.items()}
        wrong = Counter(len(found) for one, found in answers.items() if not 1 <= len(found) <= most[one])
        out.faults += [f"{number} answered {times} times" for times, number in wrong.items()]
        differing = [one for one, found in answers.items() if len({(a["result"], a["code"]) for a in found}) > 1]
        out.faults += [f"{one}: answers differ" for one in differing]
        rows = self.stage.rows("teacher", "select class_id, placement, state from order_list")
        placed = [row["placement"] for row in rows if row["class_id"] in answers]
        out.faults += [f"{number} placed {times} times" for times, number in Counter(placed).items() if times > 1]
        for record in records:
            posts = sorted(one.at for one in list(self.stage.oss.posts) if one.record_id == record)
            in_flight = len(posts) == 2 and any(abs(posts[0] - at) < IN_FLIGHT_S for at in strikes)
            if len(posts) != 1 and not in_flight:
                out.faults.append(f"record {record}: {len(posts)} POSTs")
