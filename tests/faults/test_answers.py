"""In whatever order messages come about one class, what was answered is what its rows say will be aired, and is aired.

A teacher, two streamers and their playouts, without processes: their decisions, their databases, and a clock that is
turned to the hand-over of the class, its start and its end.
"""

import json
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, select

from flows import handling
from flows.host import Host
from flows.streamer import ends
from flows.streamer.lessons import AHEAD_S
from lectern.effects.rows import airings, cache
from lectern.effects.rows.tables.engine import transaction
from lectern.messages import Cancel
from lectern.model.tables.teacher import orders
from lectern.states import AiringState, BookingState
from lectern.streamer_changes import StreamerChanges
from tests import marks, strategies
from tests.faults import hosts
from tests.faults.interleaved import databases
from tests.faults.test_changes import World, _confirmed, lesson

pytestmark = pytest.mark.night  # a minute of a processor for each ten days
CLASS, RECORD, LENGTH_S = "c-1", 10_001, 600
BEGINS = [-60, 20, 600, AHEAD_S - 30, AHEAD_S + 30, 30_000]
"""Seconds until a class begins: on air, soon, just inside and just outside of what the playout is told."""

MOVES = [-600, 0, 60, AHEAD_S, -AHEAD_S]
PASSES = [1.0, 4.0, 30.0, 590.0, AHEAD_S]
NO_ROWS: list[Any] = []


@dataclass(frozen=True)
class Said:
    """An answer that the platform heard, and when."""

    what: str
    code: int
    at: float


class Day(World):
    """A world that notes what is answered, and looks at each moment whether it is so."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.said: list[Said] = []
        self.sent: list[tuple[float, float, str]] = []  # what was aired to its end: start, end, push URL
        self.wrong: list[str] = []

    def heard(self, host: Host[Any], connection: Connection) -> None:
        """Look at what *host* says in this transaction before it is passed on."""
        outbox, name = host.journal.outbox, host.settings.name
        for row in connection.execute(
            select(outbox).where(outbox.c.id > self._read.get(name, 0)).order_by(outbox.c.id)
        ):
            fields = json.loads(row.body)
            if row.target in self.answers:
                self.said.append(Said(row.target, fields["code"], time.time()))
            if fields.get("cmd") == "amended" and fields["result"] == "success":
                self._confirmed(name, connection)
            if (
                row.target == "order_result"
                and fields["code"] == 0
                and self._of_teacher(connection).end_time <= time.time()
            ):
                self.wrong.append("success was answered after the end of the class")
        super().heard(host, connection)

    def _of_teacher(self, connection: Connection) -> Any:
        return connection.execute(select(orders).where(orders.c.class_id == CLASS)).one()

    def _confirmed(self, name: str, connection: Connection) -> None:
        """A streamer says that it airs the class as its row is: its playout has it, or it is not due."""
        (one,) = airings.by_id(connection, [CLASS]).values()
        has = self.aired[name].get(CLASS)
        if has is None and one.start_time <= time.time() + AHEAD_S:
            self.wrong.append(f"{name} confirms a change that its playout does not have")
        if has is not None and has != lesson(self.streamers[name], one):
            self.wrong.append(f"{name} confirms a change, and its playout has {has}")

    def playout_takes_over(self, name: str, share: float) -> None:
        """Its playout goes by the rows from now on, and confirms that."""
        self.plays(name)
        host, now = self.streamers[name], time.time()

        def work(connection: Connection) -> None:
            due = airings.due(connection, now + AHEAD_S, now)
            self.aired[name] = {one.class_id: lesson(host, one) for one in due}
            handling.change(connection, host, partial(_confirmed, self.aired[name]))

        self.at(host, work)

    def plays(self, name: str) -> None:
        """What its playout has begins, and ends at the end that the playout knows."""
        host, now = self.streamers[name], time.time()
        has = self.aired[name].get(CLASS)
        if has is None or has["start"] > now:
            return

        def work(connection: Connection) -> None:
            one = airings.by_id(connection, [CLASS]).get(CLASS)
            if has["end"] > now:
                handling.change(connection, host, _on_air)
            elif one is not None:
                part = {"url": 0, "session": 1, "source": "recording", "from": has["start"], "to": has["end"]}
                part |= {"position_s": 0.0, "sent_s": has["end"] - has["start"], "bytes": 1}
                told = {**has, "as_run": [part], "why": "its end has come", "sent_s": LENGTH_S, "slate_s": 0.0}
                before = one.state
                handling.change(connection, host, ends.as_told(CLASS, {**told, "gap_s": 0.0, "sessions": 1}))
                if before is not airings.by_id(connection, [CLASS])[CLASS].state:
                    self.sent.append((has["start"], has["end"], has["push_urls"][0]))

        self.at(host, work)
        if has["end"] <= now:
            del self.aired[name][CLASS]


def _on_air(connection: Connection, changes: StreamerChanges) -> None:
    one = airings.by_id(connection, [CLASS]).get(CLASS)
    if one is not None and one.state is AiringState.READY:
        changes.move(one, AiringState.ON_AIR)


class OneClass(RuleBasedStateMachine):
    """All that can happen to one class, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.now = 1_764_010_000.0
        self.stack.enter_context(pytest.MonkeyPatch.context()).setattr(time, "time", lambda: self.now)
        folder = Path(tempfile.mkdtemp(prefix="lectern-test-"))
        self.stack.callback(shutil.rmtree, folder)
        names = ["teacher", *hosts.ALIVE]
        engines = []
        for name in names:
            path = hosts.database("teacher" if name == "teacher" else "streamer", folder / f"{name}.db")
            engines.append(self.stack.enter_context(databases(path))[0])
        streamers = {
            name: hosts.streamer(engine, folder, 10**6, 10**4, name=name)
            for name, engine in zip(hosts.ALIVE, engines[1:], strict=True)
        }
        for host in streamers.values():
            with transaction(host.engine) as connection:
                cache.usage(connection, folder)
        self.day = Day(hosts.teacher(engines[0]), streamers, 0)

    def teardown(self) -> None:
        """At last all is taken and the class is aired; then what was answered must be what was sent."""
        try:
            self._settled()
        finally:
            self.stack.close()

    # -- what the platform says ----------------------------------------------------------------------------------------

    @initialize(begins_s=st.sampled_from(BEGINS))
    def book(self, begins_s: float) -> None:
        start = self.now + begins_s
        listed = {"720P": f"http://origin.example/{RECORD}_720P.flv"}
        fields: dict[str, Any] = {"record_id": RECORD, "video_url_list": listed}
        body = strategies.booking(CLASS, start_time=start, end_time=start + LENGTH_S, **fields)
        self.day.send("teacher", CLASS, body.to_json())
        self.first = start, start + LENGTH_S
        self.messages_pass()

    @rule(by_s=st.sampled_from(MOVES))
    def move(self, by_s: float) -> None:
        start, end = self.first
        self._change(start_time=start + by_s, end_time=end + by_s)

    @rule(in_s=st.sampled_from([3.0, 6.0, 60.0, 1200.0]))
    def end_in(self, in_s: float) -> None:
        self._change(end_time=self.now + in_s)

    @rule(number=st.integers(0, 1))
    def push_elsewhere(self, number: int) -> None:
        self._change(push_url=f"rtmp://push.example/live/{number}")

    def _change(self, **fields: object) -> None:
        self.day.asked[CLASS] += 1
        self.day.send("teacher", CLASS, json.dumps({"cmd": "change", "class_id": CLASS, **fields}))

    @rule()
    def cancel(self) -> None:
        self.day.send("teacher", CLASS, Cancel(class_id=CLASS).to_json())

    # -- what the hosts do ---------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from(PASSES))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def teacher_works(self) -> None:
        self.day.teacher_takes(1)

    @rule()
    def messages_pass(self) -> None:
        """To the teacher, to the streamers and back; recordings arrive."""
        self.day.teacher_takes(1)
        for name in hosts.ALIVE:
            self.day.streamer_takes(name, 1)
            self.day.downloads(name, 1)
        self.day.teacher_takes(1)

    @rule(name=st.sampled_from(hosts.ALIVE))
    def playout_beats(self, name: str) -> None:
        """It takes the timetable over, and confirms it; a beat may be missed for as long as one likes."""
        self.day.playout_takes_over(name, 1)

    @rule(name=st.sampled_from(hosts.ALIVE))
    def playout_plays(self, name: str) -> None:
        self.day.plays(name)

    @rule(name=st.sampled_from(hosts.ALIVE))
    def streamer_is_lost(self, name: str) -> None:
        self.day.loses(name)

    @rule()
    def teacher_sweeps(self) -> None:
        self.day.sweep()

    # -- what must be so -----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_untrue_was_said(self) -> None:
        assert self.day.wrong == []

    def _settled(self) -> None:
        day = self.day
        for later_s in (61, 61, 61, 61, 61, AHEAD_S, AHEAD_S, AHEAD_S, 30_000, 61, 400, 61):
            for work in (day.streamer_takes, day.downloads):
                for name in hosts.ALIVE:
                    work(name, 1)
            day.teacher_takes(1)
            for name in hosts.ALIVE:
                day.playout_takes_over(name, 1)
                day.plays(name)
            day.sweep()
            self.now += later_s
        assert day.wrong == []
        booked = [one for one in day.said if one.what == "order_result"]
        changed = [one for one in day.said if one.what == "change_result"]
        assert (len(booked), len(changed)) == (1, day.asked[CLASS])
        with transaction(day.teacher.engine) as connection:
            row = day._of_teacher(connection)
        if BookingState(row.state) is BookingState.AIRED:
            its = row.start_time, row.end_time, json.loads(row.payload)["push_url"]
            assert day.sent[-1:] == [its], "what was answered is not what was aired"


TestOneClass = OneClass.TestCase
TestOneClass.settings = settings(max_examples=marks.share(0.3), stateful_step_count=30)
